"""Which split a slot is drawn from: weights that hold within any thousand steps, not only on average.

`NAMED` has the published mixtures over images and videos, which a config may name instead of listing their splits.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.common.seeds import numpy_generator

#: Steps over which a slot's draws are spread evenly.
BLOCK = 1024
#: Orders of slots that are kept for the next step.
KEPT_ORDERS = 256

_SEMANTIC = ("ade20k/train", "coco_stuff/train", "pascal_part/train", "paco_lvis/train")
_REFERRING = ("refclef/train", "refcoco/train", "refcoco_plus/train", "refcocog/train")
#: Name of a mixture -> weight and splits of each of its groups; a group's splits share its weight evenly.
#: VideoLISA: showlab/VideoLISA, utils/dataset.py, rates 8, 4, 3, 4, 6, 6 and 1: 15 of 32 samples are images.
#: LISA: dvlab-research/LISA, utils/dataset.py, 9 : 3 : 3 : 1 without the 3 of VQA, which has no masks, and without
#: Mapillary.
NAMED: Mapping[str, tuple[tuple[float, tuple[str, ...]], ...]] = MappingProxyType(
    {
        "videolisa": (
            (8, _SEMANTIC),
            (4, _REFERRING),
            (3, ("reason_seg/train",)),
            (4, ("youtube_vos/train",)),
            (6, ("refer_youtube_vos/train",)),
            (6, ("mevis/train",)),
            (1, ("ref_davis17/train",)),
        ),
        "lisa": ((9, _SEMANTIC), (3, _REFERRING), (1, ("reason_seg/train",))),
    }
)


def expanded(mixture: Mapping[str, float]) -> dict[str, float]:
    """Weights of splits; a name of `NAMED` stands for its splits, its weights times the value that it has here.

    A split that comes twice has the sum.
    """
    found: dict[str, float] = {}
    for name, value in mixture.items():
        groups = NAMED.get(name, ((1, (name,)),))
        for weight, splits in groups:
            for split in splits:
                found[split] = found.get(split, 0) + (value * weight / len(splits) if name in NAMED else value)
    return found


def check_weights(mixture: Mapping[str, float], names: Sequence[str]) -> None:
    """Refuse weights of splits that are not among `names`, negative ones, and those that are no numbers."""
    if missing := sorted(set(mixture) - set(names)):
        raise DataError(
            f"sampling.mixture names {', '.join(missing)}, but the shards hold {', '.join(names) or 'none'}"
        )
    for name, weight in mixture.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise DataError(f"sampling.mixture: the weight of {name} is {weight}; weights are numbers from 0 up")


class Mixture:
    """Draws split numbers by weight, a pure function of (seed, step, slot).

    Stratified: [0, 1) is cut into BLOCK strips, and the draws of a slot in a block of so many steps fall one into
    each, in an order of their own. Independent draws, as the reference makes them, would leave a weight of 4 in 254
    with an error of 2.5 % after 100,000 draws; these with one of 0.5 %.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        bounds = np.cumsum(np.asarray(weights, dtype=np.float64))
        self._bounds = bounds / bounds[-1]
        self._seed = seed

    def draw(self, step: int, slot: int, within: float, independent: bool = False) -> int:
        """The split of a slot; `within`, uniform in [0, 1), is its place in the strip, or the draw itself."""
        place = within
        if not independent:
            block, number = divmod(step, BLOCK)
            place = (_order(self._seed, block, slot)[number] + within) / BLOCK
        # A sum rounded up to 1 would fall behind the last split, or on one of weight 0.
        return int(np.searchsorted(self._bounds, min(place, np.nextafter(1.0, 0.0)), side="right"))


@lru_cache(KEPT_ORDERS)
def _order(seed: int, block: int, slot: int) -> NDArray[np.int64]:
    """int64 [BLOCK]: in which order the draws of a slot fall into the strips."""
    # A key of four words: those of the slots' own draws have three.
    return numpy_generator(seed, block, slot, BLOCK).permutation(BLOCK)
