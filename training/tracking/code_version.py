"""The code version of a run or a checkpoint."""

import contextlib
import getpass
import os
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path


def source_tags(command: str, version: Mapping[str, str]) -> dict[str, str]:
    """MLflow's own tags for its columns Source and Version: the command, who started it, the commit."""
    tags = {"mlflow.source.name": command, "mlflow.source.type": "JOB" if "SLURM_JOB_ID" in os.environ else "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # a user id without a name, as in containers
        tags["mlflow.user"] = getpass.getuser()
    if version.get("code.commit"):
        tags["mlflow.source.git.commit"] = version["code.commit"]
    return tags


def code_version() -> dict[str, str]:
    """Tags: "code.version" always; in a git checkout also "code.commit" and "code.dirty" ("true" or "false").

    Uncommitted changes of tracked files count as dirty; build outputs and data next to the code do not.
    """
    version = {"code.version": _installed_version()}
    folder = Path(__file__).resolve().parents[2]
    commit = _git(folder, "rev-parse", "HEAD")
    # An installed wheel inside somebody else's checkout must not report that one's commit.
    ours = _git(folder, "ls-files", "training/tracking/code_version.py")
    if commit and ours:
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
        version |= {"code.commit": commit, "code.dirty": "true" if changes else "false"}
    return version


def _installed_version() -> str:
    try:
        return metadata.version("glus")
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str:
    """The answer of git, or "" where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
