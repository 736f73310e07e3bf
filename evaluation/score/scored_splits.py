"""Several splits scored by every protocol that applies to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.results.summary import Summary, summarise
from glus.evaluation.score.expression_score import ExpressionScore
from glus.evaluation.score.merged import DATASET as MERGED_DATASET
from glus.evaluation.score.merged import score_merged, why_not_merged
from glus.evaluation.score.scoring import has_targets, score_split


@dataclass(frozen=True)
class ScoredSplits:
    """Scores of all expressions; `merged` maps "dataset/split" to those of Ref-DAVIS17 by its second protocol."""

    scores: list[ExpressionScore]
    merged: dict[str, list[ExpressionScore]]
    summary: Summary


def score_splits(
    splits: Sequence[ShardedSplit], predictions: Path, workers: int = 1, progress: bool = True
) -> ScoredSplits:
    """Score the masks below `predictions` (the folder above DATASET) with `workers` processes.

    Raises EvaluationError for predictions that are not whole, or of another split.
    """
    scores = [score for split in splits for score in score_split(split, predictions, progress, workers)]
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
    return ScoredSplits(scores, merged, summarise(scores, merged, notes, left_out))
