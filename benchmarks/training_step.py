"""A training step at the sizes of GLUS-7B with random weights and random videos: seconds, memory, MFU, where time goes.

    python benchmarks/training_step.py                 7B, 1024 px, bf16 on a GPU; very small sizes in fp32 on a CPU
    torchrun --nproc-per-node 8 benchmarks/training_step.py --global-batch 80

Prints one JSON object on rank 0. No data, no tokenizer and no released weights are needed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from noise_batch import IMAGE, SEG, VOCABULARY, noise_batch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from glus.data_pipeline.batches.batch import Batch
from glus.launch.config.configuration import load_config
from glus.launch.planning.plan import Sizes, held_bytes, passing_bytes
from glus.launch.quiet import quiet_libraries
from glus.model.compiling import compile_parts
from glus.model.glus import Glus
from glus.model.gradient_checkpointing import recompute_activations
from glus.model.language.prompt_rows import tokens_read
from glus.model.trainable import build_empty, set_trainable
from glus.training.build import build_to_count
from glus.training.distributed import Rank
from glus.training.engines.choose import joined, make_contrast, make_engine
from glus.training.metrics.cost import Load, step_cost
from glus.training.metrics.peaks import known_peak
from glus.training.run_config import RunConfig

SMALL = Path(__file__).parents[1] / "tests" / "tiny_run.yaml"
#: Tokens of text before the question, as in GLUS's prompts.
SHARED_TEXT = 55


def config_of(arguments: argparse.Namespace) -> RunConfig:
    """The reference's settings at 7B, or the tests' smallest model."""
    changes = [
        f"global_batch_size={arguments.global_batch}",
        f"engine.micro_batch_size={arguments.micro_batch}",
        f"engine.stage={arguments.stage}",
        f"engine.offload={arguments.offload}",
        f"engine.compile={arguments.compile}",
        f"engine.gradient_checkpointing={str(arguments.recompute).lower()}",
        f"model.share_video_tokens={str(arguments.share).lower()}",
    ]
    if arguments.small:
        return load_config(RunConfig, SMALL, [*changes, "sampling.context_frames=2", "sampling.query_frames=2"])
    return load_config(RunConfig, None, [*changes, f"model.language.attention={arguments.attention}"])


def drawn(config: RunConfig, device: torch.device) -> Glus:
    """The model with random weights, drawn where it will train: drawing 7B on a CPU takes minutes."""
    model = build_empty(config.model, VOCABULARY, SEG)
    set_trainable(model, config.trainable)
    dtype = torch.bfloat16 if config.engine.precision == "bf16" else torch.float32
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, given in module._parameters.items():
            if given is not None:
                if given not in made:
                    values = torch.empty(given.shape, device=device, dtype=dtype).normal_(0.0, 0.02)
                    made[given] = nn.Parameter(values, requires_grad=given.requires_grad)
                module._parameters[name] = made[given]
    compile_parts(model, config.engine.compile, "--compile")
    if config.engine.gradient_checkpointing:
        recompute_activations(model)
    return model


def random_batch(config: RunConfig, arguments: argparse.Namespace, seed: int) -> Batch:
    """Videos of noise; all expressions of a video name one object, so that the contrastive loss has partners."""
    random = torch.Generator().manual_seed(seed)
    sampling, videos, each = config.sampling, config.engine.micro_batch_size, arguments.expressions
    context, query = sampling.context_frames, sampling.query_frames
    words = torch.randint(3, 300, (videos * each, arguments.text_tokens - SHARED_TEXT), generator=random).tolist()
    # In the order of GLUS's: the text before the question, context frames and first query frame are the same for all.
    begin = [*range(3, 3 + SHARED_TEXT), *[IMAGE] * (context + 1)]
    questions = [begin + row + [SEG] + [token for _ in range(query - 1) for token in (IMAGE, SEG)] for row in words]
    size = (arguments.height, arguments.width)
    return noise_batch(questions, videos, (context, query), size, random, first_video=1000 * seed)


def batches(config: RunConfig, arguments: argparse.Namespace, rank: Rank) -> Iterator[Batch]:
    made = [random_batch(config, arguments, 7 * rank.rank + number) for number in range(2)]
    while True:
        yield from made


def where_time_goes(step: Any, device: torch.device) -> dict[str, float]:
    """Milliseconds of one step by the operations that took most, on the device that computes."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as profiler:
        step()
    times = {
        row.key: (row.self_device_time_total if on_gpu else row.self_cpu_time_total) / 1000
        for row in profiler.key_averages()
    }
    return dict(sorted(times.items(), key=lambda pair: -pair[1])[:15])


