"""Bootstrap confidence intervals of mean metrics. Complete videos are drawn: expressions of one video go together.

Percentile intervals (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13); the draws depend on
the number of videos alone, so the same scores always give the same interval.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Where the mean lies with the confidence of CONFIDENCE, 0 to 100."""

    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """The values of a group of expressions, one metric, with the video that each belongs to."""

    values: Sequence[float]
    videos: Sequence[Hashable]


def intervals_of(metrics: Mapping[str, Sequence[Sample]]) -> dict[str, Interval]:
    """Intervals of several metrics by name, each the unweighted mean of its samples' means.

    A draw takes as many videos as there are, with replacement, over all samples at once; all metrics see the same.
    Draws that leave a sample without any value are left out. A metric with an empty sample, or with fewer than two
    videos, has no interval.
    """
    places = _places([sample for samples in metrics.values() for sample in samples])
    known = {name: samples for name, samples in metrics.items() if samples and all(len(s.values) for s in samples)}
    if len(places) < 2 or not known:
        return {}
    weights = _draws(len(places))
    found = {}
    for name, samples in known.items():
        means = np.mean([_means(sample, places, weights) for sample in samples], axis=0)
        means = means[np.isfinite(means)]
        if means.size:
            low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            found[name] = Interval(float(low), float(high))
    return found


def difference(first: Sequence[Sample], second: Sequence[Sample]) -> Interval | None:
    """Interval of the difference of two metrics on the same videos, each the unweighted mean of its samples' means.

    Both see the same draw. Exchanging the two, or the order of their videos, changes nothing but the sign. None for
    fewer than two videos or an empty sample.
    """
    samples = [*first, *second]
    videos = _places(samples)
    if len(videos) < 2 or not first or not second or not all(len(sample.values) for sample in samples):
        return None
    # Sorted: a draw then means the same videos whichever evaluation comes first.
    videos = {video: place for place, video in enumerate(sorted(videos, key=repr))}
    weights = _draws(len(videos))
    means = [np.mean([_means(sample, videos, weights) for sample in side], axis=0) for side in (first, second)]
    gap = means[0] - means[1]
    gap = gap[np.isfinite(gap)]
    if not gap.size:
        return None
    low, high = np.quantile(gap, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def _places(samples: Sequence[Sample]) -> dict[Hashable, int]:
    """Video -> its place among all videos of the samples."""
    videos = dict.fromkeys(video for sample in samples for video in sample.videos)
    return {video: place for place, video in enumerate(videos)}


def _draws(videos: int) -> NDArray[np.float64]:
    """How often each video is in each draw, [DRAWS, videos]."""
    chance = np.random.Generator(np.random.Philox(key=videos))
    return chance.multinomial(videos, np.full(videos, 1 / videos), size=DRAWS).astype(np.float64)


def _means(sample: Sample, videos: dict[Hashable, int], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.array([videos[video] for video in sample.videos])
    sums = np.bincount(places, np.asarray(sample.values, np.float64), minlength=len(videos))
    counts = np.bincount(places, minlength=len(videos)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ sums) / (weights @ counts), np.float64)
