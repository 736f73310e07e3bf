"""Runs, metrics and artifacts in MLflow: the only file that imports it, inside the functions that need it.

Rank 0 alone records. Metrics are written to OUT/metrics.jsonl first (metrics_file.py) and sent from a background thread
(delivery.py); a start sends what MLflow has not got. Everything else is sent at once.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from glus.common.errors import TrainingError, first_line
from glus.common.urls import hide_secrets
from glus.training.tracking.artifact_place import FOLDER, artifacts_of, write_artifacts
from glus.training.tracking.code_version import code_version
from glus.training.tracking.delivery import Delivery
from glus.training.tracking.logged_models import logged_model
from glus.training.tracking.metrics_file import MetricsFile, Record
from glus.training.tracking.record_names import checked_name, shortened
from glus.training.tracking.record_names import flatten as flatten
from glus.training.tracking.table_lock import after_others, making_tables
from glus.training.tracking.tracking_place import TrackingConfig as TrackingConfig
from glus.training.tracking.tracking_place import address, check_place, check_sqlite, place_of, sqlite_uri
from glus.training.tracking.tracking_server import ENDPOINT, check_answer

if TYPE_CHECKING:
    # Others take the types from here (recorded_runs.py).
    from mlflow.entities import Metric as Metric
    from mlflow.entities import Run as Run
    from mlflow.tracking import MlflowClient as MlflowClient

#: Set before MLflow is imported, where the user has not: two quick tries instead of minutes, no pages of migrations.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
LONGEST_DIGEST = 36
PARAMETERS_A_CALL = 100
#: Parameters (or their beginnings) that change no metric: how a run is kept, not what it is.
NOT_OF_METRICS = ("ranks", "workers", "log_every", "checkpoint_", "keep.", "hang_minutes", "tracking.")
REACH_TIMEOUT_S = 5.0


class MissingRun(TrainingError):
    """The MLflow run that a training goes on in is not there."""


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
        client, experiment = _opened(config) if run_id is None else (client_of(config), "")
        everything = dict(tags or {}) | code_version()
        run = run_of(client, config, run_id) if run_id else None
        with mlflow_errors(config):
            if run is None:
                run = client.create_run(experiment, run_name=run_name)
            else:
                client.update_run(run.info.run_id, status="RUNNING", name=run_name)
            same = _record_parameters(client, run, flatten(params), everything)
            recorded = _recorded(client, run) if run_id else frozenset()
        tracker = cls(config, client, run.info.run_id, recorded if same else frozenset(), metrics)
        if metrics:
            metrics.begin()
            tracker._delivery.put(_metric(each) for each in metrics.records if (each[0], each[3]) not in recorded)
        return tracker

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record values at a step: in the run's file, and soon in MLflow. Returns at once.

        Raises TrainingError for a name that MLflow refuses, and where the disk is full.
        """
        metrics = metrics_of(values, step)
        if self._metrics and metrics:
            self._metrics.append({each.key: each.value for each in metrics}, metrics[0].timestamp, step)
        self._delivery.put(each for each in metrics if (each.key, step) not in self._recorded)

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
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=fingerprint[:LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"name": name, "fingerprint": fingerprint}),
            profile=json.dumps(dict(counts)),
        )
        tags = [InputTag(key="mlflow.data.context", value="training")]
        with mlflow_errors(self._config):
            self._client.log_inputs(self.run_id, [DatasetInput(dataset=dataset, tags=tags)])

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


def reach(config: TrackingConfig) -> str:
    """The place and its experiment, which is made. Raises TrainingError where it cannot be reached or written."""
    _opened(config)
    return f"{place_of(config)}, experiment {config.experiment}"


def check_reachable(config: TrackingConfig) -> None:
    """Raises TrainingError where the place cannot be used: within seconds, and nothing is made there."""
    file = check_place(config)
    if file is None:
        _check_server(config)
    else:
        check_sqlite(file, write=True)


