"""Key frames of expressions from a file in the reference's form: {"VIDEO_EXPID": FRAME}.

Source: the reference's inference_iter.py (`--use_kf`, `--score_json`): FRAME is the number in the frame's file name, as
a number or as text; an expression that the file does not name begins at its video's first frame, where the caller
accepts that.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glus.common.errors import EvaluationError
from glus.common.json_file import DIGITS, read_object
from glus.data_pipeline.shards.reader import ShardedSplit

_FORM = '{"VIDEO_EXPID": FRAME, ...}, such as {"bear_0": 12}, where FRAME is the number in a frame\'s file name'


@dataclass(frozen=True)
class KeyFrames:
    """The key frames that one file gives; `frames` maps "VIDEO_EXPID" to a frame's name or number as text."""

    path: Path
    frames: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "KeyFrames":
        """Raises EvaluationError where the file is missing or not of that form."""
        content = read_object(path, "file of key frames", raises=EvaluationError, remedy=f"wanted is {_FORM}")
        return cls(path, {key: _text(path, key, value) for key, value in content.items()})

    def position(self, video: str, expression: str, frame_names: Sequence[str]) -> int | None:
        """Index of the key frame of an expression (an id) among the video's frames; None where the file has none.

        Raises EvaluationError where the video has no such frame.
        """
        key = key_of(video, expression)
        wanted = self.frames.get(key)
        if wanted is None:
            return None
        index = _place(wanted, frame_names)
        if index is None:
            raise EvaluationError(
                f"{self.path}: {key} names frame {wanted}, which video {video} does not have: its {len(frame_names)} "
                f"frames are {frame_names[0]} to {frame_names[-1]}"
            )
        return index


def key_of(video: str, expression: str) -> str:
    """The key of an expression (an id) in a file of key frames."""
    return f"{video}_{expression}"


def frame_of_file(frame_names: Sequence[str], index: int) -> int | str:
    """What a file of key frames says for frame `index`, so that `KeyFrames.position` gives it back.

    The number in the frame's file name, which is the index where frames are numbered 0 to T - 1; the name itself where
    it is no number, or another frame has the same.
    """
    name = frame_names[index]
    number = _number(name)
    return number if number is not None and _place(str(number), frame_names) == index else name


def _place(wanted: str, frame_names: Sequence[str]) -> int | None:
    """Index of the frame of exactly this name, else of the first with this number; None where there is none."""
    if wanted in frame_names:
        return frame_names.index(wanted)
    number = _number(wanted)
    numbers = (index for index, name in enumerate(frame_names) if number is not None and _number(name) == number)
    return next(numbers, None)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None


def _text(path: Path, key: str, value: Any) -> str:
    integral = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not (integral or isinstance(value, str)):
        raise EvaluationError(f"{path}: {key} is {json.dumps(value)}; wanted is {_FORM}")
    return value if isinstance(value, str) else str(int(value))


def check_key_frames(path: Path, splits: Sequence[ShardedSplit], accept_missing: bool) -> tuple[int, int]:
    """(expressions of the splits that the file names, all of them): hours of prediction end here or not at all.

    Raises EvaluationError as `KeyFrames`, where the file names none of them, and, unless `accept_missing`, where it
    does not name them all.
    """
    keys = KeyFrames.read(path)
    found = {
        f"{entry.dataset}/{entry.split} {key_of(entry.video, expression.id)}": keys.position(
            entry.video, expression.id, entry.frame_names
        )
        for split in splits
        for entry in split.videos
        for expression in entry.expressions
    }
    missing = [name for name, index in found.items() if index is None]
    named = len(found) - len(missing)
    if not named:
        raise EvaluationError(
            f"{path} names no expression of {', '.join(f'{each.dataset}/{each.split}' for each in splits)}: wanted is "
            f"{_FORM}"
        )
    if missing and not accept_missing:
        raise EvaluationError(
            f"{path} does not name {len(missing)} of {len(found)} expressions, the first is {missing[0]}: select key "
            "frames for these splits, or say inference.missing_key_frames=first to begin them at the first frame"
        )
    return named, len(found)
