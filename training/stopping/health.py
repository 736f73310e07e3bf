"""Stop all ranks where a loss or the gradient is not finite, and name the samples that it came from."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from glus.common.atomic import write_atomic
from glus.common.errors import InputError, TrainingError
from glus.common.json_file import parse_json
from glus.training.distributed import Rank
from glus.training.engines.accumulate import Accumulated

FILE = "non_finite.json"
#: Samples that a message names; the report has all.
_MOST = 6


@dataclass(frozen=True)
class MicroBatchLoss:
    """A rank's micro-batch at one turn of a step: its loss, and its expressions as dataset/split/video/expression."""

    rank: int
    turn: int
    loss: float
    samples: list[str]


def refuse_non_finite(metrics: dict[str, float], read: Accumulated, step: int, rank: Rank, out: Path) -> None:
    """Raises TrainingError on every rank where a metric of a step is not finite; OUT/non_finite.json has all samples.

    `metrics` are the same on all ranks, so all of them raise; `read` is what this rank read in the step.
    """
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not bad:
        return
    micro_batches = _of_all_ranks(read, rank)
    guilty = [each for each in micro_batches if not math.isfinite(each.loss)]
    file = out / FILE
    if rank.rank == 0:
        report = {
            "step": step,
            "figures": {name: str(value) for name, value in metrics.items()},
            "micro_batches": [asdict(each) | {"loss": str(each.loss)} for each in micro_batches],
        }
        try:
            write_atomic(file, json.dumps(report, indent=1).encode() + b"\n")
        except InputError as error:
            raise TrainingError(f"step {step}: {', '.join(bad)} is not finite, and {error}") from error
    samples = [sample for each in guilty or micro_batches for sample in each.samples]
    more = f" and {len(samples) - _MOST} more" if len(samples) > _MOST else ""
    where = "came from" if guilty else "is of the gradient alone; the step's samples are"
    raise TrainingError(
        f"step {step}: {', '.join(bad)} is not finite; it {where} {', '.join(samples[:_MOST])}{more} ({file} has all). "
        "Lower optimizer.learning_rate, or look at these videos with their masks"
    )


def _of_all_ranks(read: Accumulated, rank: Rank) -> list[MicroBatchLoss]:
    own = [MicroBatchLoss(rank.rank, turn, float(loss), names) for turn, (loss, names) in enumerate(read.micro_batches)]
    if rank.ranks == 1:
        return own
    # repr of a float is the same text back; JSON has no NaN.
    texts = rank.gather_texts(json.dumps([asdict(each) | {"loss": repr(each.loss)} for each in own]))
    return [
        MicroBatchLoss(**{**each, "loss": float(each["loss"])})
        for text in texts
        for each in parse_json(text, "another rank's losses")
    ]
