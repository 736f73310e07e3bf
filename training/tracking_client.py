"""MLflow's client, found to answer, and its errors as ours. MLflow is imported where a function needs it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glus.training.errors import TrainingError
from glus.training.tracking_place import TrackingConfig, check_place, shown, sqlite_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: Set before MLflow is imported, where the person has not: two quick tries instead of minutes, no pages of migrations.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


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
