"""Masks of a clip with eight frames to a byte, so that one operation on a plane is done for eight frames at once.

Only the bounding box of each eight frames is kept. J and F need nothing but numbers of pixels, which are integers:
working this way changes no metric.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Counts = NDArray[np.int64]

FRAMES_A_PLANE = 8


class Crop(NamedTuple):
    """Up to eight frames: bit k of `bits`, uint8 [h, w], is the k-th of them; its first pixel lies at (top, left)."""

    top: int
    left: int
    bits: Plane


class Pair(NamedTuple):
    """Two planes of the same frames on a common crop, uint8 [h, w], whose first pixel lies at (top, left).

    `frames` says which of the clip.
    """

    frames: slice
    first: Plane
    second: Plane
    top: int
    left: int


@dataclass(frozen=True)
class BitPlanes:
    """The masks of one object (or of a union) in a clip of `frames` frames of height x width.

    `crops[i]` has the frames from 8i on; None where all of them are empty.
    """

    frames: int
    height: int
    width: int
    crops: tuple[Crop | None, ...]

    @cached_property
    def area(self) -> Counts:
        """Number of set pixels a frame, int64 [T]."""
        found = np.zeros(self.frames, np.int64)
        for index, crop in enumerate(self.crops):
            if crop is not None:
                frames = _frames_of(index, self.frames)
                found[frames] = count(crop.bits)[: frames.stop - frames.start]
        return found


def pack(masks: NDArray[np.bool_]) -> BitPlanes:
    """bool [T, H, W] -> planes. Raises ValueError for another dtype or number of dimensions."""
    if masks.dtype != np.bool_ or masks.ndim != 3:
        raise ValueError(f"a mask must be bool [T, H, W], got {masks.dtype} {list(masks.shape)}")
    frames, height, width = masks.shape
    pixels = np.ascontiguousarray(masks).view(np.uint8)
    starts = range(0, frames, FRAMES_A_PLANE)
    return BitPlanes(frames, height, width, tuple(_crop(pixels[start : start + FRAMES_A_PLANE]) for start in starts))


def pairs(first: BitPlanes, second: BitPlanes) -> Iterator[Pair]:
    """Planes of two clips, eight frames at a time; those that are empty in both are left out.

    A crop is one pixel wider than both boxes on each side, unless that would lead out of the frame: a boundary lies at
    most there. Raises ValueError for clips of unequal shape.
    """
    shapes = [(clip.frames, clip.height, clip.width) for clip in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"masks to compare must have one shape [T, H, W], got {shapes}")
    for index, crops in enumerate(zip(first.crops, second.crops, strict=True)):
        there = [crop for crop in crops if crop is not None]
        if there:
            top = max(min(crop.top for crop in there) - 1, 0)
            left = max(min(crop.left for crop in there) - 1, 0)
            bottom = min(max(crop.top + crop.bits.shape[0] for crop in there) + 1, first.height)
            right = min(max(crop.left + crop.bits.shape[1] for crop in there) + 1, first.width)
            box = (top, left, bottom - top, right - left)
            planes = _placed(crops[0], box), _placed(crops[1], box)
            yield Pair(_frames_of(index, first.frames), *planes, top, left)


def common(first: BitPlanes, second: BitPlanes) -> Counts:
    """Number of pixels that are set in both, a frame, int64 [T]. Raises ValueError for clips of unequal shape."""
    found = np.zeros(first.frames, np.int64)
    for pair in pairs(first, second):
        found[pair.frames] = count(pair.first & pair.second)[: pair.frames.stop - pair.frames.start]
    return found


def minus(first: BitPlanes, second: BitPlanes) -> BitPlanes:
    """The pixels of the first that the second has not. Raises ValueError for clips of unequal shape."""
    crops: list[Crop | None] = [None] * len(first.crops)
    for pair in pairs(first, second):
        index = pair.frames.start // FRAMES_A_PLANE
        crops[index] = Crop(pair.top, pair.left, pair.first & ~pair.second)
    return BitPlanes(first.frames, first.height, first.width, tuple(crops))


def count(plane: Plane) -> Counts:
    """Number of set pixels of each of the eight frames, int64 [8]."""
    one = np.empty_like(plane)
    found = np.zeros(FRAMES_A_PLANE, np.int64)
    for k in range(FRAMES_A_PLANE):
        np.bitwise_and(plane, np.uint8(1 << k), out=one)
        found[k] = cv2.countNonZero(one)
    return found


def boundary(plane: Plane) -> Plane:
    """`_seg2bmap` of DAVIS: set where a pixel differs from its right, lower or lower right neighbour in the plane."""
    edges = np.zeros_like(plane)
    edges[:, :-1] = plane[:, :-1] ^ plane[:, 1:]
    edges[:-1] |= plane[:-1] ^ plane[1:]
    edges[:-1, :-1] |= plane[:-1, :-1] ^ plane[1:, 1:]
    return edges


def disk_columns(radius: int) -> list[tuple[int, list[int]]]:
    """The disk x^2 + y^2 <= r^2 as (half height, columns x >= 0 that are so high), lowest first."""
    columns: dict[int, list[int]] = {}
    for x in range(radius, -1, -1):
        half = next(y for y in range(radius, -1, -1) if x * x + y * y <= radius * radius)
        columns.setdefault(half, []).append(x)
    return sorted(columns.items())


def dilated(plane: Plane, disk: Sequence[tuple[int, list[int]]]) -> Plane:
    """The plane dilated by a disk (of `disk_columns`), within its own crop.

    A disk is a row of upright lines. Each longer line is made from a shorter one. A shift to the side is a shift in
    memory, where blank columns at the right take what would run over into the next row.
    """
    height, width = plane.shape
    blank = max(columns[0] for _, columns in disk)
    upright = np.zeros((height, width + blank), np.uint8)
    upright[:, :width] = plane
    found = np.zeros(upright.size, np.uint8)
    reach = 0
    for half, columns in disk:
        while reach < half:
            step = min(half - reach, 2 * reach + 1)
            taller = upright.copy()
            taller[step:] |= upright[:-step]
            taller[:-step] |= upright[step:]
            upright, reach = taller, reach + step
        flat = upright.reshape(-1)
        for x in columns:
            if x == 0:
                found |= flat
            else:
                found[x:] |= flat[:-x]
                found[:-x] |= flat[x:]
    return found.reshape(upright.shape)[:, :width]


def _frames_of(index: int, frames: int) -> slice:
    return slice(FRAMES_A_PLANE * index, min(FRAMES_A_PLANE * (index + 1), frames))


def _crop(pixels: Plane) -> Crop | None:
    if pixels.size == 0:
        return None
    left, top, width, height = cv2.boundingRect(np.bitwise_or.reduce(pixels, axis=0))
    if width == 0:
        return None
    parts = pixels[:, top : top + height, left : left + width]
    bits = parts[0].copy()
    for k, part in enumerate(parts[1:], 1):
        bits |= part << np.uint8(k)
    return Crop(top, left, bits)


def _placed(crop: Crop | None, box: tuple[int, int, int, int]) -> Plane:
    top, left, height, width = box
    canvas = np.zeros((height, width), np.uint8)
    if crop is not None:
        y, x = crop.top - top, crop.left - left
        canvas[y : y + crop.bits.shape[0], x : x + crop.bits.shape[1]] = crop.bits
    return canvas
