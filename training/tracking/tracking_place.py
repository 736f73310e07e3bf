"""The place where runs are recorded: its setting, its address, and checks of a SQLite file. Imports no MLflow."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from glus.common.errors import TrainingError
from glus.common.paths import PathText
from glus.common.urls import hide_secrets, holds_secret

VARIABLE, DEFAULT = "MLFLOW_TRACKING_URI", "sqlite:///build/mlflow.db"
#: How long a start waits for a SQLite file that another program has locked.
LOCKED_WAIT_S = 15.0


@dataclass(frozen=True)
class TrackingConfig:
    """Where runs are recorded."""

    uri: PathText = ""
    """A SQLite file (sqlite:///relative.db, sqlite:////absolute.db) or an MLflow server (http://host:5000); without
    one, what MLFLOW_TRACKING_URI names, and sqlite:///build/mlflow.db where that is not set. User, password and token
    come from MLflow's variables (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN)."""
    experiment: str = "glus"
    """The MLflow experiment that holds the runs."""
    on_missing_run: Literal["refuse", "new"] = "refuse"
    """When a training resumes and its MLflow run is gone: stop, or record into a new run, whose tag `continues` names
    the old one."""
    tags: dict[str, str] = field(default_factory=dict)
    """Tags of the run in MLflow, such as {study: context, arm: all}: runs are found by them."""

    def __post_init__(self) -> None:
        if holds_secret(self.uri):
            raise TrainingError(
                f"tracking.uri={hide_secrets(self.uri)} holds a user or a secret, which would be written into configs "
                f"and records: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, "
                f"and give {without_user(self.uri)}"
            )


def address(config: TrackingConfig) -> str:
    """The URI that is meant, without user and password; those of MLFLOW_TRACKING_URI go to MLflow's own variables."""
    if config.uri:
        return config.uri
    given = os.environ.get(VARIABLE, "")
    parts = urlsplit(given)
    if parts.username is not None and parts.scheme in ("http", "https"):
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password or ""))
    return given_uri(config) or DEFAULT


def given_uri(config: TrackingConfig) -> str:
    """The URI that the user names, in the config or MLFLOW_TRACKING_URI, without user and password; "" for none."""
    return config.uri or without_user(os.environ.get(VARIABLE, ""))


def without_user(uri: str) -> str:
    """The URI without user and password, and without a secret in its query."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        uri = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return hide_secrets(uri)


def check_place(config: TrackingConfig) -> Path | None:
    """The SQLite file, None for a server. Raises TrainingError where the URI is neither."""
    uri = address(config)
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        return sqlite_file(uri)
    if parts.scheme in ("http", "https") and parts.netloc:
        return None
    raise TrainingError(
        f"tracking.uri={hide_secrets(uri)!r} is no place for MLflow records; "
        "write sqlite:///FILE.db or the address of an MLflow server, http://HOST:PORT"
    )


def sqlite_file(uri: str) -> Path:
    """The file of sqlite:///relative/file.db and sqlite:////absolute/file.db, as SQLAlchemy reads them."""
    rest = uri.partition("://")[2]
    name = unquote(rest.removeprefix("/").partition("?")[0])
    if not rest.startswith("/") or not name or name == ":memory:":
        raise TrainingError(
            f"tracking.uri={uri!r} names no file; write sqlite:///relative.db or sqlite:////absolute.db"
        )
    return Path(name)


def sqlite_uri(file: Path) -> str:
    """The URI of a file, absolute."""
    return f"sqlite:///{quote(str(file.absolute()))}"


def check_sqlite(file: Path, write: bool, wait_s: float = LOCKED_WAIT_S) -> None:
    """Raises TrainingError where a file that is there is no database, cannot be written, or stays locked for `wait_s`.

    MLflow would try again for minutes.
    """
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise TrainingError(f"MLflow at sqlite:///{file}: it is no regular file; choose another tracking.uri")
    place = f"file:{quote(str(file.absolute()))}?mode={'rw' if write else 'ro'}"
    try:
        with closing(sqlite3.connect(place, uri=True, timeout=wait_s, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise TrainingError(
                f"{file} is locked by another program, for more than {wait_s:.0f} s: end that one (`fuser -v {file}` "
                "names it), or choose another tracking.uri"
            ) from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise TrainingError(
                f"{file} cannot be {'written' if write else 'read'} ({error}): change the rights of the file and its "
                "folder, or choose another tracking.uri"
            ) from error
        raise TrainingError(
            f"MLflow at sqlite:///{file}: {error}; restore it, or choose another tracking.uri"
        ) from error


def place_of(config: TrackingConfig) -> str:
    """The place for messages, without a secret."""
    return hide_secrets(address(config))
