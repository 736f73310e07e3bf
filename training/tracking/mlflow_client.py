"""Talk to MLflow: a client, an experiment, a run and what it records, and every failure as one clear message.

No other file imports MLflow, and this one where a function needs it.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from glus.common.errors import TrainingError, first_line
from glus.common.imports import quick_imports
from glus.common.urls import hide_secrets
from glus.training.tracking.artifact_place import FOLDER
from glus.training.tracking.metric_groups import plain_name, shown_name
from glus.training.tracking.metrics_file import Record, checked_name
from glus.training.tracking.tracking_place import (
    TrackingConfig,
    address,
    check_place,
    check_sqlite,
    place_of,
    sqlite_uri,
)

if TYPE_CHECKING:
    import requests
    from mlflow.entities import Metric as Metric
    from mlflow.entities import Run as Run
    from mlflow.tracking import MlflowClient as MlflowClient

LONGEST_DIGEST, LONGEST_PARAMETER = 36, 6000
PARAMETERS_A_CALL = 100
#: Parameters (or their beginnings) that change no metric: how a run is kept, not what it is.
NOT_OF_METRICS = ("ranks", "workers", "log_every", "checkpoint_", "keep.", "hang_minutes", "tracking.")

#: What a training's experiment is. MLflow 3.17 records it, and opens its page as one of prompts all the same.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
#: An experiment's page for trainings, below the server's address, by its id. The list of experiments does not hand its
#: own workflowType on.
TRAINING_PAGE = "/#/experiments/{}/runs?workflowType=machine_learning"

#: Set before MLflow is imported, where the user has not: two quick tries instead of minutes, no pages of migrations.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
REACH_TIMEOUT_S = 5.0
#: Asked for with the experiment's name: proxies that hide /health pass it, and it needs the user's rights.
_ENDPOINT = "/api/2.0/mlflow/experiments/get-by-name"
_ADVICE = "start the server, correct tracking.uri, or record into a file with tracking.uri=sqlite:///build/mlflow.db"

Made = TypeVar("Made")

#: How long a start waits for another that makes the tables: seconds on most machines, a minute on a busy one.
_LOCK_WAIT_S = 180.0
_TRIES = 5


class MissingRun(TrainingError):
    """The MLflow run that a training continues is not there."""


def reach(config: TrackingConfig) -> str:
    """Make the experiment; returns its place and name. Raises TrainingError where it cannot be reached or written."""
    opened(config)
    return f"{place_of(config)}, experiment {config.experiment}"


def check_reachable(config: TrackingConfig) -> None:
    """Raise TrainingError where the place cannot be used: within seconds, and nothing is made there."""
    file = check_place(config)
    if file is None:
        _check_server(config)
    else:
        check_sqlite(file, write=True)


def client_of(config: TrackingConfig) -> "MlflowClient":
    """Return a client of a place that answers. Raises MissingRun without a file, TrainingError otherwise."""
    file = check_place(config)
    if file is not None and not file.is_file():
        raise MissingRun(
            f"{file}: no such MLflow file (tracking.uri={address(config)}); nothing was recorded there yet"
        )
    check_reachable(config)
    return _client(config, file)


def metrics_of(values: Mapping[str, float], step: int, model_id: str | None = None) -> "list[Metric]":
    """Convert values of a step; `model_id` links them to a LoggedModel. Raises TrainingError for a refused name."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    names = {name: shown_name(checked_name(name)) for name in values}
    return [Metric(names[name], float(value), now_ms, step, model_id=model_id) for name, value in values.items()]


def _client(config: TrackingConfig, file: Path | None) -> "MlflowClient":
    _set_environment()
    with quick_imports():
        from mlflow.tracking import MlflowClient

    with mlflow_errors(config):
        return MlflowClient(address(config) if file is None else sqlite_uri(file))


def _set_environment() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def opened(config: TrackingConfig) -> "tuple[MlflowClient, str]":
    """Return a client and the experiment's id; an absent SQLite file and an absent experiment are made."""
    file = check_place(config)
    with nullcontext() if file is None else _making_tables(file):
        check_reachable(config)
        client = _after_others(lambda: _client(config, file))
        return client, experiment_id(client, config, create=True)


def run_of(client: "MlflowClient", config: TrackingConfig, run_id: str) -> "Run":
    """Return a run that can be recorded with. Raises MissingRun where it is absent or was deleted."""
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


