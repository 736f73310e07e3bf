"""Masks as COCO run-length codes, boolean arrays and PNG label maps.

The code of a mask is {"size": [height, width], "counts": str}: lengths of runs of 0 and 1 in turn, down the columns,
packed six bits a character (COCO's own packing, maskApi.c). Arrays are bool [H, W].
A released mask may be a pixel smaller or larger than its frame; `decode` then crops or pads it at the right and at the
bottom, so that whoever reads masks always gets the frame's height and width.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from glus.common.errors import DataError
from glus.common.pictures import open_picture
from glus.data_pipeline.raw.records import Rle

#: Label of pixels that nobody annotated, in label maps of 8 bits (DAVIS). In those of 16 bits 255 is an object.
VOID = 255
#: Most pixels by which a mask's side may differ from its frame's.
SIZE_SLACK = 1

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
LabelArray = NDArray[np.integer[Any]]


def encode(mask: BoolArray) -> Rle:
    """Run-length code of a bool [H, W] array."""
    # OpenCV transposes ten times as fast as NumPy copies.
    columns = cv2.transpose(mask.astype(np.uint8))
    code = coco.encode(columns.T)
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def decode(rle: Rle | None, height: int, width: int) -> BoolArray:
    """bool [height, width] of a code that `checked` has passed; all False for None. Others are cropped or padded."""
    if rle is None:
        return np.zeros((height, width), dtype=np.bool_)
    mask = union([rle], *rle["size"])
    if mask.shape == (height, width):
        return mask
    fitted = np.zeros((height, width), dtype=np.bool_)
    rows, columns = min(height, mask.shape[0]), min(width, mask.shape[1])
    fitted[:rows, :columns] = mask[:rows, :columns]
    return fitted


def union(rles: Iterable[Rle | None], height: int, width: int) -> BoolArray:
    """bool [height, width]: where any of the masks is set."""
    joined = np.empty((height, width), dtype=np.bool_)
    unions_into([joined], [list(rles)])
    return joined


def unions_into(planes: Sequence[BoolArray], rles: Sequence[Sequence[Rle | None]]) -> None:
    """Write `union` of each plane's codes, which `checked` has passed, into it; planes are contiguous bool [H, W].

    All codes are unpacked at once, and only the columns that a mask touches are gone through: a seventh of the time
    that pycocotools takes for each.
    """
    fitting: list[tuple[BoolArray, str]] = []
    for plane, codes in zip(planes, rles, strict=True):
        plane.fill(False)
        fitting += [(plane, counts) for counts in _fitted(codes, *plane.shape)]
    runs, borders = _unpacked([counts for _, counts in fitting], "a mask")
    _check_filled(runs, borders, np.array([plane.size for plane, _ in fitting], np.int64))
    for (plane, _), (first, last) in zip(fitting, pairwise(borders.tolist()), strict=True):
        _set_where_seen(plane, runs[first:last].ravel())


def check_code(code: Rle, height: int, width: int) -> None:
    """Raise ValueError, TypeError or KeyError where a code that `checked` passed cannot look so, before it is decoded.

    Whether its counts fill its size is seen when they are unpacked.
    """
    rows, columns = code["size"]
    if not (type(rows) is int and type(columns) is int and type(code["counts"]) is str):
        raise TypeError("a code has another form")
    if not _fits([rows, columns], height, width):
        raise ValueError(f"one is {rows}x{columns} (height x width), its frame {height}x{width}")


def _fitted(codes: Sequence[Rle | None], height: int, width: int) -> list[str]:
    """The packed counts of the codes that are there, cropped or padded where the size is another."""
    size = [height, width]
    there = [code for code in codes if code is not None]
    return [(code if code["size"] == size else encode(decode(code, height, width)))["counts"] for code in there]


@dataclass(frozen=True)
class CodedPlanes:
    """Codes of a video's masks, each plane's those whose union is wanted, and the planes' size."""

    planes: Sequence[Sequence[Rle | None]]
    height: int
    width: int


def edges(videos: Sequence[CodedPlanes]) -> list[tuple[IntArray, IntArray]]:
    """Where runs of set pixels begin and end, both int64 [N], for each video: what `MaskRuns` is made of.

    Places in the pixels of all planes of a video, each plane's columns one after the other; runs of codes of one plane
    may overlap. Codes are those that `checked` has passed. All videos are unpacked at once, in a fifth of the time.
    """
    counts: list[str] = []
    pixels, starts, ends_of = [], [], []
    for video in videos:
        plane = video.height * video.width
        for number, codes in enumerate(video.planes):
            fitted = _fitted(codes, video.height, video.width)
            counts += fitted
            pixels += [plane] * len(fitted)
            starts += [number * plane] * len(fitted)
        ends_of.append(len(counts))
    runs, borders = _unpacked(counts, "a mask")
    # Each code fills a plane, so that the sum of all runs goes on from one code's plane to the next one's.
    area_of = np.array(pixels, np.int64)
    _check_filled(runs, borders, area_of)
    shift = np.array(starts, np.int64) - (np.cumsum(area_of) - area_of)
    bounds = np.cumsum(runs).reshape(-1, 2) + np.repeat(shift, np.diff(borders))[:, None]
    begins, ends = bounds.T.copy()
    stops = borders[ends_of].tolist()
    return [(begins[first:last], ends[first:last]) for first, last in pairwise([0, *stops])]