def _record_parameters(client: "MlflowClient", run: "Run", params: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Record them; returns whether those that metrics depend on are as they were at the last start."""
    from mlflow.entities import Param, RunTag

    known: dict[str, str] = run.data.params
    kept = {checked_name(name): shortened(hide_secrets(value)) for name, value in params.items()}
    last = {name: run.data.tags.get(f"changed.{name}", value) for name, value in known.items()}
    changed = {f"changed.{name}": value for name, value in kept.items() if last.get(name, value) != value}
    new = [Param(name, value) for name, value in kept.items() if name not in known]
    for first in range(0, len(new), PARAMETERS_A_CALL):
        client.log_batch(run.info.run_id, params=new[first : first + PARAMETERS_A_CALL])
    client.log_batch(
        run.info.run_id, tags=[RunTag(key, hide_secrets(str(value))) for key, value in (dict(tags) | changed).items()]
    )
    return all(name.removeprefix("changed.").startswith(NOT_OF_METRICS) for name in changed)


def _recorded(client: "MlflowClient", run: "Run") -> frozenset[tuple[str, int]]:
    """(name, step) of all that is recorded."""
    return frozenset(
        (name, point.step) for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)
    )


def metrics_of(values: Mapping[str, float], step: int, model_id: str | None = None) -> "list[Metric]":
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(checked_name(name), float(value), now_ms, step, model_id=model_id) for name, value in values.items()]


def _metric(record: Record) -> "Metric":
    """Convert a record of the run's file."""
    from mlflow.entities import Metric

    name, value, timestamp, step = record
    return Metric(checked_name(name), value, timestamp, step)


def client_of(config: TrackingConfig) -> "MlflowClient":
    """A client of a place that is there and answers. Raises MissingRun without a file, TrainingError otherwise."""
    file = check_place(config)
    if file is not None and not file.is_file():
        raise MissingRun(
            f"{file}: no such MLflow file (tracking.uri={address(config)}); nothing was recorded there yet"
        )
    check_reachable(config)
    return _client(config, file)


def _client(config: TrackingConfig, file: Path | None) -> "MlflowClient":
    _set_environment()
    from mlflow.tracking import MlflowClient

    with mlflow_errors(config):
        return MlflowClient(address(config) if file is None else sqlite_uri(file))


def _set_environment() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _opened(config: TrackingConfig) -> "tuple[MlflowClient, str]":
    """A client, and the experiment's id; an absent SQLite file and an absent experiment are made."""
    file = check_place(config)
    with nullcontext() if file is None else making_tables(file):
        check_reachable(config)
        client = after_others(lambda: _client(config, file))
        return client, experiment_id(client, config, create=True)


def run_of(client: "MlflowClient", config: TrackingConfig, run_id: str) -> "Run":
    """A run that can be recorded with. Raises MissingRun where it is not there or was deleted."""
    from mlflow.exceptions import MlflowException

    place = place_of(config)
    with mlflow_errors(config):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise MissingRun(f"MLflow at {place}: run {run_id} not found") from error
    if run.info.lifecycle_stage == "deleted":
        raise MissingRun(f"MLflow at {place}: run {run_id} was deleted (`mlflow runs restore` brings it back)")
    return run


def experiment_id(client: "MlflowClient", config: TrackingConfig, create: bool) -> str:
    """Its id. `create`: an experiment that is absent is made. Raises TrainingError for a deleted or an absent one."""
    place = place_of(config)
    with mlflow_errors(config):
        experiment = client.get_experiment_by_name(config.experiment)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            raise TrainingError(
                f"experiment {config.experiment!r} was deleted in {place}; restore it or choose another "
                "tracking.experiment"
            )
        return str(experiment.experiment_id)
    if not create:
        raise TrainingError(f"no experiment {config.experiment!r} in {place}; see tracking.experiment")
    file = check_place(config)
    # MLflow's default would be ./mlruns of whatever folder the command was started in.
    location = None if file is None else (file.parent.resolve() / FOLDER).as_uri()
    try:
        with mlflow_errors(config):
            return str(client.create_experiment(config.experiment, artifact_location=location))
    except TrainingError:
        # Another run that began at the same time has made it.
        with mlflow_errors(config):
            if client.get_experiment_by_name(config.experiment) is None:
                raise
        return experiment_id(client, config, create=False)


def _check_server(config: TrackingConfig) -> None:
    """Send a request as MLflow's client does (user, token, certificates, prefix), once, with a timeout of seconds."""
    _set_environment()
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    check_answer(
        place_of(config),
        lambda: http_request(
            get_default_host_creds(address(config)),
            ENDPOINT,
            "GET",
            max_retries=0,
            retry_codes=(),
            raise_on_status=False,
            timeout=REACH_TIMEOUT_S,
            params={"experiment_name": config.experiment},
        ),
    )


@contextmanager
def mlflow_errors(config: TrackingConfig) -> Iterator[None]:
    """Raise MLflow's errors as TrainingError with one line."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        raise TrainingError(f"MLflow at {place_of(config)}: {hide_secrets(first_line(error))}") from error
