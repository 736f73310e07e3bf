"""Runs, metrics and artifacts in MLflow: the only file that knows MLflow, imported where a function needs it.

Only rank 0 talks. Metrics go out from a background thread (delivery.py), everything else at once.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from glus.training.code_version import code_version
from glus.training.delivery import Delivery
from glus.training.errors import TrainingError

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

#: Set before MLflow is imported, where the person has not: two quick tries instead of minutes, no pages of migrations.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
REACH_TIMEOUT_S = 5.0
NAME_PATTERN = re.compile(r"[A-Za-z0-9_\-. /:]+")  # what MLflow takes as the name of a metric or parameter
LONGEST_PARAMETER = 6000
LONGEST_DIGEST = 36
PARAMETERS_A_CALL = 100


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded."""

    uri: str = "sqlite:///build/mlflow.db"
    """A SQLite file (sqlite:///relative.db, sqlite:////absolute.db) or an MLflow server (http://host:5000)."""
    experiment: str = "glus"
    """The MLflow experiment that holds the runs."""


@dataclass(frozen=True)
class RunRecord:
    """One recorded run. `metrics` holds each metric's last value, `history` all of them as (step, value) in order."""

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    history: dict[str, tuple[tuple[int, float], ...]]


class Tracker:
    """One MLflow run for one training, kept across restarts by its `run_id`.

    As a context manager it ends the run: FINISHED, FAILED on an exception, KILLED on an interrupt.
    """

    def __init__(self, config: TrackingConfig, client: "MlflowClient", run_id: str) -> None:
        self.run_id = run_id
        self._config = config
        self._client = client
        self._delivery: Delivery[Metric] = Delivery(self._send)

    @classmethod
    def start(
        cls,
        config: TrackingConfig,
        run_name: str,
        params: object,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> Self:
        """Starts a run, or goes on with `run_id`. `params` is the resolved config: a dataclass or nested mappings.

        A parameter of a run cannot change in MLflow: one that differs on restart is recorded as the tag "changed.NAME".
        Raises TrainingError where MLflow cannot be reached or the run does not exist.
        """
        client = _client(config, create=True)
        everything = dict(tags or {}) | code_version()
        with _told(config):
            if run_id is None:
                run = client.create_run(_experiment_id(client, config, create=True), run_name=run_name)
            else:
                run = client.get_run(run_id)
                client.update_run(run_id, status="RUNNING", name=run_name)
            _record_parameters(client, run, flatten(params), everything)
        return cls(config, client, run.info.run_id)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records values at a step. Returns at once; raises TrainingError only for a name that MLflow refuses."""
        self._delivery.put(_metrics(values, step))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copies a file or a folder to the run's artifacts, below `folder`."""
        if not path.exists():
            raise TrainingError(f"{path}: no such file to record with run {self.run_id}")
        with _told(self._config):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder or None)
            else:
                self._client.log_artifact(self.run_id, str(path), folder or None)

    def log_text(self, text: str, file: str) -> None:
        """Writes a text as artifact `file`, such as the resolved config as "config.yaml"."""
        with _told(self._config):
            self._client.log_text(self.run_id, text, file)

    def log_dataset(self, name: str, fingerprint: str, counts: Mapping[str, int]) -> None:
        """Links data to the run as an MLflow dataset input, such as ("mevis/train", fingerprint, {"videos": 12})."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=fingerprint[:LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"name": name, "fingerprint": fingerprint}),
            profile=json.dumps(dict(counts)),
        )
        tags = [InputTag(key="mlflow.data.context", value="training")]
        with _told(self._config):
            self._client.log_inputs(self.run_id, [DatasetInput(dataset=dataset, tags=tags)])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        with _told(self._config):
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, value)

    def finish(self, status: str = "FINISHED") -> None:
        """Delivers the waiting metrics and ends the run: FINISHED, FAILED or KILLED.

        Raises TrainingError where records could not be delivered: how many, and why.
        """
        left = self._delivery.close()
        if left.count:
            raise TrainingError(
                f"{left.count} metric records of run {self.run_id} did not reach MLflow at {_shown(self._config.uri)} "
                f"({left.error}); the checkpoints are not touched by this"
            ) from left.error
        with _told(self._config):
            self._client.set_terminated(self.run_id, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        try:
            self.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        except TrainingError as second:
            # The first error is the cause and must be the one that is seen.
            error.add_note(str(second))

    def _send(self, batch: "list[Metric]") -> None:
        # The store drops a record with the same run, name, time, step and value: sending again doubles nothing.
        self._client.log_batch(self.run_id, metrics=batch)


def find_runs(config: TrackingConfig, names: Sequence[str] = ()) -> list[RunRecord]:
    """The runs with these names or ids, in this order; without names all runs of the experiment, oldest first.

    Raises TrainingError for a name that no run has (with the names there are) or that several have (with their ids).
    """
    client = _client(config, create=False)
    with _told(config):
        experiment = _experiment_id(client, config, create=False)
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = client.search_runs([experiment], order_by=["attributes.start_time ASC"], page_token=token)
            runs.extend(page)
            token = page.token
            if not token:
                break
        chosen = [_the_run(runs, name, config) for name in names] if names else runs
        return [_run_record(client, run) for run in chosen]


def log_figures(config: TrackingConfig, run_id: str, figures: Mapping[str, float], step: int = 0) -> None:
    """Records benchmark figures with a run that may have ended, such as {"mevis/valid_u/j_and_f": 50.3}."""
    client = _client(config, create=False)
    with _told(config):
        client.log_batch(run_id, metrics=_metrics(figures, step))


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


def _record_parameters(client: "MlflowClient", run: "Run", params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    from mlflow.entities import Param, RunTag

    known: dict[str, str] = run.data.params
    kept = {_checked_name(name): _short(value) for name, value in params.items()}
    changed = {f"changed.{name}": value for name, value in kept.items() if known.get(name, value) != value}
    new = [Param(name, value) for name, value in kept.items() if name not in known]
    for first in range(0, len(new), PARAMETERS_A_CALL):
        client.log_batch(run.info.run_id, params=new[first : first + PARAMETERS_A_CALL])
    client.log_batch(run.info.run_id, tags=[RunTag(key, str(value)) for key, value in (dict(tags) | changed).items()])


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_PARAMETER else value[: LONGEST_PARAMETER - 3] + "..."


def _metrics(values: Mapping[str, float], step: int) -> "list[Metric]":
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(_checked_name(name), float(value), now_ms, step) for name, value in values.items()]


def _checked_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise TrainingError(
            f"{name!r} cannot be the name of a metric or parameter: MLflow takes letters, digits, blanks and _-.:/"
        )
    return name


def _the_run(runs: "Sequence[Run]", name: str, config: TrackingConfig) -> "Run":
    found = [run for run in runs if name in (run.info.run_id, run.info.run_name)]
    if len(found) == 1:
        return found[0]
    where = f"in experiment {config.experiment!r} of {_shown(config.uri)}"
    if found:
        ids = ", ".join(run.info.run_id for run in found)
        raise TrainingError(f"{len(found)} runs are named {name!r} {where}; say which by its id: {ids}")
    there = ", ".join(sorted({run.info.run_name for run in runs})) or "none yet"
    raise TrainingError(f"no run is named {name!r} {where}; the runs are: {there}")


def _run_record(client: "MlflowClient", run: "Run") -> RunRecord:
    history = {
        name: tuple((point.step, point.value) for point in _in_order(client.get_metric_history(run.info.run_id, name)))
        for name in run.data.metrics
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


def _in_order(points: "Sequence[Metric]") -> "list[Metric]":
    return sorted(points, key=lambda point: (point.step, point.timestamp))


def _client(config: TrackingConfig, create: bool) -> "MlflowClient":
    """A client of a place that was found to answer. `create`: an absent SQLite file is made."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    parts = urlsplit(config.uri)
    if parts.scheme == "sqlite":
        file = _sqlite_file(config)
        if create:
            with _told(config):
                file.parent.mkdir(parents=True, exist_ok=True)
        elif not file.is_file():
            raise TrainingError(
                f"{file}: no such MLflow file (tracking.uri={config.uri}); nothing was recorded there yet"
            )
    elif parts.scheme in ("http", "https") and parts.netloc:
        _check_server(config)
    else:
        raise TrainingError(
            f"tracking.uri={_shown(config.uri)!r} is no place for MLflow records; "
            "write sqlite:///FILE.db or the address of an MLflow server, http://HOST:PORT"
        )
    from mlflow.tracking import MlflowClient

    with _told(config):
        return MlflowClient(config.uri)


