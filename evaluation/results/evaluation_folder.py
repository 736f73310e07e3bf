"""A folder of an evaluation as a run to compare: its metrics, and how it was predicted as parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glus.common.errors import EvaluationError
from glus.common.files import is_there
from glus.common.json_file import read_object
from glus.evaluation.predict.predictions import RECORD
from glus.evaluation.results.scores_file import SCORES, Scored, read_scores
from glus.evaluation.results.summary import named_metrics


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation that `glus evaluate` or `glus score` wrote. It has no curves."""

    run_id: str
    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    scored: Scored
    history: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)


def holds_evaluation(folder: Path) -> bool:
    """Whether an evaluation wrote its scores there."""
    return is_there(folder / SCORES)


def read_evaluation(folder: Path) -> EvaluatedRun:
    """Read scores.json, and where it is there predictions.json. Raises EvaluationError where they cannot be read.

    Parameters are the checkpoint, its step and weights, and the settings of the inference.
    """
    scored = read_scores(folder)
    params: dict[str, Any] = {}
    if is_there(folder / RECORD):
        record = read_object(folder / RECORD, "record of predictions", raises=EvaluationError, remedy="predict again")
        params = {name: str(record[name]) for name in ("checkpoint", "step", "weights") if name in record}
        settings = record.get("inference")
        if isinstance(settings, dict):
            params |= {f"inference.{name}": str(value) for name, value in settings.items()}
    return EvaluatedRun(str(folder), scored.title, params, named_metrics(scored.summary), scored)
