"""Pixels as CLIP and SAM 2 expect them, against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from glus.model.model_config import SegmenterConfig, VisionConfig
from glus.model.preprocess import _ONE, _bicubic, _channels, _pillow_weights, for_segmenter, for_vision_tower

CPU = torch.device("cpu")
CLIP, SAM2 = VisionConfig(), SegmenterConfig()


def draw(height: int, width: int, frames: int = 2) -> np.ndarray:
    """Noise, the hardest thing to resize: uint8 [N, H, W, 3]."""
    random = np.random.Generator(np.random.Philox(key=height * 10_000 + width))
    return random.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def as_tensor(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def clip_by_pillow(frame: np.ndarray, size: int) -> np.ndarray:
    """float [3, size, size]: shortest edge, bicubic, centre crop, mean and deviation, as CLIPImageProcessor has it."""
    height, width = frame.shape[:2]
    scaled = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    resized = np.asarray(Image.fromarray(frame).resize(scaled[::-1], Image.Resampling.BICUBIC))
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    cropped = resized[top : top + size, left : left + size]
    return ((cropped / 255 - np.array(CLIP.mean)) / np.array(CLIP.std)).transpose(2, 0, 1)


SIZES = [(96, 128), (120, 90), (97, 131), (301, 223), (224, 300), (61, 61), (33, 401), (480, 854), (224, 224), (3, 5)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clip_sees_the_very_pixels_that_pillow_makes(height, width):
    frames = draw(height, width)
    ours = for_vision_tower(as_tensor(frames), 224, CLIP.mean, CLIP.std)
    expected = np.stack([clip_by_pillow(frame, 224) for frame in frames])
    assert ours.shape == (2, 3, 224, 224) and ours.dtype == torch.float32
    # One of 255 levels would be 0.014; there is not even that.
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_clip_of_another_size_follows_pillow_too():
    frames = draw(75, 110)
    ours = for_vision_tower(as_tensor(frames), 32, CLIP.mean, CLIP.std)
    np.testing.assert_allclose(ours.numpy(), np.stack([clip_by_pillow(frame, 32) for frame in frames]), atol=1e-5)


def test_float32_would_put_some_pixels_a_level_off():
    """So resizing for CLIP is computed in float64."""
    frames, old, new = as_tensor(draw(480, 854)), 854, 398
    weights = _pillow_weights(old, new, _bicubic, frames.device)
    exact, rounded = (
        (frames.to(dtype) @ weights.to(dtype).T / _ONE + 0.5).floor() for dtype in (torch.float64, torch.float32)
    )
    off = (exact - rounded).abs()
    print(f"{int(off.sum())} of {off.numel():,} pixels are a level off")
    assert off.max() == 1


def test_weights_and_means_are_kept():
    """They are the same tensors in the next call: making them again took a tenth of `glus segment` on a CPU."""
    assert _pillow_weights(96, 224, _bicubic, CPU) is _pillow_weights(96, 224, _bicubic, torch.device("cpu"))
    assert _channels(CLIP.mean, torch.float32, CPU) is _channels(CLIP.mean, torch.float32, torch.device("cpu"))


def sam2_by_pillow(frame: np.ndarray, size: int) -> np.ndarray:
    """float [3, size, size]: Pillow's float images know no 8-bit rounding and always filter when they shrink."""
    planes = []
    for channel in range(3):
        plane = Image.fromarray((frame[..., channel] / 255).astype(np.float32))
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        planes.append((resized - SAM2.mean[channel]) / SAM2.std[channel])
    return np.stack(planes)


@pytest.mark.parametrize(("height", "width", "size"), [(96, 128, 256), (301, 223, 128), (120, 90, 1024), (64, 64, 64)])
def test_sam2_sees_the_frame_resized_without_its_aspect_ratio(height, width, size):
    frames = draw(height, width)
    ours = for_segmenter(as_tensor(frames), size, SAM2.mean, SAM2.std)
    assert ours.shape == (2, 3, size, size)
    np.testing.assert_allclose(ours.numpy(), np.stack([sam2_by_pillow(frame, size) for frame in frames]), atol=1e-4)


@pytest.mark.parametrize("prepare", [for_segmenter, for_vision_tower])
def test_a_frame_does_not_depend_on_its_neighbours_and_takes_the_type_asked_for(prepare):
    frames = as_tensor(draw(50, 70, frames=3))
    together = prepare(frames, 64, CLIP.mean, CLIP.std, torch.bfloat16)
    assert together.dtype == torch.bfloat16
    assert torch.equal(together[1:2], prepare(frames[1:2], 64, CLIP.mean, CLIP.std, torch.bfloat16))
