"""Masks as COCO run-length codes, boolean arrays and PNG label maps.

The code of a mask is {"size": [height, width], "counts": str}: lengths of runs of 0 and 1 in turn, down the columns,
packed six bits a character (COCO's own packing, maskApi.c). Arrays are bool [H, W].
A released mask may be a pixel smaller or larger than its frame; `decode` then crops or pads it at the right and at the
bottom, so that whoever reads masks always gets the frame's height and width.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from glus.data_pipeline.errors import DataError
from glus.data_pipeline.records import Rle

#: Label of pixels that nobody annotated, in indexed PNGs.
VOID = 255
#: Most pixels by which a mask's side may differ from its frame's.
SIZE_SLACK = 1

BoolArray = NDArray[np.bool_]


def encode(mask: BoolArray) -> Rle:
    """Run-length code of a bool [H, W] array."""
    code = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def decode(rle: Rle | None, height: int, width: int) -> BoolArray:
    """bool [height, width] of a code that `checked` has passed; all False for None. Others are cropped or padded."""
    if rle is None:
        return np.zeros((height, width), dtype=np.bool_)
    mask = coco.decode(rle).T
    if mask.shape == (width, height):
        return cv2.transpose(mask).view(np.bool_)
    mask = mask.T.astype(np.bool_)
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
        for code in codes:
            if code is None:
                continue
            if code["size"] == [*plane.shape]:
                fitting.append((plane, code["counts"]))
            else:
                plane |= decode(code, *plane.shape)
    for (plane, _), runs in zip(fitting, _unpacked([counts for _, counts in fitting], "a mask"), strict=True):
        _set_where_seen(plane, runs)


def _set_where_seen(plane: BoolArray, runs: NDArray[np.int64]) -> None:
    """Set the pixels of run lengths that fill the plane: odd places are set. Runs go down the columns."""
    if len(runs) < 2:
        return
    height, width = plane.shape
    after = int(runs[-1]) if len(runs) % 2 else 0
    first, last = int(runs[0]) // height, width - after // height
    if first >= last:
        return
    runs[0] -= first * height
    if after:
        runs[-1] -= (width - last) * height
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, runs).reshape(last - first, height)
    # OpenCV transposes ten times as fast as NumPy copies.
    part = plane.view(np.uint8)[:, first:last]
    cv2.bitwise_or(part, cv2.transpose(columns), dst=part)


def area(rle: Rle | None) -> int:
    """Number of set pixels, at the code's own size."""
    return 0 if rle is None else int(coco.area(rle))


def checked(rle: Any, height: int, width: int, where: str) -> Rle:
    """The code in its one form (counts packed, as str), after every check that keeps a broken one from decoding.

    Takes counts as str, bytes or a list of run lengths. `height` and `width` are the frame's.
    Raises DataError, beginning with `where`, on a wrong size, on counts that cannot be read or do not fill the mask.
    """
    size, counts = _fields(rle, where)
    if abs(size[0] - height) > SIZE_SLACK or abs(size[1] - width) > SIZE_SLACK:
        raise DataError(
            f"{where}: the mask is {size[0]}x{size[1]} (height x width), its frame {height}x{width}; "
            f"more than {SIZE_SLACK} pixel apart, so they do not belong together"
        )
    runs = _unpacked([counts], where)[0] if isinstance(counts, str) else _listed(counts, where)
    if runs.size and int(runs.min()) < 0:
        raise DataError(f"{where}: broken run-length code, a run is negative; take the annotation file anew")
    total = int(runs.sum())
    if total != size[0] * size[1]:
        word = "overrun" if total > size[0] * size[1] else "do not fill"
        raise DataError(
            f"{where}: broken run-length code, its counts {word} the mask ({total} of {size[0] * size[1]} pixels); "
            "take the annotation file anew"
        )
    if isinstance(counts, str):
        return {"size": size, "counts": counts}
    packed = coco.frPyObjects({"size": size, "counts": runs.tolist()}, *size)
    return {"size": size, "counts": packed["counts"].decode("ascii")}


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


def _listed(counts: list[Any], where: str) -> NDArray[np.int64]:
    """Run lengths of an uncompressed code."""
    if any(type(count) is not int or not 0 <= count < 2**31 for count in counts):
        raise DataError(f"{where}: broken run-length code, its counts are not all whole numbers from 0 up")
    return np.asarray(counts, dtype=np.int64)


def _unpacked(codes: Sequence[str], where: str) -> list[NDArray[np.int64]]:
    """Run lengths of packed codes (rleFrString of maskApi.c: five bits a character, differences from two before)."""
    try:
        digits = np.frombuffer("".join(codes).encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        digits = np.array([-1])
    if digits.size == 0:
        return [digits for _ in codes]
    ends = np.flatnonzero((digits & 0x20) == 0)
    borders = np.cumsum([len(code) for code in codes])
    # How many numbers end before each code does; the last of them ends where the code does.
    counts = np.searchsorted(ends, borders)
    whole = ends.size and np.array_equal(ends[counts - 1] + 1, borders)
    if digits.min() < 0 or digits.max() > 63 or not whole:
        raise DataError(f"{where}: broken run-length code, its counts string is cut or holds foreign characters")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:  # seven characters hold 35 bits, more than any picture needs
        raise DataError(f"{where}: broken run-length code, a count is longer than any mask")
    places = np.arange(digits.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 0x1F) << (5 * places), starts)
    negative = (digits[ends] & 0x10) != 0
    numbers[negative] -= np.int64(1) << (5 * lengths[negative])
    unpacked = [numbers[first:last] for first, last in pairwise([0, *counts.tolist()])]
    for values in unpacked:
        # From the fourth run on, each value is the difference to the run two before it.
        values[2::2] = np.cumsum(values[2::2])
        values[1::2] = np.cumsum(values[1::2])
    return unpacked


def read_labels(path: Path) -> NDArray[np.integer[Any]]:
    """Label map [H, W] of an indexed or grey PNG: each pixel's object id, 0 for none. Raises DataError."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L", "1", "I", "I;16"):
                raise DataError(
                    f"{path}: a mask of mode {picture.mode}; wanted an indexed or grey PNG whose values are object ids",
                    file=str(path),
                )
            labels = np.asarray(picture)
    except FileNotFoundError:
        raise DataError(f"{path}: this mask is missing; take the dataset's annotations anew", file=str(path)) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: no readable PNG ({error}); take this file anew", file=str(path)) from error
    return labels.astype(np.uint8) if labels.dtype == np.bool_ else labels


def labels_present(labels: NDArray[np.integer[Any]]) -> list[int]:
    """Object ids of a label map in rising order, without 0 and VOID."""
    seen = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
    return [int(label) for label in seen if label not in (0, VOID)]


def encode_labels(maps: Sequence[NDArray[np.integer[Any]]]) -> dict[int, list[Rle | None]]:
    """Object id -> one code a map, None where it is not seen; rising ids, gaps kept."""
    present = [labels_present(labels) for labels in maps]
    ids = sorted({label for labels in present for label in labels})
    return {
        label: [encode(labels == label) if label in seen else None for labels, seen in zip(maps, present, strict=True)]
        for label in ids
    }
