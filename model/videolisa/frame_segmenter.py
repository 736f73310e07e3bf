"""What VideoLISA asks of a segmenter: frames and one prompt an expression in, logits of each frame alone out.

SAM 1 is one (sam1_segmenter.py), SAM 2 without its memory another.
"""

from dataclasses import replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from glus.model.memory import MemoryBank
from glus.model.model_config import ModelConfig
from glus.model.segmenter import FrameFeatures, Segmenter
from glus.model.videolisa.sam1_segmenter import Sam1Segmenter


class Features(Protocol):
    """Features of N frames."""

    def pick(self, index: Tensor) -> Self:
        """Features of the frames `index` (int64 [n]), repeated where it repeats."""


F_ = TypeVar("F_", bound=Features)


class FrameSegmenter(Protocol[F_]):
    """Frames decoded each alone. C: the prompt's width; S: the segmenter's image size; h, w: S/4."""

    def pixels(self, frames: Tensor, dtype: torch.dtype) -> Tensor:
        """uint8 [N, 3, H, W] -> float [N, 3, S, S], as the image encoder expects them."""

    def encode(self, pixels: Tensor) -> F_:
        """float [N, 3, S, S] -> features; without gradient unless `model.segmenter.train_image_encoder`."""

    def decode(self, features: F_, prompts: Tensor) -> Tensor:
        """Features of n rows, prompts float [n, C] -> logits float [n, h, w]."""

    def __call__(self, pixels: Tensor, prompts: Tensor, video_of: Tensor) -> Tensor:
        """float [V, Q, 3, S, S], float [E, C], int64 [E] -> logits float [E, Q, h, w]: the one call of training."""

    def full_size(self, low: Tensor, height: int, width: int) -> Tensor:
        """Logits float [..., h, w] -> float32 [..., height, width]."""

    def encoder_blocks(self) -> list[nn.Module]:
        """Blocks of the image encoder."""

    def compiled_parts(self) -> list[nn.Module]:
        """What torch.compile takes (model/compiling.py)."""


class _Alone(nn.Module):
    """The one call of training, for a segmenter with `encode` and `decode`."""

    def forward(self, pixels: Tensor, prompts: Tensor, video_of: Tensor) -> Tensor:
        """Low-resolution logits of every expression in every frame of its video, each frame alone.

        pixels: float [V, Q, 3, S, S]; prompts: float [E, C]; video_of: int64 [E]. Returns float [E, Q, S/4, S/4].
        """
        segmenter: Any = self
        queries = pixels.shape[1]
        features = segmenter.encode(pixels.flatten(0, 1))
        video_of = video_of.to(pixels.device, non_blocking=True)
        frame = video_of[:, None] * queries + torch.arange(queries, device=pixels.device)
        logits: Tensor = segmenter.decode(features.pick(frame.flatten()), prompts.repeat_interleave(queries, 0))
        return logits.unflatten(0, (len(prompts), queries))


class Sam1Frames(_Alone, Sam1Segmenter):
    """SAM 1."""


class Sam2Frames(_Alone, Segmenter):
    """SAM 2 without memory: each frame is decoded as the first of a clip."""

    def __init__(self, config: ModelConfig):
        super().__init__(replace(config.segmenter, use_memory=False))

    def decode(self, features: FrameFeatures, prompts: Tensor) -> Tensor:
        """Features of n rows, prompts float [n, C] -> logits float [n, S/4, S/4]."""
        logits, _ = self.step(features, prompts, MemoryBank.empty(self.config.memories), 0, remember=False)
        return logits


#: `model.segmenter.kind` -> its class. Under ZeRO-3 each is a leaf.
FRAME_SEGMENTERS: dict[str, type[Sam1Frames | Sam2Frames]] = {"sam1": Sam1Frames, "sam2": Sam2Frames}


def build_frame_segmenter(config: ModelConfig) -> FrameSegmenter[Any]:
    """The segmenter that `model.segmenter.kind` names, an nn.Module with freshly drawn weights."""
    return FRAME_SEGMENTERS[config.segmenter.kind](config)
