"""The key frame selector's frames in training: references over all of a video, one of which is the target.

Source: GLUS's kfs/: 8 to 12 frames, one at random from each of as many equal parts; the target is one of them.
"""

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.common.seeds import numpy_generator
from glus.data_pipeline.sampling.frame_labels import SplitLabels
from glus.data_pipeline.shards.reader import ShardedSplit

#: Last word of the key of a step's number of references: keys of slots have three words, of splits another last one.
_COUNT = 0x4B4653


def check_no_references(frame_choice: str, least: int, frame_scores: str) -> None:
    """Raise DataError where another frame_choice has settings of references."""
    for name, value in (("least_context_frames", least), ("frame_scores", frame_scores)):
        if value:
            raise DataError(
                f"sampling.{name}={value} with frame_choice {frame_choice}: it is for references (the key frame "
                "selector); leave it out"
            )


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

    The reference draws again for each sample; here the samples of a step make one array (docs/fidelity.md).
    """
    if not least:
        return most
    return int(numpy_generator(seed, step, 0, _COUNT).integers(least, most + 1))


def left_out(labels: SplitLabels, split: ShardedSplit, most: int) -> list[str]:
    """One line that counts what of a split is not drawn and why; none where all of it is."""
    short = int(np.count_nonzero(labels.videos() & (split.index.frame_counts() < most)))
    known, labelled = int(split.index.target_counts().sum()), int(np.count_nonzero(labels.begins >= 0))
    counts = {
        f"videos shorter than {most} frames": short,
        "expressions without a known target": len(labels.begins) - known,
        "expressions without scores": known - labelled,
    }
    reasons = [f"{count} {what}" for what, count in counts.items() if count]
    return [f"{split.dataset}/{split.split}: left out: {', '.join(reasons)}"] if reasons else []


def eligible(labels: SplitLabels, split: ShardedSplit, most: int) -> NDArray[np.int64]:
    """Numbers of the videos with labels and at least `most` frames."""
    return np.flatnonzero(labels.videos() & (split.index.frame_counts() >= most))
