"""The losses of GLUS but the contrastive one (contrastive.py), and of VideoLISA.

Source: the reference's model/GLUS.py and VideoLISA's model/VideoLISA.py, after LISA.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class MasksLike(Protocol):
    """Masks that take their form of bool [E, Q, H, W] when they are asked for it.

    `void`: pixels that count in no loss, bool [1, Q, H, W]; None where there are none.
    """

    @property
    def void(self) -> "MasksLike | None": ...

    def painted(self) -> Tensor: ...


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of labels int64 [N] under logits float [N, vocab]; 0 where there are none."""
    return F.cross_entropy(logits.float(), labels, reduction="sum") / max(len(labels), 1)


def mask_losses(
    low: Tensor, masks: Sequence[MasksLike], full_size: Callable[[Tensor, int, int], Tensor]
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice loss of each mask at its own size, float [E * Q] each, video after video.

    low: logits float [E, Q, h, w]; masks: those of each video, in order; full_size: (logits, height, width) -> logits
    float [..., height, width]. Void pixels count in neither.
    """
    bce, dice, start = [], [], 0
    for of_video in masks:
        target = of_video.painted()
        counted = None if of_video.void is None else (~of_video.void.painted()).expand_as(target).flatten(0, 1)
        full = full_size(low[start : start + len(target)].float(), *target.shape[-2:]).flatten(0, 1)
        start += len(target)
        bce.append(mask_bce(full, target.flatten(0, 1).float(), counted))
        dice.append(mask_dice(full, target.flatten(0, 1).float(), counted))
    return torch.cat(bce), torch.cat(dice)


def seg_cross_entropy(logits: Tensor, seg_id: int) -> Tensor:
    """Cross-entropy over the positions that should predict [SEG], and over them alone. logits: float [..., vocab]."""
    flat = logits.flatten(0, -2).float()
    return F.cross_entropy(flat, torch.full((len(flat),), seg_id, device=flat.device))


def mask_bce(logits: Tensor, target: Tensor, counted: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each mask, averaged over its pixels. logits, target: float [N, H, W]. Returns [N].

    `counted`: bool [N, H, W], False at pixels that count for nothing; a mask without any other has 0.
    """
    of_pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1)
    if counted is None:
        return of_pixels.mean(1)
    weight = counted.flatten(1).to(of_pixels.dtype)
    return (of_pixels * weight).sum(1) / weight.sum(1).clamp(min=1)


def mask_dice(
    logits: Tensor, target: Tensor, counted: Tensor | None = None, scale: float = 1000.0, eps: float = 1e-6
) -> Tensor:
    """Dice loss of each mask. logits, target: float [N, H, W]; `counted` as in `mask_bce`. Returns [N].

    `scale` divides both terms, as in the reference: with it eps weighs as scale * eps would.
    """
    probability, target = logits.sigmoid().flatten(1), target.flatten(1)
    if counted is not None:
        weight = counted.flatten(1).to(probability.dtype)
        probability, target = probability * weight, target * weight
    overlap = 2 * (probability / scale * target).sum(1)
    total = (probability / scale).sum(1) + (target / scale).sum(1)
    return 1 - (overlap + eps) / (total + eps)
