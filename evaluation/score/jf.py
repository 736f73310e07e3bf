"""Region similarity J and boundary accuracy F of masks, exactly as the official DAVIS code defines them; accuracy A and
robustness R of ReVOS.

Sources: davis2017-evaluation, davis2017/metrics.py (`db_eval_iou`, `db_eval_boundary`, `f_measure`, `_seg2bmap`);
Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016.
cilinyan/VISA, tools/metrics.py (`get_r2vos_accuracy`, `get_r2vos_robustness`); Li et al., "Robust Referring Video
Object Segmentation with Cyclic Structural Consensus", ICCV 2023.

What makes this quick changes no metric (bitplanes.py): eight frames go through one operation, and only the bounding box
of both masks is looked at.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glus.evaluation.score.bitplanes import BitPlanes, boundary, common, count, dilated, disk_columns, pack, pairs

BOUNDARY_SHARE = 0.008
"""Width of the boundary band as a share of the frame's diagonal."""
EMPTY_FOREGROUND = 1e-6
"""What VISA's code adds to the pixels of the foreground, so that a frame without any does not divide by 0."""

Mask = NDArray[np.bool_]
PerFrame = NDArray[np.float64]


def boundary_radius(height: int, width: int) -> int:
    """How far, in pixels, two boundaries may lie apart and still match, for frames of this size."""
    return math.ceil(BOUNDARY_SHARE * float(np.linalg.norm((height, width))))


def jf_per_frame(pred: Mask, target: Mask, void: Mask | None = None) -> tuple[PerFrame, PerFrame]:
    """J and F of each frame of one object (or union of objects) in one video.

    J: intersection over union; 1 where both are empty. F: harmonic mean of the precision and recall of the boundary; 1
    where neither mask has a boundary. A mask that fills the frame has none.

    Args:
        pred, target: bool [T, H, W].
        void: bool [T, H, W], pixels that count for nothing; None for none.
    Returns: J [T] and F [T], float64 in 0..1.
    Raises: ValueError for unequal shapes or a dtype other than bool.
    """
    if pred.shape != target.shape or (void is not None and void.shape != pred.shape):
        shapes = [mask.shape for mask in (pred, target, void) if mask is not None]
        raise ValueError(f"masks to compare must have one shape, got {shapes}")
    return jf(pack(without(pred, void)), pack(without(target, void)))


def without(masks: Mask, void: Mask | None) -> Mask:
    """The masks, bool [T, H, W], without the pixels in `void`, which count for nothing."""
    return masks if void is None or masks.dtype != np.bool_ else masks & ~void


def jf(pred: BitPlanes, target: BitPlanes) -> tuple[PerFrame, PerFrame]:
    """The same of packed masks. Raises ValueError for unequal shapes."""
    disk = disk_columns(boundary_radius(pred.height, pred.width))
    both, matched = np.zeros(pred.frames, np.int64), Matches.none(pred.frames)
    for pair in pairs(pred, target):
        frames = pair.frames
        used = frames.stop - frames.start
        both[frames] = count(pair.first & pair.second)[:used]
        of_pred, of_target = boundary(pair.first), boundary(pair.second)
        matched.pred[frames] = count(of_pred)[:used]
        matched.target[frames] = count(of_target)[:used]
        if matched.pred[frames].any() and matched.target[frames].any():
            matched.pred_near[frames] = count(of_pred & dilated(of_target, disk))[:used]
            matched.target_near[frames] = count(of_target & dilated(of_pred, disk))[:used]
    return _iou(both, pred.area + target.area - both), matched.f_measure()


def iou(pred: BitPlanes, target: BitPlanes) -> PerFrame:
    """J alone, [T]. Raises ValueError for unequal shapes."""
    both = common(pred, target)
    return _iou(both, pred.area + target.area - both)


def accuracy(pred: BitPlanes, target: BitPlanes, void: NDArray[np.int64] | int = 0) -> PerFrame:
    """A of each frame, [T]: the share of pixels that are right, object or not. Raises ValueError for unequal shapes.

    `void`: how many pixels of a frame count for nothing, int [T]; they are set in neither mask.
    VISA's script compares masks of 0/255 with targets of 0/1; here both are yes or no.
    """
    wrong = pred.area + target.area - 2 * common(pred, target)
    return 1.0 - wrong / np.maximum(pred.height * pred.width - void, 1)


def robustness(pred: BitPlanes, target: BitPlanes, foreground: BitPlanes) -> PerFrame:
    """R of each frame, [T]: 1 - (predicted pixels off the target) / (pixels of any object of the video), at least 0.

    Raises ValueError for unequal shapes.
    """
    beyond = pred.area - common(pred, target)
    return np.maximum(1.0 - beyond / (foreground.area + EMPTY_FOREGROUND), 0.0)


@dataclass(frozen=True)
class Matches:
    """Boundary pixels of each frame, int64 [T]: of both masks, and those that lie near the other's boundary."""

    pred: NDArray[np.int64]
    target: NDArray[np.int64]
    pred_near: NDArray[np.int64]
    target_near: NDArray[np.int64]

    @staticmethod
    def none(frames: int) -> "Matches":
        return Matches(*(np.zeros(frames, np.int64) for _ in range(4)))

    def f_measure(self) -> PerFrame:
        """F of each frame. Where one mask has no boundary, precision and recall are 1 and 0: F is 0; both none: 1."""
        neither = (self.pred == 0) & (self.target == 0)
        precision = self.pred_near / np.maximum(self.pred, 1)
        recall = self.target_near / np.maximum(self.target, 1)
        total = precision + recall
        return np.where(neither, 1.0, 2 * precision * recall / np.where(total == 0, 1.0, total))


def _iou(both: NDArray[np.int64], either: NDArray[np.int64]) -> PerFrame:
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))
