"""Which expressions of a video can be contrasted: partners name one object set, rivals' sets do not overlap.

The object-contrastive loss compares the [SEG] tokens of a micro-batch (model/contrastive.py). A token takes part
there when it has both: a partner of its own object and a rival.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glus.data_pipeline.shards.index import VideoEntry


@dataclass(frozen=True)
class VideoContrast:
    """What a video offers: an object set with several expressions, and a rival of it."""

    partners: bool
    rivals: bool

    @property
    def complete(self) -> bool:
        """Whether a slot of this video alone can hold partners and a rival."""
        return self.partners and self.rivals


def contrast_of(entry: VideoEntry) -> VideoContrast:
    """What a video offers; `rivals` counts only those of sets that have partners."""
    sets = list(entry.object_sets().values())
    paired = {one for one in sets if sets.count(one) > 1}
    return VideoContrast(bool(paired), any(not one & other for one in paired for other in sets))


def draw_group(sets: dict[int, frozenset[str]], order: Sequence[int], room: int) -> tuple[list[int], bool]:
    """Up to `room` expressions of `order`, order[0] among them, and whether partners and a rival are.

    First two of one object set and one of a rival, then that one's partner, then whatever has a partner among those
    drawn, then the others, in their order. Without a rival, partners come first nevertheless where there is room for
    four: they find rivals in the other videos of the micro-batch. With room for three or fewer, and no group, the order
    alone decides, as in the reference.
    """
    group = _first_three(sets, order) if room >= 3 else []
    complete = bool(group)
    if room >= 4:
        if not group:
            group = [order[0], *[other for other in order[1:] if sets[other] == sets[order[0]]][:1]]
        # The rival is without a partner as yet; expressions drawn later may bring new sets in, whose partners follow.
        while len(group) < room and (others := [each for each in order if each not in group]):
            held = [sets[each] for each in group]
            lonely = [each for each in others if held.count(sets[each]) == 1]
            paired = [each for each in others if sets[each] in held]
            starting = [each for each in others if sum(sets[other] == sets[each] for other in others) > 1]
            wanted = lonely or (starting if room - len(group) >= 2 else []) or paired or others
            group.append(wanted[0])
        return group, complete
    return group + [each for each in order if each not in group][: max(room - len(group), 0)], complete


def _first_three(sets: dict[int, frozenset[str]], order: Sequence[int]) -> list[int]:
    """Two expressions of one object set and one of a rival's, order[0] among them; empty where there are none."""
    for anchor in order:
        partners = [other for other in order if other != anchor and sets[other] == sets[anchor]]
        rivals = [other for other in order if not sets[other] & sets[anchor]]
        if anchor != order[0]:
            rivals = [other for other in rivals if other == order[0]]
        if partners and rivals:
            return [anchor, partners[0], rivals[0]]
    return []
