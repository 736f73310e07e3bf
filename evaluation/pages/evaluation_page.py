"""One HTML page with the metrics, their intervals and breakdowns, the text control, and the best, median and worst
expressions to slide through."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glus.common.atomic import write_atomic
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.pages.comparison import render
from glus.evaluation.pages.overlays import contact_strip, spread_frames, write_png
from glus.evaluation.pages.viewer import Shown, Viewer, find_expression, pick_ranked, write_viewer
from glus.evaluation.predict.predictions import read_masks
from glus.evaluation.results.summary import Summary
from glus.evaluation.score.expression_score import WITHOUT_TARGET, ExpressionScore
from glus.evaluation.score.jf import jf_per_frame

PAGE = "report.html"
PANELS = 4
"""Frames in a strip."""


def write_report(
    out: Path,
    title: str,
    summary: Summary,
    scores: Sequence[ExpressionScore],
    splits: Sequence[ShardedSplit],
    predictions: Path,
    examples: int = 2,
) -> list[Path]:
    """Write `out`/report.html and the pictures it shows, below `out`/overlays; it opens without a server.

    `examples` best, median and worst expressions are shown of each benchmark: films to slide through on the page, and
    NAME.png next to them, a strip of a few frames to be shown elsewhere. `predictions` is the folder above DATASET.
    Returns the page, then the strips, then the films. Raises EvaluationError for incomplete predictions,
    DataError where `out` cannot be written.
    """
    shown: dict[str, list[Viewer]] = {}
    strips: list[Path] = []
    films: list[Path] = []
    for place, split in enumerate(splits):
        name = f"{split.dataset}/{split.split}"
        of_split = [score for score in scores if (score.dataset, score.split) == (split.dataset, split.split)]
        for number, (rank, score) in enumerate(pick_examples(of_split, examples)):
            prefix = f"{place}-{number}-{rank}"
            strips.append(write_png(out / f"overlays/{prefix}.png", draw_expression(split, score, predictions)))
            viewer, written = write_viewer(out, prefix, rank, split, score, [Shown("", predictions)], facts_of(score))
            films += written
            shown.setdefault(name, []).append(viewer)
    page = render("report.html.jinja", title=title, summary=summary, examples=shown)
    write_atomic(out / PAGE, page.encode())
    return [out / PAGE, *strips, *films]


def facts_of(score: ExpressionScore) -> list[str]:
    """What is written under an expression."""
    metrics = {"J&F": score.JF, "J": score.J, "F": score.F, "control": score.control_JF}
    facts = [f"{name} {value:.1f}" for name, value in metrics.items() if value is not None]
    facts.append(f"video {score.video}, expression {score.expression}")
    if score.kind:
        facts.append(score.kind)
    if score.missing:
        facts.append("no prediction")
    return facts


def pick_examples(scores: Sequence[ExpressionScore], count: int) -> list[tuple[str, ExpressionScore]]:
    """`count` best, median and worst of the scored expressions by J&F, best first, none twice; pure."""
    scored = [score for score in scores if not score.hidden and score.type_id != WITHOUT_TARGET]
    order = sorted(scored, key=lambda score: (-(score.JF or 0.0), score.video, score.expression))
    return pick_ranked(order, count, ("best", "median", "worst"))


def draw_expression(split: ShardedSplit, score: ExpressionScore, predictions: Path) -> NDArray[np.uint8]:
    """The overlay strip of one expression, uint8 [h, w, 3]: frames spread over the video, J and F under each."""
    video, expression = find_expression(split, score)
    entry = split.videos[video]
    masks = read_masks(predictions, entry, expression)
    frames = spread_frames(len(entry.frame_names), PANELS)
    target = split.read_target(video, expression, frames)
    preds = None if masks is None else masks[frames]
    captions = [f"frame {entry.frame_names[frame]}   no prediction" for frame in frames]
    if preds is not None:
        region, boundary = jf_per_frame(preds, target, split.read_void(video, frames))
        captions = [
            f"frame {entry.frame_names[frame]}   J {100 * j:.0f}   F {100 * f:.0f}"
            for frame, j, f in zip(frames, region, boundary, strict=True)
        ]
    return contact_strip(split.read_frames(video, frames), preds, target, score.text, captions)
