"""One HTML page with the figures, the text control, the best, median and worst expressions, and runs side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glus.data_pipeline.aside import write_bytes_aside
from glus.data_pipeline.reader import ShardedSplit
from glus.evaluation.comparison import compare_figures, compare_params, render
from glus.evaluation.metrics import jf_per_frame
from glus.evaluation.overlays import contact_strip, spread_frames, write_png
from glus.evaluation.predictions import read_masks
from glus.evaluation.scoring import WITHOUT_TARGET, ExpressionScore
from glus.evaluation.summary import Summary

PANELS = 4
"""Frames in an overlay."""


@dataclass(frozen=True)
class RunFigures:
    """One of several runs to put side by side: its parameters and its benchmark figures, 0 to 100."""

    name: str
    params: Mapping[str, Any]
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class Example:
    """One expression on the page: `rank` is "best", "median" or "worst", `picture` its place relative to the page."""

    rank: str
    score: ExpressionScore
    picture: str


def write_report(
    out: Path,
    title: str,
    summary: Summary,
    scores: Sequence[ExpressionScore],
    splits: Sequence[ShardedSplit],
    predictions: Path,
    runs: Sequence[RunFigures] | None = None,
    examples: int = 2,
) -> list[Path]:
    """Write `out`/report.html and the pictures it shows, `out`/overlays/*.png; it opens without a server.

    `examples` best, median and worst expressions are shown of each benchmark. `predictions` is the folder above
    DATASET. Returns the page, then the pictures. Raises EvaluationError for predictions that are not whole, DataError
    where `out` cannot be written.
    """
    shown: dict[str, list[Example]] = {}
    pictures: list[Path] = []
    for place, split in enumerate(splits):
        name = f"{split.dataset}/{split.split}"
        of_split = [score for score in scores if (score.dataset, score.split) == (split.dataset, split.split)]
        for number, (rank, score) in enumerate(pick_examples(of_split, examples)):
            relative = f"overlays/{place}-{number}-{rank}.png"
            pictures.append(write_png(out / relative, draw_expression(split, score, predictions)))
            shown.setdefault(name, []).append(Example(rank, score, relative))
    page = render(
        "report.html.jinja",
        title=title,
        summary=summary,
        examples=shown,
        runs=[run.name for run in runs or ()],
        params=compare_params([run.params for run in runs or ()]),
        figures=compare_figures([run.figures for run in runs or ()]),
    )
    write_bytes_aside(out / "report.html", page.encode())
    return [out / "report.html", *pictures]


def pick_examples(scores: Sequence[ExpressionScore], count: int) -> list[tuple[str, ExpressionScore]]:
    """`count` best, median and worst of the scored expressions by J&F, best first, none twice; pure."""
    scored = [score for score in scores if not score.hidden and score.type_id != WITHOUT_TARGET]
    order = sorted(scored, key=lambda score: (-(score.JF or 0.0), score.video, score.expression))
    best, rest = order[:count], order[count:]
    cut = max(0, len(rest) - count)
    middle, worst = rest[:cut], rest[cut:]
    # The median is that of all, not of what the best and the worst leave; both have the same middle.
    start = max(0, (len(middle) - count) // 2)
    ranks = {"best": best, "median": middle[start : start + count], "worst": worst}
    return [(rank, score) for rank, found in ranks.items() for score in found]


def draw_expression(split: ShardedSplit, score: ExpressionScore, predictions: Path) -> NDArray[np.uint8]:
    """The overlay strip of one expression, uint8 [h, w, 3]: frames spread over the video, J and F under each."""
    video = next(index for index, entry in enumerate(split.videos) if entry.video == score.video)
    entry = split.videos[video]
    expression = next(exp for exp in entry.expressions if exp.id == score.expression)
    masks = read_masks(predictions, entry, expression)
    frames = spread_frames(len(entry.frame_names), PANELS)
    target = split.read_target(video, expression, frames)
    preds = None if masks is None else masks[frames]
    captions = [f"frame {entry.frame_names[frame]}   no prediction" for frame in frames]
    if preds is not None:
        region, boundary = jf_per_frame(preds, target)
        captions = [
            f"frame {entry.frame_names[frame]}   J {100 * j:.0f}   F {100 * f:.0f}"
            for frame, j, f in zip(frames, region, boundary, strict=True)
        ]
    return contact_strip(split.read_frames(video, frames), preds, target, score.text, captions)
