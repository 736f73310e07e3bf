"""Frames as stored (uint8, original size) -> what CLIP, SAM 1 and SAM 2 expect, on the model's device, in a batch."""

from collections.abc import Callable
from functools import lru_cache

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

    The shorter side is resized to `size` (bicubic, rounded to 8 bits), the centre is cut out, then normalised. The
    resized pixels are Pillow's to the bit: a single level off moves a frame's tokens by more than 1e-3.
    """
    height, width = frames.shape[-2:]
    longer = int(size * max(height, width) / min(height, width))
    new_height, new_width = (size, longer) if height <= width else (longer, size)
    # Pillow resizes along the width first and rounds to 8 bits after each pass.
    wide = _resize_width(frames, new_width, size, _bicubic)
    resized = _resize_width(wide.transpose(-1, -2), new_height, size, _bicubic).transpose(-1, -2)
    return _normalise(resized.float() / 255.0, mean, std).to(dtype)


def sam1_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of a frame whose longer side is resized to `size`, rounded half up (SAM's ResizeLongestSide)."""
    scale = size * 1.0 / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def for_sam1(
    frames: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 [N, 3, H, W] -> float [N, 3, size, size]: SAM 1's ResizeLongestSide and preprocess.

    The longer side is resized to `size` (bilinear, Pillow's pixels to the bit), normalised with the mean and deviation
    of 0 to 255, then zeros are added on the right and below.
    """
    height, width = sam1_size(frames.shape[-2], frames.shape[-1], size)
    wide = _resize_width(frames, width, width, _bilinear)
    resized = _resize_width(wide.transpose(-1, -2), height, height, _bilinear).transpose(-1, -2)
    normalised = _normalise(resized.float(), mean, std)
    return F.pad(normalised, (0, size - width, 0, size - height)).to(dtype)


#: A filter of Pillow's: its reach in pixels, and its weight at distances >= 0.
_Filter = tuple[int, Callable[[Tensor], Tensor]]


def _bicubic_at(x: Tensor) -> Tensor:
    near, far = (1.5 * x - 2.5) * x * x + 1, -0.5 * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_bicubic: _Filter = (2, _bicubic_at)
_bilinear: _Filter = (1, lambda x: (1 - x).clamp(min=0))


def _resize_width(frames: Tensor, new: int, size: int, kernel: _Filter) -> Tensor:
    """Frames [..., W] -> [..., size], the centre of them resized to width `new`; integers from 0 to 255."""
    old, left = frames.shape[-1], (new - size) // 2
    if old == new:
        return frames[..., left : left + size]
    weights = _pillow_weights(old, new, kernel, frames.device)[left : left + size]
    # In float32 some pixels would be a level off (tests/model/test_frames.py).
    return (frames.double() @ weights.T / _ONE + 0.5).floor().clamp(0, 255)


#: Pillow's weights are multiples of 2**-22 (PRECISION_BITS of its Resample.c); float64 adds them up without error.
_ONE = 2.0**22


@lru_cache(maxsize=16)
def _pillow_weights(old: int, new: int, kernel: _Filter, device: torch.device) -> Tensor:
    """float64 [new, old]: Pillow's weight of each old pixel in each new one along an axis, times _ONE.

    Kept for the sizes of the last videos: 2 MB for CLIP, 10 MB for SAM 1.
    """
    reach, weight_at = kernel
    stretch = max(old / new, 1.0)
    centre = (torch.arange(new, device=device, dtype=torch.float64) + 0.5)[:, None] * (old / new)
    pixel = torch.arange(old, device=device, dtype=torch.float64)
    first, end = (centre - reach * stretch + 0.5).floor(), (centre + reach * stretch + 0.5).floor()
    x = ((pixel + 0.5 - centre) / stretch).abs()
    weight = weight_at(x) * ((pixel >= first) & (pixel < end))
    scaled = weight / weight.sum(1, keepdim=True) * _ONE
    return (scaled + 0.5 * scaled.sign()).trunc()


def _normalise(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (frames - _channels(mean, frames.dtype, frames.device)) / _channels(std, frames.dtype, frames.device)


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[1, 3, 1, 1]: one value a channel. Kept: a GPU would wait for each copy."""
    return torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
