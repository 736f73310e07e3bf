"""The key frame selector's frames in training: references over all of a video, one of which is the target.

Source: GLUS's kfs/: 8 to 12 frames, one at random from each of as many equal parts; the target is one of them.
"""

from glus.common.errors import DataError
from glus.common.seeds import numpy_generator

#: Last word of the key of a step's number of references: keys of slots have three words, of splits another last one.
_COUNT = 0x4B4653


def check_references(least: int, most: int, targets: int) -> None:
    """Raise DataError where the settings of frame_choice references do not fit each other."""
    if targets != 1:
        raise DataError(
            f"sampling.query_frames={targets} with frame_choice references: a prompt scores one target frame; set it "
            "to 1"
        )
    if most < 1 or not 0 <= least <= most:
        raise DataError(
            f"sampling.least_context_frames={least} with frame_choice references: give 1 to sampling.context_frames "
            f"({most}), or 0 for always as many"
        )


def draw_count(seed: int, step: int, least: int, most: int) -> int:
    """Return how many references every slot of a step shows: from `least` to `most`, each as likely; 0: `most`.

    The reference draws anew for each sample; here the samples of a step make one array (docs/fidelity.md).
    """
    if not least:
        return most
    return int(numpy_generator(seed, step, 0, _COUNT).integers(least, most + 1))
