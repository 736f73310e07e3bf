"""Region similarity J and boundary accuracy F of masks, exactly as the official DAVIS code defines them.

Source: davis2017-evaluation, davis2017/metrics.py (`db_eval_iou`, `db_eval_boundary`, `f_measure`, `_seg2bmap`);
Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016.

What makes this quick changes no figure: only the bounding box of both masks is looked at, one pixel wider to the top
and left, because a boundary pixel lies at most there; dilated boundaries matter only where the other mask has boundary.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BOUNDARY_SHARE = 0.008
"""Width of the boundary band as a share of the frame's diagonal."""

Mask = NDArray[np.bool_]
Plane = NDArray[np.uint8]

_WINDOW = np.ones((2, 2), np.uint8)


def boundary_radius(height: int, width: int) -> int:
    """How far, in pixels, two boundaries may lie apart and still match, for frames of this size."""
    return math.ceil(BOUNDARY_SHARE * float(np.linalg.norm((height, width))))


def disk(radius: int) -> Plane:
    """A filled disk, uint8 [2r + 1, 2r + 1]: 1 where x^2 + y^2 <= r^2, as skimage.morphology.disk draws it."""
    square = np.arange(-radius, radius + 1) ** 2
    return (square[:, None] + square[None, :] <= radius**2).astype(np.uint8)


def region_similarity(pred: Mask, target: Mask, void: Mask | None = None) -> float:
    """J of one frame: intersection over union; 1 where both are empty.

    `pred`, `target`, `void`: bool [H, W]. Pixels in `void` count for nothing. Raises ValueError for unequal shapes.
    """
    return float(jf_per_frame(pred[None], target[None], None if void is None else void[None])[0][0])


def boundary_accuracy(pred: Mask, target: Mask, void: Mask | None = None) -> float:
    """F of one frame: harmonic mean of the precision and recall of the boundary; 1 where neither mask has a boundary.

    `pred`, `target`, `void`: bool [H, W]. A mask that fills the frame has no boundary.
    Raises ValueError for unequal shapes.
    """
    return float(jf_per_frame(pred[None], target[None], None if void is None else void[None])[1][0])


def jf_per_frame(pred: Mask, target: Mask, void: Mask | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """J and F of each frame of one object (or union of objects) in one video.

    Args:
        pred, target: bool [T, H, W].
        void: bool [T, H, W], pixels that count for nothing; None for none.
    Returns: J [T] and F [T], float64 in 0..1.
    Raises: ValueError for unequal shapes or a dtype other than bool.
    """
    masks = [_planes(mask) for mask in (pred, target)]
    if pred.shape != target.shape or (void is not None and void.shape != pred.shape):
        shapes = [mask.shape for mask in (pred, target, void) if mask is not None]
        raise ValueError(f"masks to compare must have one shape, got {shapes}")
    if void is not None:
        hidden = _planes(void)
        masks = [np.where(hidden, np.uint8(0), mask) for mask in masks]
    frames, height, width = pred.shape
    ball = disk(boundary_radius(height, width))
    region, boundary = np.ones(frames), np.ones(frames)
    for t in range(frames):
        region[t], boundary[t] = _jf(masks[0][t], masks[1][t], ball)
    return region, boundary


def _planes(mask: Mask) -> Plane:
    if mask.dtype != np.bool_ or mask.ndim != 3:
        raise ValueError(f"a mask must be bool [T, H, W], got {mask.dtype} {list(mask.shape)}")
    return np.ascontiguousarray(mask).view(np.uint8)


def _jf(pred: Plane, target: Plane, ball: Plane) -> tuple[float, float]:
    if pred.size == 0:
        return 1.0, 1.0
    x, y, width, height = cv2.boundingRect(cv2.bitwise_or(pred, target))
    if width == 0:
        return 1.0, 1.0
    # One pixel more on each side: to the top and left for the boundary, which lies half a pixel towards the origin;
    # to the bottom and right so that the crop's own edge is empty unless it is the frame's.
    crop = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
    pred, target = pred[crop], target[crop]
    common = cv2.countNonZero(cv2.bitwise_and(pred, target))
    union = cv2.countNonZero(cv2.bitwise_or(pred, target))
    return common / union, _boundary_f(_boundary(pred), _boundary(target), ball)


def _boundary(mask: Plane) -> Plane:
    """`_seg2bmap`: 1 where a pixel differs from its right, lower or lower right neighbour in the frame."""
    window: Any = {"kernel": _WINDOW, "anchor": (0, 0)}
    return np.asarray(cv2.bitwise_xor(cv2.dilate(mask, **window), cv2.erode(mask, **window)), np.uint8)


def _boundary_f(pred: Plane, target: Plane, ball: Plane) -> float:
    of_pred, of_target = cv2.countNonZero(pred), cv2.countNonZero(target)
    if not of_pred or not of_target:
        # Precision 1 and recall 0, or the reverse, where one is empty; both 1 where both are.
        return 1.0 if of_pred == of_target else 0.0
    precision = cv2.countNonZero(cv2.bitwise_and(pred, cv2.dilate(target, ball))) / of_pred
    recall = cv2.countNonZero(cv2.bitwise_and(target, cv2.dilate(pred, ball))) / of_target
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
