"""Statistics of a split: counts, distributions, partners for the contrastive loss."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glus.data_pipeline.raw.masks import area
from glus.data_pipeline.sampling.groups import contrast_of
from glus.data_pipeline.shards.index import Counts
from glus.data_pipeline.shards.reader import ShardedSplit


@dataclass(frozen=True)
class Quantiles:
    """Smallest value, quartiles, largest and mean of many; all 0 where there are none."""

    min: float
    lower: float
    median: float
    upper: float
    max: float
    mean: float

    @staticmethod
    def of(values: Sequence[float]) -> "Quantiles":
        if not len(values):
            return Quantiles(0, 0, 0, 0, 0, 0)
        low, lower, median, upper, high = (float(each) for each in np.percentile(values, [0, 25, 50, 75, 100]))
        return Quantiles(low, lower, median, upper, high, float(np.mean(values)))


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of one split. Shares are of expressions whose objects are known, or of videos that have some.

    `mask_area` is a share of the frame, over masks that are seen; None where masks were not read.
    """

    name: str
    counts: Counts
    left_out: int
    kinds: dict[str, int]
    frames_a_video: Quantiles
    expressions_a_video: Quantiles
    expressions_an_object_set: Quantiles
    objects_an_expression: Quantiles
    words_an_expression: Quantiles
    without_target: int
    with_partner: float
    videos_with_partners: float
    videos_with_partners_and_rival: float
    mask_area: Quantiles | None
    frames_unseen: float | None


def split_statistics(split: ShardedSplit, masks: bool = True) -> SplitStatistics:
    """Return statistics from the index and, where `masks`, from one pass over all shards. Raises DataError."""
    kinds: Counter[str] = Counter()
    frames: list[int] = []
    said: list[int] = []
    sizes: list[int] = []
    objects: list[int] = []
    words: list[int] = []
    contrasts = []
    without = paired = 0
    for entry in split.videos:
        sets = list(entry.object_sets().values())
        held = Counter(sets)
        frames.append(len(entry.frame_names))
        said.append(len(entry.expressions))
        sizes += held.values()
        objects += [len(each) for each in sets]
        words += [len(each.text.split()) for each in entry.expressions]
        kinds.update(each.kind or "not given" for each in entry.expressions)
        without += len(entry.expressions) - len(sets)
        paired += sum(count for count in held.values() if count > 1)
        if sets:
            contrasts.append(contrast_of(entry))
    areas, unseen = _mask_areas(split) if masks else (None, None)
    return SplitStatistics(
        name=f"{split.dataset}/{split.split}",
        counts=split.manifest.counts,
        left_out=len(split.manifest.quarantine),
        kinds=dict(kinds.most_common()),
        frames_a_video=Quantiles.of(frames),
        expressions_a_video=Quantiles.of(said),
        expressions_an_object_set=Quantiles.of(sizes),
        objects_an_expression=Quantiles.of(objects),
        words_an_expression=Quantiles.of(words),
        without_target=without,
        with_partner=paired / max(sum(sizes), 1),
        videos_with_partners=sum(each.partners for each in contrasts) / max(len(contrasts), 1),
        videos_with_partners_and_rival=sum(each.complete for each in contrasts) / max(len(contrasts), 1),
        mask_area=areas,
        frames_unseen=unseen,
    )


def _mask_areas(split: ShardedSplit) -> tuple[Quantiles, float]:
    """Areas of masks as shares of their frames, and the share of (object, frame) pairs without a mask."""
    areas: list[float] = []
    pairs = 0
    for video in split.stream():
        pixels = video.entry.height * video.entry.width
        for codes in video.masks.values():
            seen = [area(code) / pixels for code in codes if code is not None]
            areas += [each for each in seen if each]
            pairs += len(codes)
    return Quantiles.of(areas), 1 - len(areas) / max(pairs, 1)
