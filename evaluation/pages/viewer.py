"""One expression as films to slide through: ground truth, predictions, and where they differ.

A film is one picture, its frames stacked; the page shows one of them at a time. Masks are films
of their own that lie above the frames, transparent where nothing is.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glus.common.atomic import write_atomic
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.pages.overlays import PREDICTION, TRUTH, spread_frames
from glus.evaluation.predict.predictions import read_masks
from glus.evaluation.score.expression_score import ExpressionScore
from glus.evaluation.score.jf import jf_per_frame, without

FRAMES = 16
"""Most frames of a film; a longer video shows as many, spread."""
PANEL_WIDTH = 320
RIGHT, TOO_MUCH, MISSED = (43, 147, 72), (232, 89, 12), (47, 111, 237)
"""RGB of pixels that are rightly, wrongly and not predicted."""
_OPACITY = 150
_JPEG_QUALITY = 85

Masks = NDArray[np.bool_]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Film:
    """A panel of the viewer: a film of masks, its place relative to the page, above the video's frames."""

    title: str
    masks: str


@dataclass(frozen=True)
class Viewer:
    """An expression to slide through. `captions` has a line a frame; `start` is the frame that is shown first."""

    rank: str
    score: ExpressionScore
    facts: tuple[str, ...]
    frames: str
    films: tuple[Film, ...]
    captions: tuple[str, ...]
    start: int
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """Whose masks are shown: the name on the panels (empty for one run alone), and the folder above DATASET."""

    name: str
    predictions: Path


def find_expression(split: ShardedSplit, score: ExpressionScore) -> tuple[int, Expression]:
    """The video's place in the split, and the expression."""
    video = next(index for index, entry in enumerate(split.videos) if entry.video == score.video)
    return video, next(exp for exp in split.videos[video].expressions if exp.id == score.expression)


def pick_ranked(order: Sequence[Item], count: int, ranks: tuple[str, str, str]) -> list[tuple[str, Item]]:
    """Return (rank, item) of the `count` first, median and last of items in order, none twice; pure.

    The median is that of all items, not of those between the first and the last.
    """
    first, rest = order[:count], order[count:]
    cut = max(0, len(rest) - count)
    between, last = rest[:cut], rest[cut:]
    start = max(0, (len(between) - count) // 2)
    picked = zip(ranks, (first, between[start : start + count], last), strict=True)
    return [(rank, item) for rank, items in picked for item in items]


def write_viewer(
    out: Path,
    prefix: str,
    rank: str,
    split: ShardedSplit,
    score: ExpressionScore,
    runs: Sequence[Shown],
    facts: Sequence[str] = (),
) -> tuple[Viewer, list[Path]]:
    """Write the films of one expression as `out`/overlays/PREFIX-*.{jpg,png}; returns the viewer and the files.

    Raises EvaluationError for incomplete predictions, DataError where `out` cannot be written.
    """
    video, expression = find_expression(split, score)
    entry = split.videos[video]
    shown = spread_frames(len(entry.frame_names), FRAMES)
    height = max(1, round(entry.height * PANEL_WIDTH / entry.width))
    target = split.read_target(video, expression, shown)
    void = split.read_void(video, shown)
    found = {run.name: read_masks(run.predictions, entry, expression) for run in runs}
    preds = {name: None if masks is None else masks[shown] for name, masks in found.items()}
    written = [_write_jpeg(out / f"overlays/{prefix}-frames.jpg", split.read_frames(video, shown), height)]
    films = []
    layers = {"ground truth": {TRUTH: target}}
    for name, pred in preds.items():
        label = f"{name}: " if name else ""
        layers |= _layers(label, pred, target, void)
    for number, (title, colours) in enumerate(layers.items()):
        relative = f"overlays/{prefix}-{number}.png"
        written.append(_write_masks(out / relative, colours, len(shown), height))
        films.append(Film(title, relative))
    viewer = Viewer(
        rank=rank,
        score=score,
        facts=tuple(facts),
        frames=f"overlays/{prefix}-frames.jpg",
        films=tuple(films),
        captions=_captions([entry.frame_names[frame] for frame in shown], preds, target, void),
        start=_fullest_frame(target, list(preds.values())),
        width=PANEL_WIDTH,
        height=height,
    )
    return viewer, written


def _layers(
    label: str, pred: Masks | None, target: Masks, void: Masks | None
) -> dict[str, dict[tuple[int, int, int], Masks]]:
    if pred is None:
        return {f"{label}no prediction": {MISSED: target}}
    counted = without(pred, void)
    return {
        f"{label}prediction": {PREDICTION: pred},
        f"{label}difference": {RIGHT: counted & target, TOO_MUCH: counted & ~target, MISSED: target & ~pred},
    }


def _captions(
    names: Sequence[str], preds: Mapping[str, Masks | None], target: Masks, void: Masks | None
) -> tuple[str, ...]:
    lines = [f"frame {name}" for name in names]
    for run, pred in preds.items():
        label = f"{run}: " if run else ""
        if pred is None:
            lines = [f"{line} · {label}no prediction" for line in lines]
            continue
        region, boundary = jf_per_frame(pred, target, void)
        lines = [
            f"{line} · {label}J {100 * j:.0f}, F {100 * f:.0f}"
            for line, j, f in zip(lines, region, boundary, strict=True)
        ]
    return tuple(lines)


def _fullest_frame(target: Masks, preds: Sequence[Masks | None]) -> int:
    """The frame with most object or prediction in it."""
    seen = target.sum(axis=(1, 2))
    for pred in preds:
        if pred is not None:
            seen = seen + pred.sum(axis=(1, 2))
    return int(seen.argmax())


def _write_jpeg(place: Path, frames: NDArray[np.uint8], height: int) -> Path:
    small = [cv2.resize(frame, (PANEL_WIDTH, height), interpolation=cv2.INTER_AREA) for frame in frames]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(small)).save(stream, format="JPEG", quality=_JPEG_QUALITY)
    write_atomic(place, stream.getvalue())
    return place


def _write_masks(place: Path, colours: Mapping[tuple[int, int, int], Masks], frames: int, height: int) -> Path:
    """A palette PNG: 0 is clear, then the colours; small, since masks are plain areas."""
    film = np.zeros((frames * height, PANEL_WIDTH), np.uint8)
    for number, masks in enumerate(colours.values(), 1):
        for index, mask in enumerate(masks):
            small = cv2.resize(mask.astype(np.uint8), (PANEL_WIDTH, height), interpolation=cv2.INTER_NEAREST)
            film[index * height : (index + 1) * height][small > 0] = number
    picture = Image.fromarray(film, "P")
    picture.putpalette([0, 0, 0, *(value for colour in colours for value in colour)])
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True, transparency=bytes([0, *[_OPACITY] * len(colours)]))
    write_atomic(place, stream.getvalue())
    return place
