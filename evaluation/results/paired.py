"""Differences of two evaluations, paired: the expressions that both have, and the same draws of videos for both."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from glus.evaluation.results.benchmarks import protocol_for
from glus.evaluation.results.intervals import Interval, difference
from glus.evaluation.results.mean_metrics import sample_of
from glus.evaluation.results.summary import averaged
from glus.evaluation.score.expression_score import WITHOUT_TARGET, ExpressionScore

#: The name of the difference over all expressions, next to those of "DATASET/SPLIT".
OVERALL = ""
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class PairedDifference:
    """How much higher an evaluation's J&F is than another's on the `expressions` that both have.

    `interval` is the 95 % bootstrap interval over videos, None for a single video.
    """

    expressions: int
    JF: float
    interval: Interval | None

    @property
    def verdict(self) -> str:
        """What the interval says: "higher", "lower", or NO_DIFFERENCE where it holds zero."""
        if self.interval is None:
            return "one video, no interval"
        if self.interval.low > 0:
            return "higher"
        return "lower" if self.interval.high < 0 else NO_DIFFERENCE


def paired_differences(own: Sequence[ExpressionScore], first: Sequence[ExpressionScore]) -> dict[str, PairedDifference]:
    """J&F of `own` minus that of `first`: by "DATASET/SPLIT" as its benchmark averages, and OVERALL, the plain mean.

    A split without a common expression (or ReVOS without one of its halves) has none. Pure.
    """
    names = {score.name for score in own if not score.hidden} & {score.name for score in first if not score.hidden}
    sides = [[score for score in scores if score.name in names] for scores in (own, first)]
    found: dict[str, PairedDifference] = {}
    for dataset, split in dict.fromkeys((score.dataset, score.split) for score in sides[0]):
        protocol = protocol_for(dataset, split)
        groups = [averaged(protocol, [s for s in side if (s.dataset, s.split) == (dataset, split)]) for side in sides]
        if all(group for side in groups for group in side):
            found[f"{dataset}/{split}"] = difference_of(*groups)
    with_target = [[score for score in side if score.type_id != WITHOUT_TARGET] for side in sides]
    if with_target[0] and with_target[1]:
        found[OVERALL] = difference_of([with_target[0]], [with_target[1]])
    return found


def difference_of(
    own: Sequence[Sequence[ExpressionScore]], first: Sequence[Sequence[ExpressionScore]]
) -> PairedDifference:
    """Return the mean of the groups' means of `own` minus that of `first`; both hold the same expressions."""
    samples = [[sample_of(group, "JF") for group in groups] for groups in (own, first)]
    means = [fmean(fmean(sample.values) for sample in side) for side in samples]
    return PairedDifference(sum(map(len, own)), means[0] - means[1], difference(*samples))
