"""The losses of GLUS but the contrastive one (contrastive.py). Source: the reference's model/GLUS.py, after LISA."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
