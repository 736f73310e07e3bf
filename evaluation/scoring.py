"""J and F of each expression of a split from the predictions on disk, with the text control."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from glus.data_pipeline.reader import ShardedSplit, VideoEntry
from glus.data_pipeline.records import Expression
from glus.evaluation.errors import EvaluationError
from glus.evaluation.metrics import jf_per_frame
from glus.evaluation.predictions import check_folders, read_masks

WITHOUT_TARGET = 2
"""ReVOS type_id of expressions that name nothing in the video."""


@dataclass(frozen=True)
class ExpressionScore:
    """One expression's figures: means over all frames of the video, 0 to 100.

    J, F and JF (their mean) are None where the split hides the target. `missing` says that there was no prediction:
    such an expression has 0. The control figures are None where the expression has no partner (see `score_split`).
    """

    dataset: str
    split: str
    video: str
    expression: str
    text: str
    kind: str
    type_id: int | None
    object_ids: tuple[str, ...]
    frames: int
    missing: bool
    J: float | None
    F: float | None
    JF: float | None
    control_expression: str | None = None
    control_J: float | None = None
    control_F: float | None = None
    control_JF: float | None = None

    @property
    def hidden(self) -> bool:
        """Whether the split hides the target, so that nothing was scored."""
        return self.JF is None


def score_split(
    split: ShardedSplit, predictions: Path, progress: bool = True, workers: int = 1
) -> list[ExpressionScore]:
    """Score every expression of a split, in the split's order. `workers` processes take a video each.

    A missing prediction scores 0 and is marked. An expression whose target is hidden is in the list without figures.

    The text control: for each expression, the prediction made for another expression of the same video is scored
    against this one's target. The partner is one whose objects are all others and whose text differs, chosen by the
    expression's name, so always the same. A model that reads the text must score far lower there; one that segments
    the same salient object whatever is asked scores the same. A prediction depends on (video, text) alone, so the
    prediction made for the partner is what exchanging the texts would give: no second inference is needed.

    `predictions` is the folder above DATASET. Raises EvaluationError for predictions that are not whole (by file name)
    or that belong to no expression, and for a split without expressions.
    """
    if workers < 1:
        raise EvaluationError(f"workers is {workers}; give 1 or more")
    total = sum(len(entry.expressions) for entry in split.videos)
    if total == 0:
        raise EvaluationError(f"{split.dataset}/{split.split} holds no expressions: nothing to score; prepare it again")
    check_folders(predictions, split.dataset, split.split, split.videos)
    scores: list[list[ExpressionScore]] = [[] for _ in split.videos]
    label = f"score {split.dataset}/{split.split}"
    with tqdm(total=total, desc=label, unit="expression", disable=not progress) as bar:
        for video, found in _score_videos(split, predictions, workers):
            scores[video] = found
            bar.update(len(found))
    return [score for found in scores for score in found]


def has_targets(split: ShardedSplit) -> bool:
    """Whether the split says of any expression what it means; a benchmark's hidden split does not."""
    return any(_known(expression) for entry in split.videos for expression in entry.expressions)


def control_partner(entry: VideoEntry, expression: Expression) -> Expression | None:
    """The expression of the same video whose prediction is the text control of this one; None where there is none."""
    if not expression.object_ids or expression.type_id == WITHOUT_TARGET:
        return None
    own, text = set(expression.object_ids), _plain(expression.text)
    others = [
        other
        for other in sorted(entry.expressions, key=lambda exp: exp.id)
        if other.object_ids and own.isdisjoint(other.object_ids) and _plain(other.text) != text
    ]
    if not others:
        return None
    name = f"{entry.dataset}/{entry.split}/{entry.video}/{expression.id}"
    return others[crc32(name.encode()) % len(others)]


def _score_videos(split: ShardedSplit, predictions: Path, workers: int) -> Iterator[tuple[int, list[ExpressionScore]]]:
    videos = range(len(split.videos))
    if workers == 1:
        for video in videos:
            yield video, _score_video(split, video, predictions)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads may hold
    pool = ProcessPoolExecutor(
        min(workers, len(videos)), mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,)
    )
    try:
        waiting = {pool.submit(_score_video, split, video, predictions): video for video in videos}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _score_video(split: ShardedSplit, video: int, predictions: Path) -> list[ExpressionScore]:
    """Each prediction is read once, for its own target and for those whose partner it is; two arrays are held."""
    entry = split.videos[video]
    scores = {exp.id: _unscored(entry, exp) for exp in entry.expressions}
    partners = {exp.id: control_partner(entry, exp) for exp in entry.expressions}
    for made_for in entry.expressions:
        pred = read_masks(predictions, entry, made_for)
        if _known(made_for):
            j, f = (0.0, 0.0) if pred is None else _means(pred, _target(split, video, made_for))
            scores[made_for.id] = replace(scores[made_for.id], missing=pred is None, J=j, F=f, JF=(j + f) / 2)
        else:
            scores[made_for.id] = replace(scores[made_for.id], missing=pred is None)
        if pred is None:
            continue
        for exp in entry.expressions:
            partner = partners[exp.id]
            if partner is not None and partner.id == made_for.id:
                j, f = _means(pred, _target(split, video, exp))
                scores[exp.id] = replace(
                    scores[exp.id], control_expression=partner.id, control_J=j, control_F=f, control_JF=(j + f) / 2
                )
    return [scores[exp.id] for exp in entry.expressions]


def _unscored(entry: VideoEntry, exp: Expression) -> ExpressionScore:
    return ExpressionScore(
        dataset=entry.dataset,
        split=entry.split,
        video=entry.video,
        expression=exp.id,
        text=exp.text,
        kind=exp.kind,
        type_id=exp.type_id,
        object_ids=tuple(exp.object_ids),
        frames=len(entry.frame_names),
        missing=False,
        J=None,
        F=None,
        JF=None,
    )


def _known(expression: Expression) -> bool:
    return bool(expression.object_ids) or expression.type_id == WITHOUT_TARGET


def _target(split: ShardedSplit, video: int, expression: Expression) -> NDArray[np.bool_]:
    entry = split.videos[video]
    frames = range(len(entry.frame_names))
    if expression.type_id == WITHOUT_TARGET:
        return np.zeros((len(frames), entry.height, entry.width), np.bool_)
    return split.read_target(video, expression, frames)


def _means(pred: NDArray[np.bool_], target: NDArray[np.bool_]) -> tuple[float, float]:
    region, boundary = jf_per_frame(pred, target)
    return 100 * float(region.mean()), 100 * float(boundary.mean())


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
