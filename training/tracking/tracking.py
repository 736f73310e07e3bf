"""Record a training in MLflow: parameters, metrics, artifacts, checkpoints.

Rank 0 alone records. Metrics are written to OUT/metrics.jsonl first (metrics_file.py) and sent from a background thread
(delivery.py); a start sends what MLflow has not got. Everything else is sent at once.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from glus.common.errors import TrainingError
from glus.common.urls import hide_secrets
from glus.training.tracking.artifact_place import artifacts_of, write_artifacts
from glus.training.tracking.code_version import code_version, source_tags
from glus.training.tracking.delivery import Delivery
from glus.training.tracking.evaluation_record import logged_model
from glus.training.tracking.metrics_file import NAME_PATTERN, MetricsFile
from glus.training.tracking.mlflow_client import (
    client_of,
    metric_of,
    metrics_of,
    mlflow_errors,
    opened,
    record_dataset,
    record_parameters,
    recorded_points,
    run_of,
)
from glus.training.tracking.tracking_place import TrackingConfig, place_of

if TYPE_CHECKING:
    from glus.training.tracking.mlflow_client import Metric, MlflowClient


class Tracker:
    """One MLflow run for one training, kept across restarts by its `run_id`.

    As a context manager it ends the run: FINISHED, FAILED on an exception, KILLED on an interrupt or where `stopped`
    says that it ends before its last step.
    """

    def __init__(
        self,
        config: TrackingConfig,
        client: "MlflowClient",
        run_id: str,
        recorded: frozenset[tuple[str, int]],
        metrics: MetricsFile | None,
    ) -> None:
        self.run_id = run_id
        self.stopped = False
        self._config = config
        self._client = client
        self._recorded = recorded
        self._metrics = metrics
        self._delivery: Delivery[Metric] = Delivery(self._send)
        self._checkpoints: Delivery[tuple[str, str, int]] = Delivery(self._send_checkpoints)

    @classmethod
    def start(
        cls,
        config: TrackingConfig,
        run_name: str,
        params: object,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        metrics: MetricsFile | None = None,
    ) -> Self:
        """Start a run, or continue `run_id`. `params` is the resolved config: a dataclass or nested mappings.

        A parameter of a run cannot change in MLflow: one that differs on restart is recorded as the tag "changed.NAME".
        Steps that are taken again after a restart are not recorded twice, unless a parameter changed. `metrics` is the
        run's own file, written before MLflow; its records that the MLflow run does not hold are sent.
        Raises MissingRun where `run_id` does not exist, TrainingError where MLflow cannot be reached.
        """
        client, experiment = opened(config) if run_id is None else (client_of(config), "")
        version = code_version()
        everything = source_tags("glus train", version) | dict(tags or {}) | version
        run = run_of(client, config, run_id) if run_id else None
        with mlflow_errors(config):
            if run is None:
                run = client.create_run(experiment, run_name=run_name)
            else:
                client.update_run(run.info.run_id, status="RUNNING", name=run_name)
            same = record_parameters(client, run, flatten(params), everything)
            recorded = recorded_points(client, run) if run_id else frozenset()
        tracker = cls(config, client, run.info.run_id, recorded if same else frozenset(), metrics)
        if metrics:
            metrics.begin()
            tracker._delivery.put(metric_of(each) for each in metrics.records if (each[0], each[3]) not in recorded)
        return tracker

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record values at a step: in the run's file, and soon in MLflow. Returns at once.

        Raises TrainingError for a name that MLflow refuses, and where the disk is full.
        """
        metrics = metrics_of(values, step)
        if self._metrics and metrics:
            plain = {name: each.value for name, each in zip(values, metrics, strict=True)}
            self._metrics.append(plain, metrics[0].timestamp, step)
        known = {name for name in values if (name, step) in self._recorded}
        self._delivery.put(each for name, each in zip(values, metrics, strict=True) if name not in known)

    def sync(self) -> None:
        """Bring the run's file to the disk, before a checkpoint that relies on it. Raises TrainingError."""
        if self._metrics:
            self._metrics.sync()

    def log_checkpoint(self, path: Path, step: int) -> None:
        """Record a checkpoint as a LoggedModel of the run, once however often it is called. Returns at once."""
        self._checkpoints.put([(path.name, str(path.resolve()), step)])

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file or a folder to the run's artifacts, below `folder`."""
        if not path.exists():
            raise TrainingError(f"{path}: no such file to record with run {self.run_id}")
        with mlflow_errors(self._config):
            write_artifacts(self._client, self._config, self.run_id, [path], folder)

    def log_text(self, text: str, file: str) -> None:
        """Write a text as artifact `file`, such as the resolved config as "config.yaml"."""
        with mlflow_errors(self._config):
            place = artifacts_of(self._config, self._client.get_run(self.run_id))
            if place is None:
                self._client.log_text(self.run_id, hide_secrets(text), file)
            else:
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                (place / file).write_text(hide_secrets(text), encoding="utf-8")

    def log_dataset(self, name: str, fingerprint: str, counts: Mapping[str, int]) -> None:
        """Link data to the run as an MLflow dataset input, such as ("mevis/train", fingerprint, {"videos": 12})."""
        with mlflow_errors(self._config):
            record_dataset(self._client, self.run_id, name, fingerprint, counts)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        with mlflow_errors(self._config):
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, value)

    def finish(self, status: str = "FINISHED") -> None:
        """Deliver the waiting metrics and end the run: FINISHED, FAILED or KILLED.

        Raises TrainingError where records could not be delivered: how many, and why.
        """
        left, models = self._delivery.close(), self._checkpoints.close()
        if models.count:
            # The metrics weigh more; an evaluation makes up for a checkpoint that is not there.
            print(f"{models.count} checkpoints are not recorded as models at {place_of(self._config)} ({models.error})")
        if left.count:
            kept = f"; {self._metrics.file} has them" if self._metrics else ""
            raise TrainingError(
                f"{left.count} metric records of run {self.run_id} did not reach MLflow at {place_of(self._config)} "
                f"({left.error}){kept}; the checkpoints are not touched by this"
            ) from left.error
        with mlflow_errors(self._config):
            self._client.set_terminated(self.run_id, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish("KILLED" if self.stopped else "FINISHED")
            return
        try:
            self.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        except TrainingError as second:
            # The first error is the cause and must be the one that is seen.
            error.add_note(str(second))

    def _send_checkpoints(self, batch: list[tuple[str, str, int]]) -> None:
        for name, path, step in batch:
            logged_model(self._client, self.run_id, name, path, step)

    def _send(self, batch: "list[Metric]") -> None:
        # The store drops a record with the same run, name, time, step and value: sending again doubles nothing.
        self._client.log_batch(self.run_id, metrics=batch)


def flatten(params: object, prefix: str = "") -> dict[str, str]:
    """Nested dataclasses and mappings -> {"optimizer.learning_rate": "0.0003"}.

    Sequences become JSON, and so do mappings whose keys MLflow would not take as names (patterns, say).
    """
    if is_dataclass(params) and not isinstance(params, type):
        params = asdict(params)
    if isinstance(params, Mapping):
        if not all(NAME_PATTERN.fullmatch(str(key)) for key in params):
            return {prefix: json.dumps(params, default=str, ensure_ascii=False)}
        found: dict[str, str] = {}
        for key, value in params.items():
            found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(params, (list, tuple)):
        return {prefix: json.dumps(params, default=str, ensure_ascii=False)}
    return {prefix: str(params)}
