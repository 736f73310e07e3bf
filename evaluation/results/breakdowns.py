"""Where a model is good and where it is not: metrics by object size, rivals, kind, and frames without the object."""

from collections.abc import Callable, Sequence

from glus.evaluation.results.mean_metrics import MeanMetrics, by, mean_metrics
from glus.evaluation.score.expression_score import ExpressionScore

SMALL, LARGE = 0.01, 0.1
"""Shares of the frame: a target below the first is small, one from the second on large."""

Breakdown = dict[str, MeanMetrics]


def breakdowns(scores: Sequence[ExpressionScore]) -> dict[str, Breakdown]:
    """Title -> name of the part -> its metrics; titles with one part only are left out. `scores` have a target."""
    found: dict[str, Breakdown] = {}
    for title, name in TITLES.items():
        parts = by(scores, name)
        if len(parts) > 1:
            found[title] = {_shown(part): mean_metrics(of_part) for part, of_part in parts.items()}
    return found


def _shown(part: str) -> str:
    """What comes before a bar in the second place orders the parts and is not shown."""
    return part[2:] if part[1:2] == "|" else part


def _size(score: ExpressionScore) -> str:
    if score.size is None:
        return ""
    if score.size < SMALL:
        return "0|small"
    return "1|medium" if score.size < LARGE else "2|large"


def _rivals(score: ExpressionScore) -> str:
    if score.rivals is None:
        return ""
    return f"{score.rivals}" if score.rivals < 4 else "4 or more"


def _absent(score: ExpressionScore) -> str:
    if score.frames_without_object is None:
        return ""
    if not score.frames_without_object:
        return "0|always seen"
    return "1|absent in up to half" if 2 * score.frames_without_object <= score.frames else "2|absent in more than half"


TITLES: dict[str, Callable[[ExpressionScore], str]] = {
    "object size": _size,
    "rivals": _rivals,
    "kind": lambda score: score.kind,
    "frames without object": _absent,
}
