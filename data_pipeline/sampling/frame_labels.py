"""Labels of frames: J of a model's own masks in every frame of the training videos, as `glus score` left them.

One float for each frame of each expression, and one place for each expression: 40 MB for 10^7 frames.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.common.json_file import read_object
from glus.data_pipeline.sampling.frame_table import FRAMES, NAMES, coded, expression_rows, read_frame_table
from glus.data_pipeline.shards.reader import ShardedSplit

SCORES = "scores.json"
#: In scores.json's origin: SHA-256 of the weights that predicted, and their checkpoint (for messages only). The
#: fingerprint of a split's shards has the key "DATASET/SPLIT".
WEIGHTS, CHECKPOINT = "weights", "checkpoint"
_REMEDY = "predict and score these videos again"


@dataclass(frozen=True, eq=False)
class SplitLabels:
    """Labels of one split. begins: int64 [E], place of each expression's first frame in `values`, -1 without labels.

    first: int64 [V + 1], number of each video's first expression; values: float32 [N], 0 to 1.
    """

    begins: NDArray[np.int64]
    first: NDArray[np.int64]
    values: NDArray[np.float32]

    def labelled(self, video: int) -> NDArray[np.bool_]:
        """bool [E]: which expressions of a video have labels."""
        return self.begins[self.first[video] : self.first[video + 1]] >= 0

    def of(self, video: int, expression: int, frames: Sequence[int]) -> NDArray[np.float32]:
        """float32 [N]: labels of frames of an expression that has some."""
        return self.values[self.begins[self.first[video] + expression] + np.asarray(frames)]

    def videos(self) -> NDArray[np.bool_]:
        """bool [V]: which videos have an expression with labels."""
        known = np.concatenate(([0], np.cumsum(self.begins >= 0)))[self.first]
        return np.diff(known) > 0


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """Labels of the splits of a plan, in its order. `weights` and `checkpoint` say whose masks they rate, or are ""."""

    folder: Path
    splits: tuple[SplitLabels, ...]
    weights: str
    checkpoint: str
    fingerprint: str
    """SHA-256 of all labels and of which expressions have some: other labels are other data."""


def read_labels(folder: Path, splits: Sequence[ShardedSplit]) -> FrameLabels:
    """Labels of `splits` from a folder of `glus score` or `glus evaluate`.

    Expressions whose target is not known get none, whatever the folder holds. Raises DataError where the folder is of
    other splits, other shards or other frames, or a file is absent or damaged.
    """
    document = read_object(folder / SCORES, "file of scores", raises=DataError, remedy=_REMEDY)
    found = document.get("origin")
    origin = found if isinstance(found, dict) else {}
    table = read_frame_table(folder / FRAMES, (*NAMES, "J"), DataError)
    columns = [coded(table.column(name)) for name in NAMES]
    values = table.column("J").to_numpy().astype(np.float32) / np.float32(100)
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"{folder / FRAMES}: a J is not from 0 to 100; {_REMEDY}", file=str(folder / FRAMES))
    frames, frame_names = columns.pop()
    runs = _Runs.of(columns)
    named = {name: number for number, name in enumerate(frame_names)}
    labels = []
    for split in splits:
        name = f"{split.dataset}/{split.split}"
        if not runs.has(split.dataset, split.split):
            raise DataError(
                f"{folder} scores {', '.join(runs.splits()) or 'nothing'}, not {name}, which sampling.mixture draws "
                f"from: predict and score {name}, or take it out of the mixture",
                file=str(folder / FRAMES),
            )
        if origin.get(name, split.fingerprint) != split.fingerprint:
            raise DataError(
                f"{folder} scores other shards of {name} (fingerprint {origin[name][:16]}, now "
                f"{split.fingerprint[:16]}): restore them, or {_REMEDY}",
                file=str(folder / SCORES),
            )
        labels.append(_labels_of(split, runs, frames, named, values, folder))
    digest = hashlib.sha256(values.tobytes())
    for each in labels:
        digest.update(each.begins.tobytes())
    weights, checkpoint = (str(origin.get(key, "")) for key in (WEIGHTS, CHECKPOINT))
    return FrameLabels(folder, tuple(labels), weights, checkpoint, digest.hexdigest())


@dataclass(frozen=True, eq=False)
class _Runs:
    """Where each expression's rows begin and end. Rows of an expression follow each other."""

    places: dict[tuple[str, str, str, str], tuple[int, int]]

    @classmethod
    def of(cls, columns: Sequence[tuple[NDArray[np.int32], list[str]]]) -> "_Runs":
        return cls({key: (begin, end) for key, begin, end in expression_rows(columns)})

    def has(self, dataset: str, split: str) -> bool:
        return any(key[:2] == (dataset, split) for key in self.places)

    def splits(self) -> list[str]:
        return sorted({f"{key[0]}/{key[1]}" for key in self.places})


def _labels_of(
    split: ShardedSplit,
    runs: _Runs,
    frames: NDArray[np.int32],
    named: dict[str, int],
    values: NDArray[np.float32],
    folder: Path,
) -> SplitLabels:
    begins, first = [], [0]
    for entry in split.videos:
        wanted = np.array([named.get(name, -1) for name in entry.frame_names])
        for expression in entry.expressions:
            place = runs.places.get((split.dataset, split.split, entry.video, expression.id))
            if place is None or not expression.object_ids:
                begins.append(-1)
                continue
            if not np.array_equal(frames[slice(*place)], wanted):
                raise DataError(
                    f"{folder} scores other frames of {split.dataset}/{split.split}/{entry.video}/{expression.id} "
                    f"({place[1] - place[0]} there, {len(wanted)} in the shards): restore the shards, or {_REMEDY}",
                    file=str(folder / FRAMES),
                    video=entry.video,
                )
            begins.append(place[0])
        first.append(len(begins))
    return SplitLabels(np.array(begins, np.int64), np.array(first, np.int64), values)
