"""Runs, metrics and artifacts in MLflow: the only file that knows MLflow, imported where a function needs it.

Only rank 0 talks. Metrics go out from a background thread (delivery.py), everything else at once.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from glus.training.code_version import code_version
from glus.training.delivery import Delivery
from glus.training.errors import TrainingError
from glus.training.logged_models import FIGURE, logged_model, mark_best
from glus.training.record_names import checked_name, shortened
from glus.training.record_names import flatten as flatten
from glus.training.tracking_place import TrackingConfig as TrackingConfig
from glus.training.tracking_place import check_place, shown, sqlite_file

if TYPE_CHECKING:
    # Others take the types from here (recorded_runs.py).
    from mlflow.entities import Metric as Metric
    from mlflow.entities import Run as Run
    from mlflow.tracking import MlflowClient as MlflowClient

#: Set before MLflow is imported, where the person has not: two quick tries instead of minutes, no pages of migrations.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
LONGEST_DIGEST = 36
PARAMETERS_A_CALL = 100
#: Parameters (or their beginnings) that change no figure: how a run is kept, not what it is.
NOT_OF_FIGURES = ("ranks", "workers", "log_every", "checkpoint_", "keep.", "hang_minutes")


#: A metric record that waits: name, value, milliseconds since the epoch, step.
Unsent = tuple[str, float, int, int]


class Tracker:
    """One MLflow run for one training, kept across restarts by its `run_id`.

    As a context manager it ends the run: FINISHED, FAILED on an exception, KILLED on an interrupt or where `stopped`
    says that it ends before its last step.
    """

    def __init__(
        self, config: TrackingConfig, client: "MlflowClient", run_id: str, recorded: frozenset[tuple[str, int]]
    ) -> None:
        self.run_id = run_id
        self.stopped = False
        self._config = config
        self._client = client
        self._recorded = recorded
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
        unsent: Sequence[Unsent] = (),
    ) -> Self:
        """Starts a run, or goes on with `run_id`. `params` is the resolved config: a dataclass or nested mappings.

        A parameter of a run cannot change in MLflow: one that differs on restart is recorded as the tag "changed.NAME".
        Steps that are taken again after a restart are not recorded twice, unless a parameter changed. `unsent` is what
        a checkpoint kept of records that were not delivered when it was written.
        Raises TrainingError where MLflow cannot be reached or the run does not exist.
        """
        client = client_of(config, create=True)
        everything = dict(tags or {}) | code_version()
        with told(config):
            if run_id is None:
                run = client.create_run(experiment_id(client, config, create=True), run_name=run_name)
            else:
                run = client.get_run(run_id)
                client.update_run(run_id, status="RUNNING", name=run_name)
            same = _record_parameters(client, run, flatten(params), everything)
            recorded = _recorded(client, run) if run_id else frozenset()
        tracker = cls(config, client, run.info.run_id, recorded if same else frozenset())
        tracker._delivery.put(_metric(each) for each in unsent if (each[0], each[3]) not in recorded)
        return tracker

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records values at a step. Returns at once; raises TrainingError only for a name that MLflow refuses."""
        new = {name: value for name, value in values.items() if (name, step) not in self._recorded}
        self._delivery.put(_metrics(new, step))

    def log_checkpoint(self, path: Path, step: int) -> None:
        """Records a checkpoint as a LoggedModel of the run, once however often it is told. Returns at once."""
        self._checkpoints.put([(path.name, str(path.resolve()), step)])

    def unsent(self) -> list[Unsent]:
        """Records that have not reached MLflow yet, for a checkpoint: (name, value, milliseconds, step)."""
        return [(each.key, each.value, each.timestamp, each.step) for each in self._delivery.waiting()]

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copies a file or a folder to the run's artifacts, below `folder`."""
        if not path.exists():
            raise TrainingError(f"{path}: no such file to record with run {self.run_id}")
        with told(self._config):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder or None)
            else:
                self._client.log_artifact(self.run_id, str(path), folder or None)

    def log_text(self, text: str, file: str) -> None:
        """Writes a text as artifact `file`, such as the resolved config as "config.yaml"."""
        with told(self._config):
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
        with told(self._config):
            self._client.log_inputs(self.run_id, [DatasetInput(dataset=dataset, tags=tags)])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        with told(self._config):
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, value)

    def finish(self, status: str = "FINISHED") -> None:
        """Delivers the waiting metrics and ends the run: FINISHED, FAILED or KILLED.

        Raises TrainingError where records could not be delivered: how many, and why.
        """
        left, models = self._delivery.close(), self._checkpoints.close()
        if models.count:
            # The metrics weigh more; an evaluation makes up for a checkpoint that is not there.
            print(
                f"{models.count} checkpoints are not recorded as models at {shown(self._config.uri)} ({models.error})"
            )
        if left.count:
            raise TrainingError(
                f"{left.count} metric records of run {self.run_id} did not reach MLflow at {shown(self._config.uri)} "
                f"({left.error}); the checkpoints are not touched by this"
            ) from left.error
        with told(self._config):
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
    """Tells the place and its experiment. Raises TrainingError where it cannot be reached or written."""
    client = client_of(config, create=True)
    with told(config):
        experiment_id(client, config, create=True)
    return f"{shown(config.uri)}, experiment {config.experiment}"


