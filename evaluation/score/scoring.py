"""J and F of each expression of a split from the predictions on disk, with the text control."""

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2

from glus.common.errors import EvaluationError
from glus.common.processes import process_pool
from glus.common.progress import Progress
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.predictions import check_folders
from glus.evaluation.results.summary import Summary, summarise
from glus.evaluation.score.expression_score import ExpressionScore, FrameScores, VideoScores, has_known_target
from glus.evaluation.score.merged import DATASET as MERGED_DATASET
from glus.evaluation.score.merged import score_merged, why_not_merged
from glus.evaluation.score.video_scoring import score_video


@dataclass(frozen=True)
class ScoredSplits:
    """Scores of all expressions, and those of each frame where the target is known.

    `merged` maps "dataset/split" to the scores of Ref-DAVIS17 by its second protocol.
    """

    scores: list[ExpressionScore]
    frames: list[FrameScores]
    merged: dict[str, list[ExpressionScore]]
    summary: Summary


def score_splits(
    splits: Sequence[ShardedSplit], predictions: Path, workers: int = 1, progress: bool = True
) -> ScoredSplits:
    """Score the masks below `predictions` (the folder above DATASET) with `workers` processes.

    Raises EvaluationError for incomplete predictions, or of another split.
    """
    videos = [video for split in splits for video in _score_split(split, predictions, progress, workers)]
    scores = [score for video in videos for score in video.scores]
    frames = [each for video in videos for each in video.frames]
    merged: dict[str, list[ExpressionScore]] = {}
    notes = []
    for split in splits:
        if split.dataset != MERGED_DATASET or not has_targets(split):
            continue
        reason = why_not_merged(split)
        if reason:
            notes.append(f"{split.dataset}/{split.split} is not scored with four annotators merged: {reason}")
        else:
            merged[f"{split.dataset}/{split.split}"] = score_merged(split, predictions)
    left_out = {f"{s.dataset}/{s.split}": [bad.video for bad in s.manifest.quarantine] for s in splits}
    return ScoredSplits(scores, frames, merged, summarise(scores, merged, notes, left_out))


def score_split(
    split: ShardedSplit, predictions: Path, progress: bool = True, workers: int = 1
) -> list[ExpressionScore]:
    """Score every expression of a split, in the split's order. `workers` processes take a video each.

    A missing prediction scores 0 and is marked. An expression whose target is hidden is in the list without metrics.

    The text control: for each expression, the prediction made for another expression of the same video is scored
    against this one's target. The partner is one whose objects are all others and whose text differs, chosen by the
    expression's name, so always the same. A model that reads the text must score far lower there; one that segments
    the same salient object whatever is asked scores the same. A prediction depends on (video, text) alone, so the
    prediction made for the partner is what exchanging the texts would give: no second inference is needed.

    `predictions` is the folder above DATASET. Memory is that of the largest video, packed, whatever the split's size.
    Raises EvaluationError for incomplete predictions (by file name) or those that belong to no expression, and for a
    split without expressions.
    """
    return [score for video in _score_split(split, predictions, progress, workers) for score in video.scores]


def _score_split(split: ShardedSplit, predictions: Path, progress: bool, workers: int) -> list[VideoScores]:
    if workers < 1:
        raise EvaluationError(f"workers is {workers}; give 1 or more")
    total = sum(len(entry.expressions) for entry in split.videos)
    if total == 0:
        raise EvaluationError(f"{split.dataset}/{split.split} holds no expressions: nothing to score; prepare it again")
    check_folders(predictions, split.dataset, split.split, split.videos)
    scores = {}
    label = f"score {split.dataset}/{split.split}"
    with Progress(total=total, desc=label, unit="expression", disable=not progress) as bar:
        for video, found in _score_videos(split, predictions, workers):
            scores[video] = found
            bar.update(len(found.scores))
    return [scores[video] for video in range(len(split.videos))]


def has_targets(split: ShardedSplit) -> bool:
    """Whether the split says of any expression what it means; a benchmark's hidden split does not."""
    return any(has_known_target(expression) for entry in split.videos for expression in entry.expressions)


def _score_videos(split: ShardedSplit, predictions: Path, workers: int) -> Iterator[tuple[int, VideoScores]]:
    videos = range(len(split.videos))
    if workers == 1:
        for video in videos:
            yield video, score_video(split, video, predictions)
        return
    pool = process_pool(min(workers, len(videos)), cv2.setNumThreads, 1)
    try:
        waiting = {pool.submit(score_video, split, video, predictions): video for video in videos}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    except BrokenProcessPool as error:
        raise EvaluationError(
            f"a process that scores was killed (most often out of memory): give fewer than {workers} workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
