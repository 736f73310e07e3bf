"""Mean metrics of expressions, with their confidence intervals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from types import MappingProxyType
from typing import Any

from glus.evaluation.results.intervals import Interval, Sample, intervals_of
from glus.evaluation.score.error_parts import PARTS
from glus.evaluation.score.expression_score import ExpressionScore

WITH_INTERVAL = ("J", "F", "JF")
#: Where J is lost: with J they add up to 100 (evaluation/score/error_parts.py).
LOST = tuple(f"lost_{part}" for part in PARTS)
#: What tables call them.
LOST_NAMES = ("poor mask", "wrong object", "with a rival", "missed", "imagined")
#: The columns of a table that says where J is lost, and what it calls them.
WHERE_LOST = MappingProxyType(
    {
        "J": "J",
        **dict(zip(LOST, LOST_NAMES, strict=True)),
        "object_accuracy": "object accuracy",
        "switches": "switches",
    }
)


@dataclass(frozen=True)
class MeanMetrics:
    """Mean metrics of some expressions, 0 to 100; None where there is nothing to average.

    `missing` of the `expressions` had no prediction and count as 0. `controlled` of them have a text control:
    `matched_JF` is their J&F, `control_*` what they score with another expression's prediction, `drop` the
    difference of the two. A and R are ReVOS's accuracy and robustness. `lost_*` say where J is lost, and with J add up
    to 100; `object_accuracy` is the share of frames with the target in which the mask is on it, `switches` the share of
    frames in which it is on another object than before (score/error_parts.py). `gIoU` (the mean of IoU, which is J of
    one frame) and `cIoU` (intersections summed over unions summed) are those of images.
    `intervals` holds 95 % bootstrap intervals over videos of J, F and JF, where there are two videos or more.
    """

    expressions: int
    missing: int
    J: float | None
    F: float | None
    JF: float | None
    controlled: int
    matched_JF: float | None
    control_J: float | None
    control_F: float | None
    control_JF: float | None
    drop: float | None
    A: float | None = None
    R: float | None = None
    object_accuracy: float | None = None
    switches: float | None = None
    lost_mask: float | None = None
    lost_object: float | None = None
    lost_both: float | None = None
    lost_missed: float | None = None
    lost_imagined: float | None = None
    gIoU: float | None = None
    cIoU: float | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)


def mean_metrics(scores: Sequence[ExpressionScore]) -> MeanMetrics:
    """Means over the expressions."""
    controlled = [score for score in scores if score.control_JF is not None]
    matched, control = _mean(score.JF for score in controlled), _mean(score.control_JF for score in controlled)
    return MeanMetrics(
        expressions=len(scores),
        missing=sum(score.missing for score in scores),
        J=_mean(score.J for score in scores),
        F=_mean(score.F for score in scores),
        JF=_mean(score.JF for score in scores),
        controlled=len(controlled),
        matched_JF=matched,
        control_J=_mean(score.control_J for score in controlled),
        control_F=_mean(score.control_F for score in controlled),
        control_JF=control,
        drop=None if matched is None or control is None else matched - control,
        A=_mean(score.A for score in scores),
        R=_mean(score.R for score in scores),
        object_accuracy=_mean(score.object_accuracy for score in scores),
        switches=_mean(score.switches for score in scores),
        **_lost(lambda name: _mean(getattr(score, name) for score in scores)),
        gIoU=_mean(score.J for score in scores if score.union is not None),
        cIoU=_cumulative_iou(scores),
        intervals=_intervals([scores]),
    )


def unweighted(groups: Sequence[Sequence[ExpressionScore]]) -> MeanMetrics:
    """Return the mean of the groups' means; None where a group is empty."""
    parts = [mean_metrics(group) for group in groups]

    def mean(name: str) -> float | None:
        values = [getattr(part, name) for part in parts]
        return fmean(values) if None not in values else None

    together = mean_metrics([score for group in groups for score in group])
    return replace(
        together,
        J=mean("J"),
        F=mean("F"),
        JF=mean("JF"),
        matched_JF=mean("matched_JF"),
        control_J=mean("control_J"),
        control_F=mean("control_F"),
        control_JF=mean("control_JF"),
        drop=mean("drop"),
        A=mean("A"),
        R=mean("R"),
        object_accuracy=mean("object_accuracy"),
        switches=mean("switches"),
        **_lost(mean),
        intervals=_intervals(groups) if all(part.expressions for part in parts) else {},
    )


def by(scores: Iterable[ExpressionScore], key: Callable[[ExpressionScore], str]) -> dict[str, list[ExpressionScore]]:
    """Scores by a name, names in order; those whose name is empty are left out."""
    groups: dict[str, list[ExpressionScore]] = {}
    for score in scores:
        if key(score):
            groups.setdefault(key(score), []).append(score)
    return dict(sorted(groups.items()))


def sample_of(scores: Iterable[ExpressionScore], name: str) -> Sample:
    """One metric of the scores that have it, with their videos."""
    shown = [(getattr(score, name), (score.dataset, score.split, score.video)) for score in scores]
    kept = [(value, video) for value, video in shown if value is not None]
    return Sample([value for value, _ in kept], [video for _, video in kept])


def _intervals(groups: Sequence[Sequence[ExpressionScore]]) -> dict[str, Interval]:
    return intervals_of({name: [sample_of(group, name) for group in groups] for name in WITH_INTERVAL})


def _lost(mean: Callable[[str], float | None]) -> dict[str, Any]:
    return {name: mean(name) for name in LOST}


def _cumulative_iou(scores: Sequence[ExpressionScore]) -> float | None:
    """cIoU, 0 to 100, of the scores of images; None where there are none, or where no mask has a pixel."""
    both, either = sum(score.intersection or 0 for score in scores), sum(score.union or 0 for score in scores)
    return 100 * both / either if either else None


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