def log_figures(
    config: TrackingConfig, run_id: str, figures: Mapping[str, float], step: int = 0, model_id: str | None = None
) -> None:
    """Records benchmark figures with a run that may have ended, such as {"mevis/valid_u/j_and_f": 50.3}.

    With `model_id`, of a LoggedModel, they are linked to it as well.
    """
    client = client_of(config, create=False)
    with told(config):
        client.log_batch(run_id, metrics=_metrics(figures, step, model_id))


def log_evaluation(
    config: TrackingConfig,
    run_id: str,
    figures: Mapping[str, float],
    step: int,
    checkpoint: str,
    tags: Mapping[str, str],
    files: Sequence[Path],
) -> None:
    """Records the figures of one checkpoint with the run that made it, which may have ended.

    Figures go to the checkpoint's `step`, `files` to the artifacts below evaluation/CHECKPOINT, `tags` to the run's
    tags as "evaluation.CHECKPOINT.NAME": a later evaluation of another checkpoint leaves these as they are. They are
    linked to the checkpoint's LoggedModel; that of the highest overall J&F has the alias "best" (logged_models.py).
    """
    client = client_of(config, create=False)
    with told(config):
        model_id = logged_model(client, run_id, checkpoint, "", step)
    log_figures(config, run_id, figures, step, model_id)
    with told(config):
        if FIGURE in figures and not figures.get("eval/partial"):
            mark_best(client, config.experiment, run_id, model_id, figures[FIGURE])
        for name, value in tags.items():
            client.set_tag(run_id, checked_name(f"evaluation.{checkpoint}.{name}"), value)
        for file in files:
            client.log_artifact(run_id, str(file), f"evaluation/{checkpoint}")


def _record_parameters(client: "MlflowClient", run: "Run", params: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Records them; whether those that figures depend on are as they were when the run went on last."""
    from mlflow.entities import Param, RunTag

    known: dict[str, str] = run.data.params
    kept = {checked_name(name): shortened(value) for name, value in params.items()}
    last = {name: run.data.tags.get(f"changed.{name}", value) for name, value in known.items()}
    changed = {f"changed.{name}": value for name, value in kept.items() if last.get(name, value) != value}
    new = [Param(name, value) for name, value in kept.items() if name not in known]
    for first in range(0, len(new), PARAMETERS_A_CALL):
        client.log_batch(run.info.run_id, params=new[first : first + PARAMETERS_A_CALL])
    client.log_batch(run.info.run_id, tags=[RunTag(key, str(value)) for key, value in (dict(tags) | changed).items()])
    return all(name.removeprefix("changed.").startswith(NOT_OF_FIGURES) for name in changed)


def _recorded(client: "MlflowClient", run: "Run") -> frozenset[tuple[str, int]]:
    """(name, step) of all that is recorded."""
    return frozenset(
        (name, point.step) for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name)
    )


def _metrics(values: Mapping[str, float], step: int, model_id: str | None = None) -> "list[Metric]":
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(checked_name(name), float(value), now_ms, step, model_id=model_id) for name, value in values.items()]


def _metric(unsent: Unsent) -> "Metric":
    """A record that was kept, as MLflow's."""
    from mlflow.entities import Metric

    name, value, timestamp, step = unsent
    return Metric(checked_name(name), value, timestamp, step)


def client_of(config: TrackingConfig, create: bool) -> "MlflowClient":
    """A client of a place that was found to answer. `create`: an absent SQLite file is made."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    file = check_place(config)
    if file and create:
        with told(config):
            file.parent.mkdir(parents=True, exist_ok=True)
    elif file and not file.is_file():
        raise TrainingError(f"{file}: no such MLflow file (tracking.uri={config.uri}); nothing was recorded there yet")
    from mlflow.tracking import MlflowClient

    with told(config):
        return MlflowClient(config.uri)


def experiment_id(client: "MlflowClient", config: TrackingConfig, create: bool) -> str:
    """Its id. `create`: an experiment that is absent is made. Raises TrainingError for a deleted or an absent one."""
    experiment = client.get_experiment_by_name(config.experiment)
    if experiment is not None:
        if experiment.lifecycle_stage == "deleted":
            raise TrainingError(
                f"experiment {config.experiment!r} was deleted in {shown(config.uri)}; restore it or choose another "
                "tracking.experiment"
            )
        return str(experiment.experiment_id)
    if not create:
        raise TrainingError(f"no experiment {config.experiment!r} in {shown(config.uri)}; see tracking.experiment")
    location = None
    if urlsplit(config.uri).scheme == "sqlite":
        # MLflow's default would be ./mlruns of whatever folder the command was started in.
        location = (sqlite_file(config).parent.resolve() / "mlartifacts").as_uri()
    return str(client.create_experiment(config.experiment, artifact_location=location))


@contextmanager
def told(config: TrackingConfig) -> Iterator[None]:
    """MLflow's errors as one message of ours."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TrainingError(f"MLflow at {shown(config.uri)}: {reason}") from error
