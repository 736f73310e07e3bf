"""Polygons of image datasets as masks: as pycocotools makes them (COCO), and as OpenCV paints them (ReasonSeg).

pycocotools takes four numbers for a box and huge ones for a long outline, so polygons are looked at before.
Sources: pycocotools `frPyObjects`, as lichengunc/refer `getMask` calls it; dvlab-research/LISA,
utils/data_processing.py.
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from glus.common.errors import DataError
from glus.data_pipeline.raw.masks import VOID, area, checked
from glus.data_pipeline.raw.records import Rle

Points = NDArray[np.float64]


def points_of(numbers: Any, height: int, width: int, where: str) -> Points:
    """float64 [N, 2] (x, y) of a polygon given as pairs or as one list of numbers.

    Raises DataError, beginning with `where`, for fewer than three points, for what is no finite number, and for points
    farther from the picture than its longer side.
    """
    flat = numbers
    if isinstance(numbers, list) and numbers and isinstance(numbers[0], list):
        if any(not isinstance(pair, list) or len(pair) != 2 for pair in numbers):
            raise DataError(f"{where}: a polygon's points must be pairs of numbers; correct it")
        flat = [each for pair in numbers for each in pair]
    if not isinstance(flat, list) or any(type(each) not in (int, float) for each in flat) or len(flat) % 2:
        raise DataError(f"{where}: a polygon must be a list of pairs of numbers; correct it")
    if len(flat) < 6:
        raise DataError(f"{where}: a polygon of {len(flat) // 2} points has no area, three are needed; correct it")
    side = max(height, width)
    if any(not math.isfinite(each) or not -side <= each <= 2 * side for each in flat):
        raise DataError(f"{where}: a polygon's points lie far outside of the {height}x{width} picture; correct it")
    return np.array(flat, dtype=np.float64).reshape(-1, 2)


def segmentation_code(segmentation: Any, height: int, width: int, where: str) -> Rle | None:
    """The code of a "segmentation" in COCO's form: polygons, one run-length code, or a list of such; their union.

    None where it is empty. Raises DataError, beginning with `where`.
    """
    if isinstance(segmentation, dict):
        segmentation = [segmentation]
    if not isinstance(segmentation, list):
        raise DataError(f"{where}: its segmentation is neither polygons nor a run-length code; correct it")
    if all(isinstance(each, dict) for each in segmentation):
        codes = [_bytes(checked(each, height, width, where)) for each in segmentation]
    else:
        polygons = [points_of(each, height, width, where).ravel().tolist() for each in segmentation]
        codes = coco.frPyObjects(polygons, height, width)
    if not codes:
        return None
    if any(code["size"] != codes[0]["size"] for code in codes):
        raise DataError(f"{where}: its run-length codes have several sizes; correct it")
    joined = coco.merge(codes)
    code = {"size": [int(side) for side in joined["size"]], "counts": joined["counts"].decode("ascii")}
    return code if area(code) else None


def painted(shapes: Sequence[tuple[str, Points]], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [H, W] of (label, points): 1 the target, 255 what evaluation ignores, 0 nothing.

    Shapes are painted by falling area, so that small ones lie on top; points are cut to integers and outlines belong to
    the shape. A shape labelled "flag" counts for nothing, one whose label holds "ignore" is 255.
    """
    kept = [(label, points.astype(np.int32)[None]) for label, points in shapes if label.lower() != "flag"]
    areas = [int(_paint(np.zeros((height, width), np.uint8), points, 1).sum()) for _, points in kept]
    labels = np.zeros((height, width), np.uint8)
    for place in np.argsort(areas)[::-1].tolist():
        label, points = kept[place]
        _paint(labels, points, VOID if "ignore" in label.lower() else 1)
    return labels


def _paint(labels: NDArray[np.uint8], points: NDArray[np.int32], value: int) -> NDArray[np.uint8]:
    cv2.polylines(labels, list(points), True, (value,), 1)
    cv2.fillPoly(labels, list(points), (value,))
    return labels


def _bytes(code: Rle) -> dict[str, Any]:
    return {"size": code["size"], "counts": code["counts"].encode("ascii")}