def _set_where_seen(plane: BoolArray, runs: IntArray) -> None:
    """Set the pixels of an even number of run lengths that fill the plane: odd places are set, down the columns."""
    height, width = plane.shape
    # What follows the last set pixel is the last run of zeros, where the code ends with one.
    after = int(runs[-2]) if len(runs) and not runs[-1] else 0
    if len(runs) < 2 or int(runs[0]) == height * width:
        return
    first, last = int(runs[0]) // height, width - after // height
    if first >= last:
        return
    runs[0] -= first * height
    if after:
        runs[-2] -= (width - last) * height
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, runs).reshape(last - first, height)
    part = plane.view(np.uint8)[:, first:last]
    cv2.bitwise_or(part, cv2.transpose(columns), dst=part)


def area(rle: Rle | None) -> int:
    """Number of set pixels, at the code's own size."""
    return 0 if rle is None else int(coco.area(rle))


def checked_all(rles: Sequence[Any], height: int, width: int, wheres: Iterable[str]) -> list[Rle | None]:
    """`checked` of each code, in a tenth of the time as all are unpacked at once; None stays.

    `wheres` begin the messages, one a code. Raises ValueError for another number of them.
    """
    named = list(zip(rles, wheres, strict=True))
    with suppress(DataError):  # `checked` says which one is broken
        fields = [None if rle is None else _fields(rle, "") for rle in rles]
        there = [each for each in fields if each is not None]
        packed = [counts for _, counts in there if isinstance(counts, str)]
        if len(packed) == len(there) and all(_fits(size, height, width) for size, _ in there):
            pixels = np.array([size[0] * size[1] for size, _ in there], np.int64)
            _check_filled(*_unpacked(packed, ""), pixels)
            return [None if each is None else {"size": each[0], "counts": each[1]} for each in fields]
    return [None if rle is None else checked(rle, height, width, where) for rle, where in named]


def checked(rle: Any, height: int, width: int, where: str) -> Rle:
    """The code in its one form (counts packed, as str), after every check that keeps a broken one from decoding.

    Takes counts as str, bytes or a list of run lengths. `height` and `width` are the frame's.
    Raises DataError, beginning with `where`, on a wrong size, on counts that cannot be read or do not fill the mask.
    """
    size, counts = _fields(rle, where)
    if not _fits(size, height, width):
        raise DataError(
            f"{where}: the mask is {size[0]}x{size[1]} (height x width), its frame {height}x{width}; "
            f"more than {SIZE_SLACK} pixel apart, so they do not belong together"
        )
    runs = _unpacked([counts], where)[0] if isinstance(counts, str) else _listed(counts, where)
    if runs.size and int(runs.min()) < 0:
        raise DataError(f"{where}: broken run-length code, a run is negative; take the annotation file again")
    total = int(runs.sum())
    if total != size[0] * size[1]:
        word = "overrun" if total > size[0] * size[1] else "do not fill"
        raise DataError(
            f"{where}: broken run-length code, its counts {word} the mask ({total} of {size[0] * size[1]} pixels); "
            "take the annotation file again"
        )
    if isinstance(counts, str):
        return {"size": size, "counts": counts}
    packed = coco.frPyObjects({"size": size, "counts": runs.tolist()}, *size)
    return {"size": size, "counts": packed["counts"].decode("ascii")}


def _fits(size: Sequence[int], height: int, width: int) -> bool:
    """Whether the sides of a mask may be those of a mask of this frame."""
    return abs(size[0] - height) <= SIZE_SLACK and abs(size[1] - width) <= SIZE_SLACK


def _fields(rle: Any, where: str) -> tuple[list[int], str | list[Any]]:
    """Size and counts of a code of unknown origin."""
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        raise DataError(f'{where}: not a run-length code; wanted {{"size": [height, width], "counts": ...}}')
    size, counts = rle["size"], rle["counts"]
    sides_ok = (
        isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    )
    if not sides_ok or size[0] * size[1] >= 2**31:
        raise DataError(f"{where}: broken run-length code, its size is {size!r}; wanted [height, width]")
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if not isinstance(counts, str | list):
        raise DataError(f"{where}: broken run-length code, its counts are of type {type(counts).__name__}")
    return [size[0], size[1]], counts


def _check_filled(runs: IntArray, borders: IntArray, pixels: IntArray) -> None:
    """Raise DataError where the runs of a code do not fill its plane: they would lead out of it."""
    ends = np.zeros(len(runs) + 1, np.int64)
    np.cumsum(runs.sum(axis=1), out=ends[1:])
    if runs.size and int(runs.min()) < 0 or not np.array_equal(np.diff(ends[borders]), pixels):
        raise DataError("a mask's counts do not fill it: the shard is damaged, run `glus prepare` again")