def all_runs(client: "MlflowClient", experiment: str) -> "list[Run]":
    """Return the runs of an experiment, oldest first. Raises MLflow's errors."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], order_by=["attributes.start_time ASC"], page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def has_tags(run: "Run", tags: Mapping[str, str]) -> bool:
    """Whether a run has all these tags."""
    return all(run.data.tags.get(name) == value for name, value in tags.items())


def experiment_id(client: "MlflowClient", config: TrackingConfig, create: bool) -> str:
    """Return its id. With `create` an absent one is made. Raises TrainingError for a deleted or absent one."""
    place = place_of(config)
    with mlflow_errors(config):
        experiment = client.get_experiment_by_name(config.experiment)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            raise TrainingError(
                f"experiment {config.experiment!r} was deleted in {place}; restore it or choose another "
                "tracking.experiment"
            )
        for name, value in EXPERIMENT_TAGS.items():
            if create and name not in experiment.tags:
                with mlflow_errors(config):
                    client.set_experiment_tag(experiment.experiment_id, name, value)
        return str(experiment.experiment_id)
    if not create:
        raise TrainingError(f"no experiment {config.experiment!r} in {place}; see tracking.experiment")
    file = check_place(config)
    # MLflow's default would be ./mlruns of whatever folder the command was started in.
    location = None if file is None else (file.parent.resolve() / FOLDER).as_uri()
    try:
        with mlflow_errors(config):
            return str(client.create_experiment(config.experiment, artifact_location=location, tags=EXPERIMENT_TAGS))
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

    _check_answer(
        place_of(config),
        lambda: http_request(
            get_default_host_creds(address(config)),
            _ENDPOINT,
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


def _check_answer(place: str, ask: "Callable[[], requests.Response]") -> None:
    """Raises TrainingError where a server does not answer as MLflow does; `ask` sends the request to _ENDPOINT."""
    import requests

    try:
        answer = ask()
    except Exception as error:
        raise TrainingError(f"no MLflow server can be reached at {place} ({_reason(error)}); {_ADVICE}") from error
    if answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
        raise TrainingError(
            f"the MLflow server at {place} refuses this user (status {answer.status_code}): set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, as its operator gave them"
        )
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and {"experiment", "error_code"} & set(content):
        return  # an experiment that is not there is made later
    raise TrainingError(
        f"{place} answers, but not as an MLflow server does (status {answer.status_code} at {_ENDPOINT}); {_ADVICE}"
    )


def _reason(error: BaseException) -> str:
    """Say why a server was not reached, in a few words."""
    import requests

    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    # Without a second try urllib3 reports a time-out as a failed connection.
    if any(isinstance(each, requests.Timeout) or "timed out" in str(each) for each in chain):
        return "no answer in time"
    if any(isinstance(each, requests.exceptions.SSLError) for each in chain):
        return (
            "its certificate is not trusted, or ours is missing: MLFLOW_TRACKING_SERVER_CERT_PATH names the "
            "authority's file, MLFLOW_TRACKING_CLIENT_CERT_PATH ours"
        )
    found = next((each for each in chain if isinstance(each, requests.RequestException)), None)
    if found is not None:
        return type(found).__name__
    return hide_secrets(next(iter(str(error).splitlines()), type(error).__name__))


@contextmanager
def _making_tables(file: Path) -> Iterator[None]:
    """Hold .NAME.lock next to a SQLite file: MLflow takes no lock, and all but one process would fail. Waits.

    Raises TrainingError where the folder cannot be made, or too late.
    """
    from filelock import FileLock, Timeout

    lock = file.parent / f".{file.name}.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Who may not write next to a file of somebody else's finds its tables there.
        usable = os.access(file.parent, os.W_OK) and (not lock.exists() or os.access(lock, os.W_OK))
        held = FileLock(lock, timeout=_LOCK_WAIT_S)
        if usable:
            held.acquire()
    except Timeout as error:
        raise TrainingError(
            f"{file}: another process has been making its tables for {_LOCK_WAIT_S:.0f} s: end that one (`fuser -v "
            f"{lock}` names it), or choose another tracking.uri"
        ) from error
    except OSError as error:
        raise TrainingError(f"MLflow at sqlite:///{file}: {error}; choose another tracking.uri") from error
    try:
        yield
    finally:
        held.release()


def _after_others(make: Callable[[], Made]) -> Made:
    """Return what `make` returns; try again where a program without our lock (`mlflow ui`) makes the tables."""
    for tries in range(1, _TRIES):
        try:
            return make()
        except TrainingError as error:
            if "already exists" not in str(error):
                raise
            time.sleep(tries)
    return make()


def record_parameters(client: "MlflowClient", run: "Run", params: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Record them; returns whether those that metrics depend on are as they were at the last start."""
    from mlflow.entities import Param, RunTag

    known: dict[str, str] = run.data.params
    kept = {checked_name(name): _shortened(hide_secrets(value)) for name, value in params.items()}
    last = {name: run.data.tags.get(f"changed.{name}", value) for name, value in known.items()}
    changed = {f"changed.{name}": value for name, value in kept.items() if last.get(name, value) != value}
    new = [Param(name, value) for name, value in kept.items() if name not in known]
    for first in range(0, len(new), PARAMETERS_A_CALL):
        client.log_batch(run.info.run_id, params=new[first : first + PARAMETERS_A_CALL])
    client.log_batch(
        run.info.run_id, tags=[RunTag(key, hide_secrets(str(value))) for key, value in (dict(tags) | changed).items()]
    )
    return all(name.removeprefix("changed.").startswith(NOT_OF_METRICS) for name in changed)


def recorded_points(client: "MlflowClient", run: "Run") -> frozenset[tuple[str, int]]:
    """(plain name, step) of all that is recorded."""
    return frozenset(
        (plain_name(shown), point.step)
        for shown in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, shown)
    )


def metric_of(record: Record) -> "Metric":
    """Convert a record of the run's file."""
    from mlflow.entities import Metric

    name, value, timestamp, step = record
    return Metric(shown_name(checked_name(name)), value, timestamp, step)


def record_dataset(client: "MlflowClient", run_id: str, name: str, fingerprint: str, counts: Mapping[str, int]) -> None:
    """Link data to the run as a dataset input of its training."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=name,
        digest=fingerprint[:LONGEST_DIGEST],
        source_type="local",
        source=json.dumps({"name": name, "fingerprint": fingerprint}),
        profile=json.dumps(dict(counts)),
    )
    tags = [InputTag(key="mlflow.data.context", value="training")]
    client.log_inputs(run_id, [DatasetInput(dataset=dataset, tags=tags)])


def _shortened(value: str) -> str:
    """A value as long as MLflow keeps it."""
    return value if len(value) <= LONGEST_PARAMETER else value[: LONGEST_PARAMETER - 3] + "..."
