"""GLUS: one frame step, used by training over a batch and by inference over a video."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glus.model.config import ModelConfig
from glus.model.contrastive import object_contrastive_loss
from glus.model.frames import for_segmenter, for_vision_tower
from glus.model.language import Language
from glus.model.losses import mask_bce, mask_dice, seg_cross_entropy
from glus.model.memory import MemoryBank
from glus.model.segmenter import Segmenter


class BatchLike(Protocol):
    """What `Glus.forward` reads of a batch. Shapes: data_pipeline/batch.py."""

    frames: list[Tensor]
    context: Tensor
    query: Tensor
    video_of: Tensor
    ids: Tensor
    attention: Tensor
    masks: list[Tensor]
    video_key: Tensor
    objects: Tensor


@dataclass(frozen=True)
class GlusOutput:
    """Losses (weighted, scalars; `loss` is their sum) and the [SEG] states, float [E, Q, C]."""

    losses: dict[str, Tensor]
    seg_states: Tensor

    @property
    def loss(self) -> Tensor:
        """Sum of the weighted losses."""
        return torch.stack(list(self.losses.values())).sum()


class Glus(nn.Module):
    """GLUS (Lin et al., CVPR 2025). `vocab_size` and `seg_id` come from the tokenizer."""

    def __init__(self, config: ModelConfig, vocab_size: int, seg_id: int):
        super().__init__()
        self.config = config
        self.language = Language(config, vocab_size, seg_id)
        self.segmenter = Segmenter(config.segmenter)

    def forward(self, batch: BatchLike) -> GlusOutput:
        """Losses of one micro-batch."""
        context, query = batch.context.shape[1], batch.query.shape[1]
        order = torch.cat([batch.context, batch.query], dim=1)
        given = [frames[index] for frames, index in zip(batch.frames, order, strict=True)]
        tokens = self._frame_tokens(given).unflatten(0, (len(given), context + query))
        reading = self.language.read(batch.ids, batch.attention, tokens[batch.video_of])
        hidden = reading.before(self.language.seg_id)
        states = self.language.seg_states(hidden)
        pixels = torch.cat([self._segmenter_pixels(frames[context:]) for frames in given])
        logits = self.segmenter(pixels.unflatten(0, (len(given), query)), states, batch.video_of)
        return GlusOutput(self._losses(batch, hidden, states, logits), states)

    def _losses(self, batch: BatchLike, hidden: Tensor, states: Tensor, logits: Tensor) -> dict[str, Tensor]:
        weight = self.config.loss
        losses = {
            "cross_entropy": weight.cross_entropy
            * seg_cross_entropy(self.language.logits(hidden), self.language.seg_id)
        }
        bce, dice, start = [], [], 0
        for target in batch.masks:
            of_video = logits[start : start + len(target)].float()
            start += len(target)
            full = F.interpolate(of_video, size=target.shape[-2:], mode="bilinear", align_corners=False)
            bce.append(mask_bce(full.flatten(0, 1), target.flatten(0, 1).float()))
            dice.append(mask_dice(full.flatten(0, 1), target.flatten(0, 1).float()))
        losses["mask_bce"] = weight.mask_bce * torch.cat(bce).mean()
        losses["mask_dice"] = weight.mask_dice * torch.cat(dice).mean()
        if weight.contrastive > 0:
            losses["contrastive"] = weight.contrastive * object_contrastive_loss(
                states, batch.video_key, batch.objects, weight.contrastive_temperature
            )
        return losses

    def _frame_tokens(self, frames: list[Tensor]) -> Tensor:
        vision, dtype = self.config.vision, self.language.mm_projector.weight.dtype
        pixels = [for_vision_tower(each, vision.image_size, vision.mean, vision.std, dtype) for each in frames]
        return self.language.encode_frames(torch.cat(pixels))

    def _segmenter_pixels(self, frames: Tensor) -> Tensor:
        sizes, dtype = self.config.segmenter, self.language.mm_projector.weight.dtype
        return for_segmenter(frames, sizes.image_size, sizes.mean, sizes.std, dtype)

    @torch.no_grad()
    def segment_video(
        self,
        frame: Callable[[int], Tensor],
        frames: int,
        context: Sequence[int],
        prompts: Callable[[int], tuple[Tensor, Tensor]],
        *,
        window: int = 4,
        memory_stride: int = 3,
        key_frame: int = 0,
    ) -> Iterator["FrameMasks"]:
        """Masks of E expressions, frame by frame: from the key frame on to the end, then from it back to the start.

        frame: index -> uint8 [3, H, W] on the model's device; context: indices of the context frames;
        prompts: number of query frames in the window (1 to `window`) -> (ids int64 [E, L], attention bool [E, L]).
        Each frame is encoded once, however many expressions; what is held does not grow with the video.
        Source: the reference's inference (eval mode, its memory stride is 3).
        """
        context_tokens = self._frame_tokens([torch.stack([frame(index) for index in context])])
        forward = range(key_frame, frames)
        yield from self._follow(frame, forward, context_tokens, prompts, window, memory_stride)
        backward = range(key_frame, -1, -1)
        if key_frame:
            followed = self._follow(frame, backward, context_tokens, prompts, window, memory_stride)
            yield from (masks for masks in followed if masks.index != key_frame)

    def _follow(
        self,
        frame: Callable[[int], Tensor],
        order: Sequence[int],
        context_tokens: Tensor,
        prompts: Callable[[int], tuple[Tensor, Tensor]],
        window: int,
        memory_stride: int,
    ) -> Iterator["FrameMasks"]:
        bank = MemoryBank.empty(self.config.segmenter.memories)
        recent: list[Tensor] = []
        for position, index in enumerate(order):
            picture = frame(index).unsqueeze(0)
            recent = [*recent, self._frame_tokens([picture])][-window:]
            ids, attention = prompts(len(recent))
            given = torch.cat([context_tokens, *recent])
            reading = self.language.read(ids, attention, given.expand(len(ids), *given.shape))
            last = reading.last()
            answered = self.language.logits(last).argmax(-1) == self.language.seg_id
            features = self.segmenter.encode(self._segmenter_pixels(picture))
            every = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
            states = self.language.seg_states(last)
            low, bank = self.segmenter.step(features.pick(every), states, bank, position, memory_stride)
            full = F.interpolate(
                low.unsqueeze(1).float(), size=picture.shape[-2:], mode="bilinear", align_corners=False
            )
            yield FrameMasks(index, full[:, 0], answered)


@dataclass(frozen=True)
class FrameMasks:
    """What one frame shows for E expressions.

    logits: float [E, H, W] at the frame's size, a mask where above 0; answered: bool [E], whether the language model
    answered with [SEG] (a mask for which it did not is to be taken as empty, and counted).
    """

    index: int
    logits: Tensor
    answered: Tensor
