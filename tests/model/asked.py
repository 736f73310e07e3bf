"""A video of noise and prompts about it, for the tiny model; and what a way through it costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import padded_ids
from glus.model.glus import Glus
from glus.model.inference.video_prompts import Prompts
from glus.model.inference.video_segmenter import FrameMasks
from glus.model.selector.selector import Selector

from .tiny import IMAGE, PAD, SEG

FRAMES, CONTEXT, WINDOW = 9, (1, 4, 7), 3
#: Words of each expression: the rows of a batch differ in length.
WORDS = (3, 6, 4)


def video(frames: int = FRAMES, height: int = 24, width: int = 40) -> Tensor:
    shape = (frames, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(8))


def prompts_of(words: tuple[int, ...] = WORDS, context: int = len(CONTEXT)) -> Prompts:
    """In the reference's form: what all share, context frames, then a frame, the expression and [SEG] in turn."""
    random = torch.Generator().manual_seed(9)
    texts = [torch.randint(4, SEG, (count,), generator=random).tolist() for count in words]

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        rows = []
        for text in texts:
            answered = [7, IMAGE, 8, *text, 9, SEG, 2] * (queries - 1)
            rows.append([1, 5, 6, *[IMAGE] * context, *answered, 7, IMAGE, 8, *text, 9])
        return padded_ids(rows, PAD)

    return prompts


def always_answers(model: Glus) -> Glus:
    """The model, answering [SEG] to everything: hidden unit 0 is kept positive, and the row of [SEG] reads it alone."""
    language = model.language
    with torch.no_grad():
        language.llama.model.embed_tokens.weight[:, 0] = 4
        for layer in language.llama.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        language.mm_projector.weight[0] = 0
        language.mm_projector.bias[0] = 4
        language.llama.lm_head.weight.zero_()
        language.llama.lm_head.weight[language.seg_id, 0] = 1
    return model


def segmented(model: Glus, frames: Tensor, prompts: Prompts, **how: object) -> list[FrameMasks]:
    """All that `segment_video` yields; the context frames are CONTEXT unless `how` says otherwise."""
    way = {"context": CONTEXT, "window": WINDOW} | how
    return list(model.segment_video(lambda index: frames[index], len(frames), prompts=prompts, **way))


def table(seen: list[FrameMasks], expressions: int, frames: int = FRAMES) -> Tensor:
    """float [E, T, H, W]: the logits by expression and frame; each must be there once."""
    logits = torch.full((expressions, frames, *seen[0].logits.shape[1:]), torch.nan)
    for masks in seen:
        assert logits[masks.expressions, masks.index].isnan().all()
        logits[masks.expressions, masks.index] = masks.logits.float()
    assert not logits.isnan().any()
    return logits


@dataclass
class Cost:
    """Calls of the encoders with their frames, and what Llama was given: rows x positions of each call."""

    sam2: list[int] = field(default_factory=list)
    clip: list[int] = field(default_factory=list)
    llama: list[tuple[int, int]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(rows * positions for rows, positions in self.llama)


@contextmanager
def counted(model: Glus | Selector) -> Iterator[Cost]:
    """Counts what the model computes in the block."""
    cost = Cost()
    encoders = [] if isinstance(model, Selector) else [model.segmenter.sam2.image_encoder.trunk]
    hooks = [
        *(each.register_forward_pre_hook(lambda _, args: cost.sam2.append(len(args[0]))) for each in encoders),
        model.language.vision_tower.register_forward_pre_hook(lambda _, args: cost.clip.append(len(args[0]))),
        model.language.llama.model.register_forward_pre_hook(
            lambda _, args, keys: cost.llama.append(tuple(keys["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
    ]
    try:
        yield cost
    finally:
        for hook in hooks:
            hook.remove()
