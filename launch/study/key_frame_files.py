"""Files of key frames that no selector chose: the best frame by the truth, and one at random."""

import json
from pathlib import Path
from typing import Literal
from zlib import crc32

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.seeds import numpy_generator
from glus.evaluation.predict.key_frames import frame_of_file, key_of
from glus.evaluation.results.frame_scores import read_frame_scores
from glus.evaluation.select.selection_rules import best_frame


def write_key_frames(file: Path, scored: Path, choice: Literal["best", "random"], seed: int) -> None:
    """Write the key frame of each expression that `scored`, a folder of `glus evaluate`, has frame by frame.

    best: the frame with the highest J there; random: one by (seed, video, expression). Raises EvaluationError where two
    expressions of different splits would have one entry, or the scores cannot be read.
    """
    frames: dict[str, int | str] = {}
    places: dict[str, str] = {}
    for each in read_frame_scores(scored):
        key, place = key_of(each.video, each.expression), f"{each.dataset}/{each.split}"
        if places.setdefault(key, place) != place:
            raise EvaluationError(
                f"video {each.video}, expression {each.expression} is in {places[key]} and in {place}, and a file of "
                "key frames has one entry for both: evaluate one of these splits in another evaluation"
            )
        count = len(each.frame_names)
        drawn = numpy_generator(seed, crc32(f"{place}/{key}".encode()))
        index = best_frame(each.J.tolist()) if choice == "best" else int(drawn.integers(count))
        frames[key] = frame_of_file(each.frame_names, index)
    write_atomic(file, json.dumps(frames, indent=1).encode() + b"\n")