def _listed(counts: list[Any], where: str) -> IntArray:
    """Run lengths of an uncompressed code."""
    if any(type(count) is not int or not 0 <= count < 2**31 for count in counts):
        raise DataError(f"{where}: broken run-length code, its counts are not all integers from 0 up")
    return np.asarray(counts, dtype=np.int64)


def _unpacked(codes: Sequence[str], where: str) -> tuple[IntArray, IntArray]:
    """Run lengths of packed codes (rleFrString of maskApi.c: five bits a character, differences from two before).

    int64 [N, 2], a run of zeros and one of ones a row, those of all codes one after the other (a last run of ones may
    have been added to a code, of length 0); and the row where each code begins, and where the last one ends.
    """
    try:
        digits = np.frombuffer("".join(codes).encode("ascii"), dtype=np.uint8) - np.uint8(48)
    except UnicodeEncodeError:
        digits = np.array([255], np.uint8)
    if digits.size == 0:
        return np.zeros((0, 2), np.int64), np.zeros(len(codes) + 1, np.int64)
    # Characters below "0" have become large numbers.
    ends = np.flatnonzero(digits < 0x20)
    stops = np.cumsum([len(code) for code in codes])
    # How many numbers end before each code does; the last of them ends where the code does.
    borders = np.zeros(len(codes) + 1, np.int64)
    borders[1:] = np.searchsorted(ends, stops)
    if digits.max() > 63 or not ends.size or (ends[borders[1:] - 1] + 1 != stops).any():
        raise DataError(f"{where}: broken run-length code, its counts string is cut or holds foreign characters")
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max())
    if longest > 7:  # seven characters hold 35 bits, more than any picture needs
        raise DataError(f"{where}: broken run-length code, a count is longer than any mask")
    # The last character of a number holds its highest bits and its sign, in two's complement of five bits.
    numbers = ((digits[ends] ^ 0x10) & 0x1F).astype(np.int64) - 0x10
    numbers <<= 5 * (lengths - 1)
    for place in range(1, longest):
        longer = np.flatnonzero(lengths > place)
        lower = (digits[ends[longer] - place] & 0x1F).astype(np.int64)
        numbers[longer] += lower << (5 * (lengths[longer] - 1 - place))
    return _pairs(numbers, borders)


def _pairs(numbers: IntArray, borders: IntArray) -> tuple[IntArray, IntArray]:
    """Numbers of codes -> rows of two runs. From a code's fourth number on, each is the difference to two before it."""
    counts = np.diff(borders)
    rows = np.zeros(len(borders), np.int64)
    np.cumsum((counts + 1) // 2, out=rows[1:])
    padded = np.zeros(2 * int(rows[-1]), np.int64)
    padded[np.arange(len(numbers)) + np.repeat(2 * rows[:-1] - borders[:-1], counts)] = numbers
    pairs = padded.reshape(-1, 2)
    begins = rows[:-1][counts > 0]
    # A code's first number is absolute, and so is its third: the sum down the column begins with the latter.
    first = pairs[begins, 0]
    pairs[begins, 0] = 0
    sums = np.cumsum(pairs, axis=0)
    before = np.zeros((len(begins), 2), np.int64)
    before[1:] = sums[begins[1:] - 1]
    sums -= np.repeat(before, np.diff(rows)[counts > 0], axis=0)
    sums[begins, 0] = first
    sums[rows[1:][counts % 2 == 1] - 1, 1] = 0
    return sums, rows


def read_labels(path: Path, height: int, width: int) -> LabelArray:
    """Label map [H, W] of an indexed or grey PNG: each pixel's object id as it is stored, 0 for none.

    `height` and `width` are the frame's; the map may differ by SIZE_SLACK and keeps its own size. Raises DataError.
    """
    picture = open_picture(path, ("PNG",), what="mask", error=DataError)
    picture.check_size(height, width, SIZE_SLACK)
    return picture.values()


def labels_present(labels: LabelArray) -> list[int]:
    """Object ids of a label map in rising order, without 0 and, in 8 bits, VOID."""
    seen = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
    none = (0, VOID) if labels.dtype == np.uint8 else (0,)
    return [int(label) for label in seen if label not in none]


def encode_void(maps: Sequence[LabelArray]) -> list[Rle | None] | None:
    """The pixels of each label map that nobody annotated, None where it has none; None for all where no map has."""
    void = [labels == VOID if labels.dtype == np.uint8 else None for labels in maps]
    codes = [encode(mask) if mask is not None and mask.any() else None for mask in void]
    return codes if any(code is not None for code in codes) else None


def encode_labels(maps: Sequence[LabelArray]) -> dict[int, list[Rle | None]]:
    """Object id -> one code a map, None where it is not seen; rising ids, gaps kept."""
    present = [labels_present(labels) for labels in maps]
    ids = sorted({label for labels in present for label in labels})
    return {
        label: [encode(labels == label) if label in seen else None for labels, seen in zip(maps, present, strict=True)]
        for label in ids
    }
