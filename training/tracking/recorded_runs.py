"""Read runs back from MLflow."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glus.common.errors import TrainingError
from glus.training.tracking.artifact_place import read_artifact
from glus.training.tracking.metric_groups import plain_name
from glus.training.tracking.mlflow_client import all_runs, client_of, experiment_id, has_tags, mlflow_errors
from glus.training.tracking.tracking_place import TrackingConfig, place_of

if TYPE_CHECKING:
    from glus.training.tracking.mlflow_client import Metric, MlflowClient, Run


@dataclass(frozen=True)
class RunRecord:
    """One recorded run. `metrics` holds each metric's last value, `history` all of them as (step, value) in order.

    Metrics have their plain names (metric_groups.py).
    """

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    history: dict[str, tuple[tuple[int, float], ...]]


def find_runs(config: TrackingConfig, names: Sequence[str] = ()) -> list[RunRecord]:
    """The runs with these names or ids, in this order; without names all runs of the experiment, oldest first.

    Raises TrainingError for a name that no run has (with the names there are) or that several have (with their ids).
    """
    client = client_of(config)
    experiment = experiment_id(client, config, create=False)
    with mlflow_errors(config):
        runs = all_runs(client, experiment)
        chosen = [_the_run(runs, name, config) for name in names] if names else runs
        return [_run_record(client, run) for run in chosen]


def find_tagged_runs(config: TrackingConfig, tags: Mapping[str, str]) -> list[RunRecord]:
    """Return the runs of the experiment that have all these tags, oldest first. Raises TrainingError."""
    client = client_of(config)
    experiment = experiment_id(client, config, create=False)
    with mlflow_errors(config):
        return [_run_record(client, run) for run in all_runs(client, experiment) if has_tags(run, tags)]


def recorded_file(config: TrackingConfig, run_id: str, file: str, scratch: Path) -> Path | None:
    """Return where `file` of a run's artifacts can be read, None where the run has none (artifact_place.py).

    Raises TrainingError where MLflow cannot be reached.
    """
    client = client_of(config)
    with mlflow_errors(config):
        return read_artifact(client, config, run_id, file, scratch / run_id)


def _the_run(runs: "Sequence[Run]", name: str, config: TrackingConfig) -> "Run":
    found = [run for run in runs if name in (run.info.run_id, run.info.run_name)]
    if len(found) == 1:
        return found[0]
    where = f"in experiment {config.experiment!r} of {place_of(config)}"
    if found:
        ids = ", ".join(run.info.run_id for run in found)
        raise TrainingError(f"{len(found)} runs are named {name!r} {where}; say which by its id: {ids}")
    there = ", ".join(sorted({run.info.run_name for run in runs})) or "none yet"
    raise TrainingError(f"no run is named {name!r} {where}; the runs are: {there}")


def _run_record(client: "MlflowClient", run: "Run") -> RunRecord:
    # A run that an earlier version began has a metric under two names.
    points: dict[str, list[Metric]] = {}
    for shown in run.data.metrics:
        points.setdefault(plain_name(shown), []).extend(client.get_metric_history(run.info.run_id, shown))
    history = {
        name: tuple((point.step, _value(point.value)) for point in _in_order(found)) for name, found in points.items()
    }
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        tags={key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        metrics={name: points[-1][1] if points else math.nan for name, points in history.items()},
        history=history,
    )


def _value(stored: float) -> float:
    """Return the recorded value: MLflow's databases hold the largest float instead of infinity."""
    return math.copysign(math.inf, stored) if abs(stored) == sys.float_info.max else stored


def _in_order(points: "Sequence[Metric]") -> "list[Metric]":
    return sorted(points, key=lambda point: (point.step, point.timestamp))
