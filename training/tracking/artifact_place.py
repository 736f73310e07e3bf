"""Find the folder of a run's artifacts on this machine's disk, also after a move or copy. Imports no MLflow.

MLflow keeps absolute paths: after a move it would make the old folders again.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from glus.common.errors import TrainingError
from glus.training.tracking.tracking_place import TrackingConfig, check_place

#: Next to the SQLite file; experiments that we make keep their artifacts there.
FOLDER = "mlartifacts"


def artifact_folder(database: Path | None, artifact_uri: str, run_id: str) -> Path | None:
    """The folder of a run's artifacts, None where MLflow keeps them elsewhere than on this disk.

    `database` is the SQLite file, None for a server. Where the recorded folder is that of another place, MLARTIFACTS
    next to the database counts.
    """
    parts = urlsplit(artifact_uri)
    if parts.scheme not in ("", "file"):
        return None
    recorded = Path(unquote(parts.path) if parts.scheme else artifact_uri)
    root = recorded.parent.parent
    if database is None or recorded.parts[-2:] != (run_id, "artifacts") or root.name != FOLDER:
        return recorded
    own = database.resolve().parent / FOLDER
    if root.resolve() == own.resolve():
        return recorded
    # The database alone was moved, and the artifacts stayed.
    stayed = recorded.parent.is_dir() or (root.is_dir() and not own.is_dir())
    if stayed and not (own / run_id).is_dir():
        return recorded
    return own / run_id / "artifacts"


def check_writable(folder: Path, run_id: str) -> None:
    """Raises TrainingError where the artifacts of a run could not be written, without writing anything."""
    root = folder.parent.parent
    if not root.is_dir() and not root.parent.is_dir():
        raise TrainingError(
            f"the artifacts of run {run_id} belong into {folder}, and {root.parent} is not there: was it moved? Bring "
            "it back, or link to where it is now"
        )
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise TrainingError(
            f"the artifacts of run {run_id} belong into {folder}, and {there} cannot be written: change its rights"
        )


def artifacts_of(config: TrackingConfig, run: Any) -> Path | None:
    """`artifact_folder` of a run of MLflow's."""
    return artifact_folder(check_place(config), run.info.artifact_uri, run.info.run_id)


def write_artifacts(client: Any, config: TrackingConfig, run_id: str, files: Sequence[Path], folder: str) -> None:
    """Copy files, and the contents of folders, below `folder` of a run's artifacts. Raises OSError and MLflow's errors.

    The client is MLflow's, from tracking.py.
    """
    place = artifacts_of(config, client.get_run(run_id))
    for file in files:
        if place is not None:
            _copy_into(place / folder, file)
        elif file.is_dir():
            client.log_artifacts(run_id, str(file), folder or None)
        else:
            client.log_artifact(run_id, str(file), folder or None)


def read_artifact(client: Any, config: TrackingConfig, run_id: str, file: str, scratch: Path) -> Path | None:
    """Return where `file` of a run's artifacts lies, None where the run has none.

    Where MLflow keeps artifacts elsewhere than on this disk, that is a copy below `scratch`.
    Raises OSError and MLflow's errors.
    """
    place = artifacts_of(config, client.get_run(run_id))
    if place is not None:
        return place / file if (place / file).is_file() else None
    folder = file.rpartition("/")[0]
    if file not in {each.path for each in client.list_artifacts(run_id, folder or None)}:
        return None
    scratch.mkdir(parents=True, exist_ok=True)
    return Path(client.download_artifacts(run_id, file, str(scratch)))


def _copy_into(folder: Path, file: Path) -> None:
    """Copy a file, or the contents of a folder, into a folder of artifacts. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, folder, dirs_exist_ok=True)
    else:
        shutil.copyfile(file, folder / file.name)
