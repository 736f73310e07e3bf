"""Which splits a command works on."""

from collections.abc import Sequence

from glus.common.errors import EvaluationError
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.evaluation.score.scoring import has_targets


def chosen_splits(shards: str, names: Sequence[str]) -> list[ShardedSplit]:
    """The splits named; without names those that begin with "valid" and have masks (the others are told).

    Raises DataError for a name that is not there, EvaluationError where nothing is left.
    """
    if names:
        return open_splits(shards, list(dict.fromkeys(names)))
    valid = [split for split in open_splits(shards) if split.split.startswith("valid")]
    scored = [split for split in valid if has_targets(split)]
    for split in valid:
        if split not in scored:
            print(f"left out: {split.dataset}/{split.split} hides its masks (name it in `splits` to predict it)")
    if not scored:
        raise EvaluationError(
            f"{shards} holds no valid split with masks: name splits to evaluate, such as splits=[mevis/train]"
        )
    return scored
