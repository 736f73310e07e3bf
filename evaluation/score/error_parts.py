"""Where J is lost: the loss 1 - J of every frame goes to one of five parts, so J and the parts add up to 1.

A mask is compared with the target G, with each rival R (another object of the video, without the target's pixels) and
with both together:

mask        the target fits the mask best: right object, poor mask
object      a rival fits it best, or nothing at all: wrong object
both        the target and a rival together fit it best
missed      the mask is empty, the target is there
imagined    the mask is not empty, the target is not there

"Fits best" is the highest J; of equal ones the target wins. No threshold is chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glus.evaluation.score.bitplanes import BitPlanes, common

PARTS = ("mask", "object", "both", "missed", "imagined")
#: Number of each part; 0 is a frame in which nothing is lost.
NONE, MASK, OBJECT, BOTH, MISSED, IMAGINED = range(len(PARTS) + 1)


@dataclass(frozen=True, eq=False)
class ErrorParts:
    """Where an expression's J is lost. `part`: int8 [T], a place in ("", *PARTS); `found`: bool [T].

    `found` says that the mask fits the target better than any single rival, in frames where the target is there.
    """

    part: NDArray[np.int8]
    found: NDArray[np.bool_]
    there: NDArray[np.bool_]

    def lost(self, region: NDArray[np.float64]) -> dict[str, float]:
        """Mean loss of each part over all frames, 0 to 100. region: J of each frame, float [T], 0 to 1."""
        loss = 100 * (1 - region)
        return {name: float((loss * (self.part == place)).mean()) for place, name in enumerate(PARTS, 1)}

    @property
    def object_accuracy(self) -> float | None:
        """Share, 0 to 100, of frames with the target in which the mask is on it; None where it is never there."""
        return 100 * float(self.found[self.there].mean()) if self.there.any() else None


def error_parts(
    pred: BitPlanes | None, target: BitPlanes, rivals: Sequence[BitPlanes], region: NDArray[np.float64]
) -> ErrorParts:
    """Attribute each frame's loss. rivals: the video's other objects, without the target's pixels; region: J [T].

    An expression without a prediction has missed every frame.
    """
    there = target.area > 0
    if pred is None:
        missed = np.full(target.frames, MISSED, np.int8)
        return ErrorParts(missed, np.zeros(target.frames, bool), there)
    on_target = common(pred, target)
    alone, together = np.zeros(target.frames), np.zeros(target.frames)
    for rival in rivals:
        on_rival = common(pred, rival)
        alone = np.maximum(alone, _share(on_rival, pred.area + rival.area))
        together = np.maximum(together, _share(on_target + on_rival, pred.area + target.area + rival.area))
    fit = _share(on_target, pred.area + target.area)
    shown = pred.area > 0
    wrong = (fit == 0) & (alone == 0) | (alone > np.maximum(fit, together))
    part = np.where(wrong, OBJECT, np.where(together > fit, BOTH, MASK))
    part = np.where(~there, IMAGINED, np.where(~shown, MISSED, part))
    part = np.where(region == 1, NONE, part).astype(np.int8)
    return ErrorParts(part, there & (fit > 0) & (fit >= alone), there)


def _share(both: NDArray[np.int64], areas: NDArray[np.int64]) -> NDArray[np.float64]:
    """J of each frame, [T], from the common pixels and the sum of all areas; 0 where there are none."""
    return both / np.maximum(areas - both, 1)
