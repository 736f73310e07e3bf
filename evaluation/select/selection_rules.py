"""The rules of choosing a key frame: which frames a selector sees with a target, and which scored frame is chosen.

Source: GLUS's kfs/, inference.
"""

import math
from collections.abc import Sequence

#: References are this many frames at most: a video is gone through in steps of ceil(T / PARTS).
PARTS = 11


def reference_classes(frames: int) -> list[range]:
    """Frames of a video of `frames` frames that are each other's references: those congruent modulo ceil(T / 11).

    A target's references are all frames of its class, itself included. Every frame is in exactly one class.
    """
    step = -(-frames // PARTS)
    return [range(first, frames, step) for first in range(step)]


def best_frame(scores: Sequence[float]) -> int:
    """Index of the highest score, of equal ones the later. Scores that are not finite are missing ones.

    Where all are missing: int(n / 2) - 1 for n frames, as in the reference; the only frame for n = 1.
    """
    known = [(score, index) for index, score in enumerate(scores) if math.isfinite(score)]
    if known:
        return max(known)[1]
    return max(len(scores) // 2 - 1, 0)
