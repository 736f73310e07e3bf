"""Where J is lost: the loss 1 - J of every frame goes to one of five parts, so J and the parts add up to 1.

A mask is compared with the target G, with each rival R (another object of the video, without the target's pixels) and
with both together:

mask        the target fits the mask best: right object, poor mask
object      a rival fits it best, or nothing at all: wrong object
both        the target and a rival together fit it best
missed      the mask is empty, the target is there
imagined    the mask is not empty, the target is not there

"Fits best" is the highest J; of equal ones the target wins. No threshold is chosen.

A mask is on the single object that it fits best, of the target and the rivals; an empty mask, or one that meets none of
them, is on no object. Of the frames whose mask is on an object, each but the first is compared with the one before it
among them: where the objects differ the mask has switched. Frames on no object are passed over, so an object that is
lost and found again is no switch, and one that is lost and taken for another is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glus.evaluation.score.bitplanes import BitPlanes, common

PARTS = ("mask", "object", "both", "missed", "imagined")
#: Number of each part; 0 is a frame in which nothing is lost.
NONE, MASK, OBJECT, BOTH, MISSED, IMAGINED = range(len(PARTS) + 1)
#: A mask that is empty or meets no object.
NO_OBJECT = -1


@dataclass(frozen=True, eq=False)
class ErrorParts:
    """Where an expression's J is lost. `part`: int8 [T], a place in ("", *PARTS); `found`: bool [T].

    `found` says that the mask fits the target better than any single rival, in frames where the target is there.
    `on`: int16 [T], the object that the mask is on: 0 the target, k the k-th rival, NO_OBJECT none.
    """

    part: NDArray[np.int8]
    found: NDArray[np.bool_]
    there: NDArray[np.bool_]
    on: NDArray[np.int16]

    def lost(self, region: NDArray[np.float64]) -> dict[str, float]:
        """Mean loss of each part over all frames, 0 to 100. region: J of each frame, float [T], 0 to 1."""
        loss = 100 * (1 - region)
        return {name: float((loss * (self.part == place)).mean()) for place, name in enumerate(PARTS, 1)}

    @property
    def object_accuracy(self) -> float | None:
        """Share, 0 to 100, of frames with the target in which the mask is on it; None where it is never there."""
        return 100 * float(self.found[self.there].mean()) if self.there.any() else None

    @property
    def switches(self) -> float | None:
        """Share, 0 to 100, of frames whose mask is on another object than in the frame before that was on one.

        None where fewer than two frames are on an object.
        """
        on = self.on[self.on != NO_OBJECT]
        return 100 * float((on[1:] != on[:-1]).mean()) if len(on) > 1 else None


def error_parts(
    pred: BitPlanes | None, target: BitPlanes, rivals: Sequence[BitPlanes], region: NDArray[np.float64]
) -> ErrorParts:
    """Attribute each frame's loss. rivals: the video's other objects, without the target's pixels; region: J [T].

    An expression without a prediction has missed every frame.
    """
    there = target.area > 0
    if pred is None:
        missed = np.full(target.frames, MISSED, np.int8)
        on = np.full(target.frames, NO_OBJECT, np.int16)
        return ErrorParts(missed, np.zeros(target.frames, bool), there, on)
    on_target = common(pred, target)
    alone, together = np.zeros(target.frames), np.zeros(target.frames)
    nearest = np.zeros(target.frames, np.int16)
    for number, rival in enumerate(rivals, 1):
        on_rival = common(pred, rival)
        fit_rival = _share(on_rival, pred.area + rival.area)
        nearest[fit_rival > alone] = number
        alone = np.maximum(alone, fit_rival)
        together = np.maximum(together, _share(on_target + on_rival, pred.area + target.area + rival.area))
    fit = _share(on_target, pred.area + target.area)
    shown = pred.area > 0
    wrong = (fit == 0) & (alone == 0) | (alone > np.maximum(fit, together))
    part = np.where(wrong, OBJECT, np.where(together > fit, BOTH, MASK))
    part = np.where(~there, IMAGINED, np.where(~shown, MISSED, part))
    part = np.where(region == 1, NONE, part).astype(np.int8)
    on = np.where(fit >= alone, np.where(fit > 0, 0, NO_OBJECT), nearest).astype(np.int16)
    return ErrorParts(part, there & (fit > 0) & (fit >= alone), there, on)


def _share(both: NDArray[np.int64], areas: NDArray[np.int64]) -> NDArray[np.float64]:
    """J of each frame, [T], from the common pixels and the sum of all areas; 0 where there are none."""
    return both / np.maximum(areas - both, 1)
