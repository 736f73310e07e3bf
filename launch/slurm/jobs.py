"""`glus jobs [FOLDER ...]`: what was submitted from there, where it stands, and the MLflow run it belongs to."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from glus.common.errors import LaunchError
from glus.common.json_file import parsed_as, read_object
from glus.common.paths import PathText
from glus.common.terminal import cells
from glus.launch.slurm.cluster import outside_of_jobs
from glus.launch.slurm.sbatch import JOB, JOBS
from glus.training.checkpoints import checkpoint
from glus.training.stopping.stopping import read_stopped
from glus.training.tracking.run_record import run_of_folder

#: SLURM forgets a job some minutes after its end (MinJobAge).
FORGOTTEN = "ended"
#: The year 5138, in seconds: datetime refuses what lies far behind it.
LATEST = 1e11


@dataclass(frozen=True)
class _Note:
    """What job.json says of a submitted job."""

    job: str
    what: str
    submitted: float
    nodes: int
    steps: int | None = None


@dataclass(frozen=True)
class JobsConfig:
    """Where to look."""

    folders: tuple[PathText, ...] = ("build",)
    """Folders of runs, or folders above them."""


@dataclass(frozen=True)
class Submitted:
    """A submitted job: its number, what it is, its state in SLURM's words, its place among steps, its MLflow run."""

    number: str
    what: str
    submitted: str
    state: str
    progress: str
    run: str
    folder: Path


def jobs(config: JobsConfig) -> None:
    """Print a line for each job, newest last. Raises LaunchError: nothing was submitted, or SLURM does not answer."""
    found = submitted_jobs([Path(folder) for folder in config.folders])
    if not found:
        raise LaunchError(f"nothing was submitted from {', '.join(config.folders)}: name the folder of a run")
    table = Table("job", "what", "submitted", "state", "progress", "MLflow run", "log in", box=None)
    for job in found:
        table.add_row(*cells((job.number, job.what, job.submitted, job.state, job.progress, job.run, job.folder)))
    console = Console()
    console.width = max(console.width, 160)  # cut, a path or a run's id is of no use
    console.print(table)


def submitted_jobs(folders: Sequence[Path]) -> list[Submitted]:
    """Every job below the folders, in the order of submission. Raises LaunchError."""
    files = sorted({file for folder in folders for file in folder.rglob(f"{JOBS}/*/{JOB}")})
    notes = sorted(((_note(file), file.parent) for file in files), key=lambda pair: (pair[0].submitted, pair[1]))
    states = _states([note.job for note, _ in notes]) if notes else {}
    return [_submitted(note, folder, states) for note, folder in notes]


def _submitted(note: _Note, folder: Path, states: dict[str, str]) -> Submitted:
    run = folder.parents[1]
    return Submitted(
        number=note.job,
        what=note.what + (f", {note.nodes} nodes" if note.nodes > 1 else ""),
        submitted=datetime.fromtimestamp(note.submitted).strftime("%Y-%m-%d %H:%M"),
        state=states.get(note.job, FORGOTTEN),
        progress=_progress(run, note.steps) if note.steps is not None else "",
        run=run_of_folder(run) or "" if note.what != "prepare" else "",
        folder=folder,
    )


def _progress(run: Path, steps: int) -> str:
    newest = next(iter(checkpoint.newest_first(run / "checkpoints")), None)
    stopped = read_stopped(run)
    stop = f" (stopped by {stopped.cause})" if stopped else ""
    return f"step {checkpoint.step_of(newest) if newest else 0} of {steps}{stop}"


def _note(file: Path) -> _Note:
    note = read_object(file, "record of a job", raises=LaunchError, remedy="remove it")
    known = {field.name: note[field.name] for field in fields(_Note) if field.name in note}
    found = parsed_as(known, _Note, str(file), raises=LaunchError, remedy="remove it")
    if not 0 <= found.submitted < LATEST:
        raise LaunchError(f"{file}: submitted is {found.submitted}, no time in seconds since 1970; remove it")
    return found


def _states(numbers: list[str]) -> dict[str, str]:
    """State and reason of each job that SLURM still knows; of an array, how many tasks are in each state."""
    # One that SLURM has forgotten makes squeue fail where it alone is asked for; so all are asked for.
    environment = outside_of_jobs(os.environ)
    words = ["squeue", "--noheader", "--states=all", "--array", "--format=%F|%T|%r"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, env=environment)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise LaunchError(
            f"squeue does not answer ({type(error).__name__}): ask from a machine of the cluster"
        ) from error
    if done.returncode:
        raise LaunchError(f"squeue does not answer: {' '.join(done.stderr.split())}")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        number, state, reason = line.split("|", 2)
        waits = f" ({reason})" if state == "PENDING" and reason != "None" else ""
        found.setdefault(number, []).append(state.lower() + waits)
    return {number: _counted(states) for number, states in found.items() if number in numbers}


def _counted(states: list[str]) -> str:
    if len(states) == 1:
        return states[0]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
