"""What `glus select-frames out=FILE.json` leaves on disk.

FILE.json                                  the key frames, {"VIDEO_EXPID": FRAME}, as key_frames.py reads them
FILE.parquet                               all scores: dataset, split, video, expression, frame (texts), score (float32)
FILE.scores/selection.json                 which weights scored which shards (provenance.py)
FILE.scores/scores/DATASET/SPLIT/VIDEO.json    scores of one finished video

A video's file is complete or absent, so a killed process loses at most its current video. FILE.json is written last.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.json_file import read_as
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.predict.key_frames import frame_of_file, key_of
from glus.evaluation.predict.provenance import Kept
from glus.evaluation.predict.worklist import WorkItem, video_file
from glus.evaluation.results.frame_scores import FrameRows, write_frame_rows
from glus.evaluation.select.selection_rules import best_frame

KEPT = Kept("selection.json", "scores", (), "scores", "scored", "scores")
_VERSION = (b"glus.selector_scores", b"1")
_REMEDY = "remove this file; the same command scores the video again"


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video's frames, by the expression's id; None stands for one that is not finite.

    `weights` is the selector's digest, `shards` the split's fingerprint.
    """

    weights: str
    shards: str
    scores: dict[str, list[float | None]]


def folder_of(file: Path) -> Path:
    """FILE.scores. Raises EvaluationError for a `file` that is not named FILE.json."""
    if file.suffix != ".json" or file.is_dir():
        raise EvaluationError(f"out={file}: name a file that ends in .json, such as key_frames.json")
    return file.with_suffix(".scores")


def check_keys(splits: Sequence[ShardedSplit]) -> None:
    """Raise EvaluationError where two expressions would have the same key in the file, which names no dataset."""
    seen: dict[str, str] = {}
    for split in splits:
        where = f"{split.dataset}/{split.split}"
        for entry, expression, key in _expressions(split):
            if key in seen:
                raise EvaluationError(
                    f"{where} video {entry} expression {expression} and one of {seen[key]} are both named {key} in a "
                    "file of key frames: select for each split alone, into a file of its own"
                )
            seen[key] = where


def left_to_score(items: Sequence[WorkItem], splits: Sequence[ShardedSplit], folder: Path) -> tuple[WorkItem, ...]:
    """Return the items whose scores are not on disk yet."""
    return tuple(item for item in items if not _place(folder, splits[item.split].videos[item.video]).is_file())


def write_video_scores(
    folder: Path, split: ShardedSplit, entry: VideoEntry, weights: str, scores: NDArray[np.float32]
) -> None:
    """Write the scores float32 [E, T] of a video, complete or not at all. Raises InputError where it cannot."""
    rows = {
        expression.id: [float(score) if np.isfinite(score) else None for score in row]
        for expression, row in zip(entry.expressions, scores, strict=True)
    }
    record = VideoScores(weights, split.fingerprint, rows)
    write_atomic(_place(folder, entry), json.dumps(asdict(record)).encode() + b"\n")


def read_video_scores(folder: Path, split: ShardedSplit, entry: VideoEntry, weights: str) -> NDArray[np.float32]:
    """Scores float32 [E, T], NaN where one was not finite.

    Raises EvaluationError where the file is absent or damaged, of other weights or shards, or does not fit the video.
    """
    place = _place(folder, entry)
    found = read_as(place, VideoScores, "file of scores", raises=EvaluationError, remedy=_REMEDY)
    due = {"weights": (found.weights, weights), "shards": (found.shards, split.fingerprint)}
    for name, (one, other) in due.items():
        if one != other:
            raise EvaluationError(f"{place}: scores of other {name} ({one[:12]}, now {other[:12]}); {_REMEDY}")
    ids = [expression.id for expression in entry.expressions]
    counts = {len(row) for row in found.scores.values()}
    if sorted(found.scores) != sorted(ids) or counts != {len(entry.frame_names)}:
        raise EvaluationError(f"{place}: does not have the expressions and frames of this video; {_REMEDY}")
    return np.array([found.scores[each] for each in ids], np.float32)


def write_selection(file: Path, splits: Sequence[ShardedSplit], weights: str) -> dict[str, int | str]:
    """Write FILE.parquet and then FILE.json from all videos' scores; returns what FILE.json says.

    Raises EvaluationError as `read_video_scores`, InputError where a file cannot be written.
    """
    folder, chosen, rows, values = folder_of(file), {}, [], []
    for split in splits:
        for entry in split.videos:
            if not entry.expressions:
                continue
            scores, names = read_video_scores(folder, split, entry, weights), entry.frame_names
            for expression, row in zip(entry.expressions, scores, strict=True):
                chosen[key_of(entry.video, expression.id)] = frame_of_file(names, best_frame(row.tolist()))
                rows.append(FrameRows(entry.dataset, entry.split, entry.video, expression.id, tuple(names)))
            values.append(scores.ravel())
    column = np.concatenate(values) if values else np.empty(0, np.float32)
    write_frame_rows(file.with_suffix(".parquet"), rows, {"score": column}, _VERSION)
    write_atomic(file, json.dumps(chosen, indent=1, ensure_ascii=False).encode() + b"\n")
    return chosen


def _expressions(split: ShardedSplit) -> Iterator[tuple[str, str, str]]:
    for entry in split.videos:
        for expression in entry.expressions:
            yield entry.video, expression.id, key_of(entry.video, expression.id)


def _place(folder: Path, entry: VideoEntry) -> Path:
    return video_file(folder / KEPT.results, entry)
