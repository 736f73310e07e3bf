"""GLUS: one frame step, used by training over a batch and by inference over a video."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.model.inference.video_prompts import Prompts, VideoPrompts
from glus.model.inference.video_segmenter import FrameMasks, InferenceOptions, VideoSegmenter, checked_key_frames
from glus.model.language.language import Language
from glus.model.losses import MasksLike, mask_losses, seg_cross_entropy
from glus.model.model_config import ModelConfig, PromptedFrames
from glus.model.segmenter import Segmenter


class BatchLike(Protocol):
    """The fields of a batch that `Glus.forward` reads. Shapes: data_pipeline/batches/batch.py."""

    frames: list[Tensor]
    context: Tensor
    query: Tensor
    video_of: Tensor
    ids: Tensor
    attention: Tensor

    @property
    def masks(self) -> Sequence[MasksLike]: ...


@dataclass(frozen=True)
class GlusOutput:
    """Losses (weighted, scalars; `loss` is their sum) and the [SEG] states, float [E, Q, C].

    The contrastive loss is not among them: it compares the states of several micro-batches (model/contrastive.py).
    """

    losses: dict[str, Tensor]
    seg_states: Tensor

    @property
    def loss(self) -> Tensor:
        """Sum of the weighted losses."""
        return torch.stack(list(self.losses.values())).sum()


def given_frames(batch: BatchLike) -> list[Tensor]:
    """The context frames of each video, then its query frames: V x uint8 [C + Q, 3, H, W]."""
    order = torch.cat([batch.context, batch.query], dim=1)
    return [frames[index] for frames, index in zip(batch.frames, order, strict=True)]


class Glus(nn.Module):
    """GLUS (Lin et al., CVPR 2025). `vocab_size` and `seg_id` come from the tokenizer."""

    def __init__(self, config: ModelConfig, vocab_size: int, seg_id: int):
        super().__init__()
        self.config = config
        self.language = Language(config, vocab_size, seg_id)
        self.segmenter = Segmenter(config.segmenter)

    def forward(self, batch: BatchLike) -> GlusOutput:
        """Losses of one micro-batch."""
        context = batch.context.shape[1]
        given = given_frames(batch)
        tokens = self.language.frame_tokens(given).unflatten(0, (len(given), -1))
        share = self.config.shares_beginnings
        reading = self.language.read(batch.ids, batch.attention, tokens, batch.video_of, share=share)
        hidden = reading.before(self.language.seg_id)
        states = self.language.seg_states(hidden)
        shown = [frames[context:] for frames in given]
        losses = {"cross_entropy": self._cross_entropy(hidden), **self._mask_losses(batch, shown, states)}
        return GlusOutput(losses, states)

    def _cross_entropy(self, hidden: Tensor) -> Tensor:
        """Weighted loss of the states that predict [SEG], float [E, Q, hidden]."""
        logits = self.language.logits(hidden)
        return self.config.loss.cross_entropy * seg_cross_entropy(logits, self.language.seg_id)

    def _mask_losses(self, batch: BatchLike, frames: Sequence[Tensor], prompts: Tensor) -> dict[str, Tensor]:
        """Weighted losses of the masks in V x Q query frames, uint8 [Q, 3, H, W] each; prompts: float [E, Q, C]."""
        weight = self.config.loss
        pixels = torch.cat([self.segmenter.pixels(each, self.language.dtype) for each in frames])
        logits = self.segmenter(pixels.unflatten(0, (len(frames), prompts.shape[1])), prompts, batch.video_of)
        bce, dice = mask_losses(logits, batch.masks, self.segmenter.full_size)
        return {"mask_bce": weight.mask_bce * bce.mean(), "mask_dice": weight.mask_dice * dice.mean()}

    @torch.no_grad()
    def segment_video(
        self,
        frame: Callable[[int], Tensor],
        frames: int,
        context: Sequence[int],
        prompts: Prompts,
        *,
        window: int = 4,
        memory_stride: int = 3,
        key_frame: int | Sequence[int] = 0,
        expressions_together: int = 16,
        reuse_prefix: bool = True,
        prompted_frames: PromptedFrames = "all",
        use_memory: bool = True,
    ) -> Iterator[FrameMasks]:
        """Masks of E expressions, frame by frame: from the key frame on to the end, then from it back to the start.

        frame: index -> uint8 [3, H, W] on the model's device; frames: their number; context: indices of the context
        frames; prompts: number of query frames in the window (1 to `window`) -> (ids int64 [E, L], attention bool
        [E, L]), padded at the end; key_frame: one for all expressions, or E of them. Where they differ, a frame is
        yielded once forward and once backward, for the expressions that pass it so, and the frames between the first
        and the last key frame are encoded twice.
        Each frame is encoded once, whatever E; what is held does not grow with the video. The language model and the
        decoder take `expressions_together` expressions at a time. `reuse_prefix` False reads every prompt from its
        first token (for comparison). `prompted_frames` "first" prompts key frames alone, and all others by
        zeros: what their masks know of the object came through the memory. `use_memory` False decodes without it.
        Raises ModelError for a video without frames, no expression, a prompt that does not fit, a wrong key frame.
        Source: the reference's inference (eval mode, its memory stride is 3).
        """
        if frames < 1:
            raise ModelError("the video has no frames: nothing can be segmented in it")
        # No prompt shows more frames than one way through the video has.
        steps = min(window, frames)
        sizes = self.config
        video_prompts = VideoPrompts.of(
            prompts, steps, len(context), sizes.vision.tokens_per_frame, sizes.language.max_positions
        )
        keys = checked_key_frames(key_frame, video_prompts.expressions, frames)
        options = InferenceOptions(
            window, memory_stride, expressions_together, reuse_prefix, prompted_frames, use_memory
        )
        video = VideoSegmenter(self.language, self.segmenter, frame, context, video_prompts, options)
        yield from video.follow(frames, keys)