def measure(config: RunConfig, arguments: argparse.Namespace, rank: Rank) -> dict[str, Any]:
    device = rank.device
    with joined(config, rank):
        engine, contrast = make_engine(config, drawn(config, device), rank), make_contrast(config, rank, ["noise"])
        read, seconds = batches(config, arguments, rank), []
        for number in range(arguments.warmup + arguments.steps):
            began = time.perf_counter()
            metrics = engine.step(read, 1e-5, contrast, number)
            seconds.append(time.perf_counter() - began)  # the metrics were read: the device is done
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        operations = where_time_goes(lambda: engine.step(read, 1e-5, contrast, 10**6), device)
        engine.close()
    taken = statistics.median(seconds[arguments.warmup :])
    sampling, videos = config.sampling, config.global_batch_size
    shown = sampling.context_frames + sampling.query_frames
    rows, pixels = videos * arguments.expressions, arguments.height * arguments.width
    batch, image = random_batch(config, arguments, 0), config.model.vision.tokens_per_frame
    tokens = tokens_read(batch.ids, batch.attention, image, batch.video_of, config.model.shares_beginnings)
    load = Load(videos, shown, sampling.query_frames, rows, tokens * videos // config.engine.micro_batch_size, pixels)
    empty = build_to_count(config, VOCABULARY, SEG)
    sizes = Sizes.of(empty)
    cost = step_cost(empty, torch.bfloat16 if config.engine.precision == "bf16" else torch.float32)
    micro = replace(load, videos=config.engine.micro_batch_size)
    micro = replace(micro, expressions=micro.videos * arguments.expressions, tokens=tokens)
    flop, fastest = cost.model_flop(load), known_peak(device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "ranks": rank.ranks,
        "elements": sum(sizes.every),
        "trained": sum(sizes.trained),
        "step_seconds": taken,
        "frames_per_second": videos * shown / taken,
        "tokens_per_second": load.tokens / taken,
        "model_flop": flop,
        "mfu": flop / (taken * rank.ranks * fastest) if fastest else None,
        "peak_memory_gib": peak / 2**30,
        "planned_gib": {
            name: size / 2**30
            for name, size in (
                held_bytes(config, sizes, rank.ranks) | passing_bytes(config, sizes, cost, micro)
            ).items()
        },
        "loss": metrics["total"],
        "milliseconds_by_operation": operations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--small", action="store_true", default=not gpu, help="the tests' model; the default on a CPU")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--global-batch", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--expressions", type=int, default=3)
    parser.add_argument("--text-tokens", type=int, default=150)
    parser.add_argument("--height", type=int, default=720 if gpu else 48)
    parser.add_argument("--width", type=int, default=1280 if gpu else 64)
    parser.add_argument("--stage", default="3", choices=["plain", "0", "1", "2", "3"])
    parser.add_argument("--offload", default="none", choices=["none", "optimizer", "all"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "flash_attention_2"])
    parser.add_argument("--compile", default="none", choices=["none", "llama", "segmenter", "all"])
    parser.add_argument("--share", action=argparse.BooleanOptionalAction, default=True, help="packed rows")
    parser.add_argument("--recompute", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    quiet_libraries()
    rank = Rank.from_environment()
    if rank.device.type == "cuda":
        torch.cuda.set_device(rank.device)
    found = measure(config_of(arguments), arguments, rank)
    if rank.rank == 0:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
