"""J and F on one core: ours against the straightforward way, in one run, with the same results.

    python benchmarks/scoring_metrics.py [FOLDER]

The straightforward way is that of the official code: full-frame boolean maps, full-frame dilation by a disk. FOLDER is
one with DAVIS17/valid/Annotations and scored/osvos (masks that OSVOS predicted); without it, made-up blobs of 854x480.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glus.evaluation.score.jf import jf_per_frame

Clip = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`_seg2bmap` of davis2017-evaluation."""
    e, s, se = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    e[:, :-1] = mask[:, 1:]
    s[:-1, :] = mask[1:, :]
    se[:-1, :-1] = mask[1:, 1:]
    b = mask ^ e | mask ^ s | mask ^ se
    b[-1, :] = mask[-1, :] ^ e[-1, :]
    b[:, -1] = mask[:, -1] ^ s[:, -1]
    b[-1, -1] = 0
    return b


def straightforward(pred: NDArray[np.bool_], target: NDArray[np.bool_]) -> tuple[float, float]:
    """J and F of one frame as the official code computes them."""
    radius = math.ceil(0.008 * float(np.linalg.norm(pred.shape)))
    square = np.arange(-radius, radius + 1) ** 2
    disk = (square[:, None] + square[None, :] <= radius**2).astype(np.uint8)
    union = int(np.sum(pred | target))
    region = 1.0 if union == 0 else float(np.sum(pred & target) / union)
    of_pred, of_target = boundary_map(pred), boundary_map(target)
    near_pred, near_target = (cv2.dilate(each.astype(np.uint8), disk) for each in (of_pred, of_target))
    n_pred, n_target = np.sum(of_pred), np.sum(of_target)
    if n_pred == 0 or n_target == 0:
        return region, float(n_pred == n_target)
    precision = np.sum(of_pred * near_target) / n_pred
    recall = np.sum(of_target * near_pred) / n_target
    total = precision + recall
    return region, float(2 * precision * recall / total) if total else 0.0


def real_clips(folder: Path) -> list[Clip]:
    """OSVOS's masks and the ground truth, a clip an object."""
    clips = []
    for video in sorted((folder / "scored" / "osvos").iterdir()):
        places = sorted((folder / "DAVIS17" / "valid" / "Annotations" / video.name).glob("*.png"))
        target = np.stack([np.asarray(Image.open(place)) for place in places])
        pred = np.stack([np.asarray(Image.open(video / place.name)) for place in places])
        clips += [(pred == number, target == number) for number in range(1, int(target[target < 255].max()) + 1)]
    return clips


def made_up_clips(frames: int = 80) -> list[Clip]:
    """A blob that walks through the picture, and the same a little off."""
    target = np.zeros((frames, 480, 854), np.uint8)
    for t, frame in enumerate(target):
        cv2.ellipse(frame, (150 + 6 * t, 240 + t), (110, 70), float(t), 0, 360, 1, -1)
    return [(np.roll(target, (5, -7), (1, 2)).astype(bool), target.astype(bool))]


def quickest(run: Callable[[], Any], times: int = 5) -> tuple[float, Any]:
    """Least seconds of several runs, and the result."""
    best, result = math.inf, None
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    cv2.setNumThreads(1)
    clips = real_clips(folder) if folder else made_up_clips()
    frames = sum(len(target) for _, target in clips)
    slow, expected = quickest(
        lambda: [straightforward(*pair) for pred, target in clips for pair in zip(pred, target, strict=True)], 3
    )
    fast, found = quickest(lambda: [jf_per_frame(pred, target) for pred, target in clips])
    flat = np.concatenate([np.stack(pair, axis=1) for pair in found])
    height, width = clips[0][0].shape[1:]
    print(f"{frames} frames of {width}x{height}, {'real' if folder else 'made-up'} masks, one core")
    print(
        f"straightforward {1000 * slow / frames:.3f} ms a frame, ours {1000 * fast / frames:.3f}: {slow / fast:.1f} x"
    )
    print(f"largest difference {np.abs(flat - np.asarray(expected)).max():.1e}")


if __name__ == "__main__":
    main()
