"""Say by its name whether a metric is better higher or lower. A metric that is not listed has no best run."""

import re
from typing import Literal

Direction = Literal["higher", "lower"]

#: Last parts of names, in lower case.
_HIGHER = frozenset(
    ("j", "f", "jf", "j&f", "j_and_f", "matched_jf", "a", "r", "accuracy", "acc", "robustness", "iou", "miou")
    + ("giou", "ciou", "precision", "recall", "f1", "auc", "map", "ap", "mfu", "throughput")
)
_LOWER = frozenset(
    ("total", "cross_entropy", "ce", "bce", "nll", "mask_bce", "mask_dice", "contrastive", "perplexity", "ppl")
    + ("error", "mse", "mae", "seconds", "missing", "partial", "videos_left_out", "left_out", "memory_gib")
    + ("waiting_for_data_share", "outside_step_share", "seconds_per_expression", "tokens_per_expression")
)
_LOWER_END = re.compile(r"(^lost_(mask|object|both|missed|imagined)|_loss|_seconds|_error|_cross_entropy|_perplexity)$")
_HIGHER_END = re.compile(r"(_per_second|_iou|_accuracy|_jf|_j_and_f|_recall|_precision)$")
#: Bounds of intervals, the score against another expression's target, and counts do not measure quality.
_NO_MEANING = re.compile(r"(^|_)control($|_)|_(low|high)$|^(expressions|videos|frames|steps?|epochs?|seed|lr)$")


def direction(name: str) -> Direction | None:
    """Which values of a metric are better; None where neither means anything or the metric is unknown.

    `eval/mevis/valid_u/JF` and `MeViS valid_u, J&F` are read from their last part. The control's score is no quality:
    a model that segments nothing has the lowest one. Its `drop` is: the score that another text loses.
    """
    parts = [part.strip().lower().replace(" ", "_").replace("-", "_") for part in re.split(r"[/.,:]", name)]
    last = parts[-1]
    if parts[0] == "system":
        return None
    if last == "drop":
        return "higher"
    if _NO_MEANING.search(last) or any("control" in part.split("_") for part in parts):
        return None
    if last in _LOWER or _LOWER_END.search(last) or any(part in ("loss", "losses") for part in parts):
        return "lower"
    if last in _HIGHER or _HIGHER_END.search(last):
        return "higher"
    return None
