"""Frames as stored (uint8, original size) -> what CLIP and SAM 2 expect, on the model's device, in a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def for_segmenter(
    frames: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 [N, 3, H, W] -> float [N, 3, size, size], aspect ratio not kept.

    Scaled to [0, 1] first, then resized (bilinear, antialias), then normalised: SAM 2's SAM2Transforms.
    """
    scaled = frames.float() / 255.0
    resized = F.interpolate(scaled, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return _normalise(resized, mean, std).to(dtype)


def for_vision_tower(
    frames: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 [N, 3, H, W] -> float [N, 3, size, size]: CLIP's processor.

    The shorter side is resized to `size` (bicubic, antialias, rounded to 8 bits), the centre is cut out, then normalised.
    """
    height, width = frames.shape[-2:]
    short, long = min(height, width), max(height, width)
    longer = int(size * long / short)
    new = (size, longer) if height <= width else (longer, size)
    # Pillow resizes along the width first and rounds to 8 bits after each pass.
    wide = F.interpolate(frames.float(), size=(height, new[1]), mode="bicubic", align_corners=False, antialias=True)
    both = F.interpolate(_as_bytes(wide), size=new, mode="bicubic", align_corners=False, antialias=True)
    resized = _as_bytes(both) / 255.0
    top, left = (new[0] - size) // 2, (new[1] - size) // 2
    return _normalise(resized[..., top : top + size, left : left + size], mean, std).to(dtype)


def _as_bytes(frames: Tensor) -> Tensor:
    return frames.round().clamp(0, 255)


def _normalise(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shape = (1, 3, 1, 1)
    return (frames - frames.new_tensor(mean).view(shape)) / frames.new_tensor(std).view(shape)
