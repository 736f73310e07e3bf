"""Where runs are recorded: the setting, and whether that place can be reached. Knows no MLflow."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from glus.common.paths import PathText
from glus.training.errors import TrainingError

REACH_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded."""

    uri: PathText = "sqlite:///build/mlflow.db"
    """A SQLite file (sqlite:///relative.db, sqlite:////absolute.db) or an MLflow server (http://host:5000)."""
    experiment: str = "glus"
    """The MLflow experiment that holds the runs."""


def check_place(config: TrackingConfig) -> Path | None:
    """The SQLite file, None where it is a server. Raises TrainingError where it is neither or the server is not there.

    Within seconds: MLflow itself is not imported.
    """
    parts = urlsplit(config.uri)
    if parts.scheme == "sqlite":
        return sqlite_file(config)
    if parts.scheme in ("http", "https") and parts.netloc:
        check_server(config)
        return None
    raise TrainingError(
        f"tracking.uri={shown(config.uri)!r} is no place for MLflow records; "
        "write sqlite:///FILE.db or the address of an MLflow server, http://HOST:PORT"
    )


def sqlite_file(config: TrackingConfig) -> Path:
    """The file of sqlite:///relative/file.db and sqlite:////absolute/file.db, as SQLAlchemy reads them."""
    parts = urlsplit(config.uri)
    name = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not name:
        raise TrainingError(
            f"tracking.uri={config.uri!r} names no file; write sqlite:///relative.db or sqlite:////absolute.db"
        )
    return Path(name)


def check_server(config: TrackingConfig) -> None:
    """MLflow's own client would retry for minutes before it tells that nobody is there."""
    import requests

    place = shown(config.uri)
    advice = "start the server, mend tracking.uri, or record into a file with tracking.uri=sqlite:///build/mlflow.db"
    try:
        answer = requests.get(f"{config.uri.rstrip('/')}/health", timeout=REACH_TIMEOUT_S)
    except requests.RequestException as error:
        reason = "no answer in time" if isinstance(error, requests.Timeout) else type(error).__name__
        raise TrainingError(f"no MLflow server can be reached at {place} ({reason}); {advice}") from error
    if answer.status_code != requests.codes.ok or answer.text.strip().strip('"') != "OK":
        raise TrainingError(
            f"{place} answers, but not as an MLflow server does (status {answer.status_code} at /health); {advice}"
        )


def shown(uri: str) -> str:
    """The URI without a password, for messages."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}"))