def _sqlite_file(config: TrackingConfig) -> Path:
    """sqlite:///relative/file.db and sqlite:////absolute/file.db, as SQLAlchemy reads them."""
    parts = urlsplit(config.uri)
    name = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not name:
        raise TrainingError(
            f"tracking.uri={config.uri!r} names no file; write sqlite:///relative.db or sqlite:////absolute.db"
        )
    return Path(name)


def _check_server(config: TrackingConfig) -> None:
    """MLflow's own client would retry for minutes before it tells that nobody is there."""
    import requests

    shown = _shown(config.uri)
    advice = "start the server, mend tracking.uri, or record into a file with tracking.uri=sqlite:///build/mlflow.db"
    try:
        answer = requests.get(f"{config.uri.rstrip('/')}/health", timeout=REACH_TIMEOUT_S)
    except requests.RequestException as error:
        reason = "no answer in time" if isinstance(error, requests.Timeout) else type(error).__name__
        raise TrainingError(f"no MLflow server can be reached at {shown} ({reason}); {advice}") from error
    if answer.status_code != requests.codes.ok or answer.text.strip().strip('"') != "OK":
        raise TrainingError(
            f"{shown} answers, but not as an MLflow server does (status {answer.status_code} at /health); {advice}"
        )


def _experiment_id(client: "MlflowClient", config: TrackingConfig, create: bool) -> str:
    experiment = client.get_experiment_by_name(config.experiment)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            raise TrainingError(
                f"experiment {config.experiment!r} was deleted in {_shown(config.uri)}; restore it or choose another "
                "tracking.experiment"
            )
        return str(experiment.experiment_id)
    if not create:
        raise TrainingError(f"no experiment {config.experiment!r} in {_shown(config.uri)}; see tracking.experiment")
    location = None
    if urlsplit(config.uri).scheme == "sqlite":
        # MLflow's default would be ./mlruns of whatever folder the command was started in.
        location = (_sqlite_file(config).parent.resolve() / "mlartifacts").as_uri()
    return str(client.create_experiment(config.experiment, artifact_location=location))


@contextmanager
def _told(config: TrackingConfig) -> Iterator[None]:
    """MLflow's errors as one message of ours."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TrainingError(f"MLflow at {_shown(config.uri)}: {reason}") from error


def _shown(uri: str) -> str:
    """The URI without a password, for messages."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}"))
