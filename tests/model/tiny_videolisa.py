"""A VideoLISA of a few thousand parameters, and batches for it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.model.model_config import LanguageConfig, LoraConfig, LossConfig, ModelConfig, Sam1Config, SegmenterConfig
from glus.model.videolisa.video_lisa import VideoLisa

from .tiny import HIGH, IMAGE, PAD, SEG, VOCABULARY, WIDE, TinyClip, tiny_config

SPARSE, DENSE = 6, 2
#: Tokens that stand for a video: 6 means, then 2 x 16 patches.
SHOWN = SPARSE + DENSE * 16
BEGIN, END = [1, 2, 3], 38


def small_config(family: str = "phi3", kind: str = "sam1", **language: Any) -> ModelConfig:
    """VideoLISA with SAM 1 of 64 pixels; other families and SAM 2 by name."""
    base = tiny_config(contrastive=0.0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "key_value_heads": 2}
    sizes["max_positions"] = 256
    return replace(
        base,
        method="videolisa",
        language=LanguageConfig(family=family, **(sizes | language)),
        vision=replace(base.vision, pool=1, projector="mlp2x_gelu"),
        segmenter=replace(base.segmenter, kind=kind) if kind == "sam2" else SegmenterConfig(kind="sam1"),
        sam1=Sam1Config(
            image_size=64,
            width=16,
            depth=2,
            heads=2,
            window=3,
            hidden_dim=32,
            global_attention_blocks=(1,),
            decoder_feedforward=64,
        ),
        lora=LoraConfig(rank=2, alpha=4, dropout=0.0),
        loss=LossConfig(contrastive=0.0),
    )


def small_videolisa(config: ModelConfig | None = None) -> VideoLisa:
    """The same weights every time, drawn wide, so that different prompts end in different states."""
    torch.manual_seed(0)
    model = VideoLisa(config or small_config(), VOCABULARY, SEG)
    for parameter in model.language.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def conversation_of(text: list[int], seg: bool = True) -> list[int]:
    """Ids of one prompt: text before the video, <image>, the expression, "Sure, [SEG].<|end|>"."""
    return [*BEGIN, IMAGE, *text, 4, *([SEG] if seg else [6]), 5, END]


def prompts_of(texts: list[list[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """ids int64 [E, L] and attention bool [E, L] of expressions."""
    return _padded([conversation_of(text) for text in texts], padding)


def small_batch(*clips: TinyClip, padding: int = 0, silent: tuple[int, ...] = ()) -> Batch:
    """A batch of `clips`, two dense frames each; expressions whose number is in `silent` are answered without [SEG]."""
    rows = []
    for clip in clips:
        random = clip.random()
        for words in clip.words:
            text = torch.randint(7, SEG, (words,), generator=random).tolist()
            rows.append(conversation_of(text, seg=len(rows) not in silent))
    ids, attention = _padded(rows, padding)
    answer = attention.clone()
    answer[:, : len(BEGIN) + 1] = False
    for row, of_row in enumerate(rows):
        answer[row, : len(of_row) - 4] = False
    video_of = torch.tensor([number for number, clip in enumerate(clips) for _ in clip.words])
    sparse = torch.tensor([0, 0, 1, 2, 3, 4])
    return Batch(
        frames=[clip.frames() for clip in clips],
        context=sparse.repeat(len(clips), 1),
        query=torch.tensor([[1, 3]]).repeat(len(clips), 1),
        query_numbers=torch.tensor([[1, 3]]).repeat(len(clips), 1),
        video_of=video_of,
        ids=ids,
        attention=attention,
        answer=answer,
        masks=[MaskRuns.of(clip.masks()) for clip in clips],
        split=torch.zeros_like(video_of),
        video_key=video_of,
        expression=torch.arange(len(rows)),
        objects=torch.eye(len(rows), dtype=torch.bool),
        names=[f"small/{number}" for number in range(len(rows))],
    )


def _padded(rows: list[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    length = max(len(row) for row in rows) + padding
    ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    return ids, torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows])


__all__ = ["HIGH", "WIDE"]
