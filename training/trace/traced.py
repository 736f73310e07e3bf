"""Run one micro-batch of a config, and a short video, on the pretended device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from glus.model import preprocess
from glus.model.glus import Glus
from glus.model.gradient_checkpointing import recompute_activations
from glus.model.methods import AnyModel
from glus.training.build import build_to_count
from glus.training.distributed import Rank
from glus.training.engines.accumulate import Output, accumulate
from glus.training.engines.choose import make_contrast
from glus.training.run_config import RunConfig
from glus.training.trace.cuda_calls import CudaCalls, lifted_on_the_cpu, run_backward
from glus.training.trace.gpus import Gpu
from glus.training.trace.ledger import Ledger, flop_of
from glus.training.trace.noise import noise_batch
from glus.training.trace.pretended_cuda import CUDA, PretendedCuda

#: Frames of the traced video, and its expressions.
FRAMES, EXPRESSIONS = 6, 3


@dataclass(frozen=True)
class Traced:
    """A trace: what was counted, bytes of the parameters, the bytes of gradients that it left, and who got none."""

    ledger: Ledger
    parameters: int
    gradients: int = 0
    without_gradient: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """Tokens of the vocabulary, the id of [SEG], rows and columns of a frame."""

    vocabulary: int
    seg_id: int
    height: int
    width: int


def trace_training(config: RunConfig, gpu: Gpu, sizes: Sizes) -> Traced:
    """Forward pass, losses and backward pass of one micro-batch, all parameters on one device.

    Raises TrainingError for a method without a traced micro-batch.
    """
    model = build_to_count(config, sizes.vocabulary, sizes.seg_id)
    batch = noise_batch(config, sizes.seg_id, sizes.height, sizes.width)
    with pretended(gpu, config.engine.precision == "bf16") as ledger:
        _place(model, config)
        if config.engine.gradient_checkpointing:
            recompute_activations(model)
        model.train()
        held = ledger.held
        # One rank: the collectives of several are not traced.
        contrast = make_contrast(replace(config, engine=replace(config.engine, contrast_together=0)), Rank(0, 0, 1), [])
        with ledger.during("batch"):
            shown = batch.to(CUDA)

        def forward(given: Any) -> Output:
            with ledger.during("forward"):
                return model(shown)

        def backward(loss: Tensor) -> None:
            with ledger.during("backward"):
                run_backward(loss)

        with ledger.during("losses"):
            accumulate(iter([shown]), 1, forward, backward, CUDA, contrast)
        trained = [each for each in model.parameters() if each.requires_grad]
        missing = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
        gradients = sum(each.numel() * each.element_size() for each in trained if each.grad is not None)
    return Traced(ledger, held, gradients, tuple(missing))


def trace_video(config: RunConfig, gpu: Gpu, sizes: Sizes) -> Traced:
    """Masks of a video's expressions frame by frame in bf16, each read as `glus segment` does."""
    run = replace(config, engine=replace(config.engine, precision="bf16"))
    model = build_to_count(run, sizes.vocabulary, sizes.seg_id)
    if not isinstance(model, Glus):
        raise TypeError("only GLUS's videos are traced")
    alone = replace(run.sampling, expressions=EXPRESSIONS)
    with pretended(gpu, run.engine.precision == "bf16") as ledger:
        _place(model, run)
        model.eval()
        held = ledger.held
        with ledger.during("batch"):
            picture = torch.zeros(3, sizes.height, sizes.width, dtype=torch.uint8).to(CUDA, non_blocking=True)

        def prompts(queries: int) -> tuple[Tensor, Tensor]:
            one = replace(run, sampling=replace(alone, query_frames=queries))
            batch = noise_batch(one, sizes.seg_id, 8, 8)
            return batch.ids[:EXPRESSIONS].to(CUDA), batch.attention[:EXPRESSIONS].to(CUDA)

        with ledger.during("video"):
            context = list(range(run.sampling.context_frames))
            for seen in model.segment_video(lambda _: picture, FRAMES, context, prompts):
                (seen.logits > 0).cpu()
    return Traced(ledger, held)


@contextmanager
def pretended(gpu: Gpu, half: bool) -> Iterator[Ledger]:
    """Pretend that torch.device("cuda", 0) is `gpu`. half: large products in float32 are problems."""
    ledger = Ledger(gpu, half)
    _forget_tables()
    try:
        with lifted_on_the_cpu(), PretendedCuda(ledger, flop_of), CudaCalls():
            yield ledger
    finally:
        _forget_tables()


def _forget_tables() -> None:
    """Drop the tables that are kept by device: a pretended one must meet no real tensor."""
    preprocess._pillow_weights.cache_clear()
    preprocess._channels.cache_clear()


def _place(model: AnyModel, config: RunConfig) -> None:
    """Parameters in the run's precision and buffers as they are, as the engine places them."""
    dtype = torch.bfloat16 if config.engine.precision == "bf16" else torch.float32
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, given in module._parameters.items():
            if given is None:
                continue
            if given not in made:
                empty = torch.empty(given.shape, device=CUDA, dtype=dtype)
                made[given] = nn.Parameter(empty, requires_grad=given.requires_grad)
            module._parameters[name] = made[given]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(CUDA, non_blocking=True)
