"""Means and paired differences of trainings with several seeds, with intervals over seeds and videos.

The models of all seeds are asked about the same videos, so each value belongs to a seed and to a video. A draw takes
as many seeds as there are and as many videos, both with replacement, and counts a value as often as its seed and its
video were drawn together (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007); the 95 % interval lies
between percentiles of DRAWS draws. Two arms that are compared see the same draws. With one seed these are draws of
videos alone. Three seeds are few: where seeds differ more than videos do, such an interval is too short
(docs/study.md has its coverage).
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import EvaluationError
from glus.common.seeds import numpy_generator
from glus.evaluation.results.intervals import CONFIDENCE, Interval
from glus.evaluation.results.paired import NO_DIFFERENCE

DRAWS = 10_000
_CHUNK = 1000
#: First part of the key of the draws, so that they are nobody else's.
_KEY = 20_261_126

#: (seed, video, what was asked about it) -> value.
Values = Mapping[tuple[int, Hashable, Hashable], float]
#: Step of a training -> values of its checkpoint.
Curve = Mapping[int, Values]
#: Steps to an accuracy that was not reached.
NOT_REACHED = math.inf


@dataclass(frozen=True)
class SeedEstimate:
    """A mean (or steps to an accuracy), its 95 % interval (None for one seed and one video) and what it is over."""

    value: float
    interval: Interval | None
    seeds: tuple[int, ...]
    videos: int


@dataclass(frozen=True)
class SeedDifference(SeedEstimate):
    """How much higher an arm is than another one, on what both were asked."""

    @property
    def verdict(self) -> str:
        """What the interval says: "higher", "lower", or NO_DIFFERENCE where it holds zero."""
        if self.interval is None:
            return "one video and seed, no interval"
        if self.interval.low > 0:
            return "higher"
        return "lower" if self.interval.high < 0 else NO_DIFFERENCE


def seed_mean(values: Values) -> SeedEstimate | None:
    """Return the mean over all values with its interval, None where there are none."""
    if not values:
        return None
    tables = _Tables([values])
    [drawn] = tables.drawn()
    return SeedEstimate(tables.means()[0], _interval(drawn, tables), tables.seeds, len(tables.videos))


def seed_difference(arm: Values, base: Values) -> SeedDifference | None:
    """Return the mean of `arm` minus that of `base` over what both have, None where that is nothing.

    Exchanging the two changes nothing but the sign.
    """
    common = arm.keys() & base.keys()
    if not common:
        return None
    tables = _Tables([{name: side[name] for name in common} for side in (arm, base)])
    drawn, means = tables.drawn(), tables.means()
    return SeedDifference(means[0] - means[1], _interval(drawn[0] - drawn[1], tables), tables.seeds, len(tables.videos))


def steps_to_reach(curve: Curve, accuracy: float) -> SeedEstimate | None:
    """Return the step at which the mean over seeds and videos reaches `accuracy`, NOT_REACHED where it does not.

    Between two evaluated steps it is interpolated linearly; where the first one reaches it, that step is returned: it
    may have been reached before. None for an empty curve.
    """
    if not any(curve.values()):
        return None
    tables = _Tables([curve[step] for step in sorted(curve)])
    steps = _first_step(sorted(curve), np.array(tables.means())[:, None], accuracy)
    drawn = _first_step(sorted(curve), tables.drawn(), accuracy)
    return SeedEstimate(float(steps[0]), _interval(drawn, tables, ends=True), tables.seeds, len(tables.videos))


def steps_difference(arm: Curve, base: Curve, accuracy: float) -> SeedDifference | None:
    """Return the steps that `arm` takes to `accuracy` minus those of `base`, on the steps and queries of both.

    NOT_REACHED (or minus that) where one alone reaches it; 0 where neither does. None where they have no common step
    or query. Raises EvaluationError where a step has other queries than the others.
    """
    steps = sorted(arm.keys() & base.keys())
    names = [arm[step].keys() & base[step].keys() for step in steps]
    if not steps or not names[0]:
        return None
    if any(each != names[0] for each in names):
        raise EvaluationError(f"the evaluations of steps {steps} are not about the same queries: evaluate them again")
    sides = [[{name: side[step][name] for name in names[0]} for step in steps] for side in (arm, base)]
    tables = _Tables([*sides[0], *sides[1]])
    drawn, means = tables.drawn(), np.array(tables.means())[:, None]
    gaps = []
    for each in (means, drawn):
        first, second = (_first_step(steps, half, accuracy) for half in np.split(each, 2))
        gaps.append(_minus(first, second))
    interval = _interval(gaps[1], tables, ends=True)
    return SeedDifference(float(gaps[0][0]), interval, tables.seeds, len(tables.videos))


class _Tables:
    """Sums and counts by seed and video of several sets of values, on common axes."""

    def __init__(self, sets: Sequence[Values]) -> None:
        names = [name for values in sets for name in values]
        self.seeds: tuple[int, ...] = tuple(sorted({seed for seed, _, _ in names}))
        # By what they are called: the order in which they come changes no draw.
        self.videos = sorted({video for _, video, _ in names}, key=repr)
        rows, columns = ({each: place for place, each in enumerate(axis)} for axis in (self.seeds, self.videos))
        shape = (len(sets), len(self.seeds), len(self.videos))
        self._sums, self._counts = np.zeros(shape), np.zeros(shape)
        for place, values in enumerate(sets):
            for (seed, video, _), value in values.items():
                self._sums[place, rows[seed], columns[video]] += value
                self._counts[place, rows[seed], columns[video]] += 1

    def means(self) -> list[float]:
        """The mean of each set."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found: list[float] = (self._sums.sum((1, 2)) / self._counts.sum((1, 2))).tolist()
        return found

    def drawn(self) -> NDArray[np.float64]:
        """The mean of each set in each draw, float [sets, DRAWS]; NaN where a draw leaves a set without values."""
        parts = []
        for seeds, videos in self._draws():
            sums, counts = (
                np.einsum("asv,ds,dv->ad", table, seeds, videos, optimize=True) for table in (self._sums, self._counts)
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                parts.append(sums / counts)
        return np.concatenate(parts, axis=1)

    def _draws(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """How often each seed [d, S] and each video [d, V] is in each draw."""
        chance = numpy_generator(_KEY, len(self.seeds), len(self.videos))
        for _ in range(0, DRAWS, _CHUNK):
            drawn = (chance.multinomial(n, np.full(n, 1 / n), size=_CHUNK) for n in (len(self.seeds), len(self.videos)))
            seeds, videos = (each.astype(np.float64) for each in drawn)
            yield seeds, videos


def _interval(drawn: NDArray[np.float64], tables: _Tables, ends: bool = False) -> Interval | None:
    """The percentiles; with `ends` those of draws that were made (not between a number and infinity)."""
    known = drawn[~np.isnan(drawn)]
    if not known.size or len(tables.seeds) * len(tables.videos) < 2:
        return None
    quantiles = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(known, quantiles, method="inverted_cdf") if ends else np.quantile(known, quantiles)
    return Interval(float(low), float(high))


def _first_step(steps: Sequence[int], means: NDArray[np.float64], accuracy: float) -> NDArray[np.float64]:
    """Where each column of means, float [steps, N], first reaches `accuracy`: float [N]."""
    reached = means >= accuracy
    first = reached.argmax(axis=0)
    before = np.maximum(first - 1, 0)
    columns, at = np.arange(means.shape[1]), np.array(steps, np.float64)
    low, high = means[before, columns], means[first, columns]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(first > 0, (accuracy - low) / (high - low), 1.0)
    found = at[before] + share * (at[first] - at[before])
    return np.where(np.isnan(means).any(0), np.nan, np.where(reached.any(0), found, NOT_REACHED))


def _minus(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The difference; 0 where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(first) & np.isinf(second), 0.0, first - second)
