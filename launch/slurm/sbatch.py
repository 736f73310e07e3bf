"""Batch files: slurm/NAME.sbatch with the settings of one job in it, and the sbatch command that submits it.

Values go into the file as quoted assignments and to sbatch as words of its own, never through a shell.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glus.common.atomic import write_atomic
from glus.common.errors import LaunchError
from glus.launch.slurm.cluster import outside_of_jobs

#: The line of a file in slurm/ that the settings take the place of.
MARK = "#@ settings: written here by `glus submit`"
#: The line that slurm/start.sh takes the place of.
MARK_START = "#@ start: written here by `glus submit`"
JOB, LOG, LOG_OF_TASK = "job.json", "log.txt", "log-%a.txt"
JOBS = "jobs"


@dataclass(frozen=True)
class Batch:
    """A job before it is submitted: slurm/TEMPLATE.sbatch with its settings, in OUT/jobs/NUMBER-NAME.

    `files` (name -> text) are written next to it, the first is the config. `settings` are variables of the batch file
    (a tuple becomes an array), `exported` those of its environment, `forward` names of the submitter's variables.
    `array` counts the tasks of a job array, 0 for none. `after` are the jobs that must have ended well before.
    """

    template: str
    name: str
    title: str
    out: Path
    nodes: int
    files: Mapping[str, str]
    settings: Mapping[str, str | tuple[str, ...]]
    exported: Mapping[str, str]
    options: tuple[str, ...]
    forward: tuple[str, ...] = ()
    array: int = 0
    after: tuple[str, ...] = ()
    note: Mapping[str, Any] = field(default_factory=dict)
    number: int = 1

    @property
    def folder(self) -> Path:
        """Where the batch file, its config and its log lie."""
        return self.out / JOBS / f"{self.number:03d}-{self.name}"

    @property
    def file(self) -> Path:
        """The batch file."""
        return self.folder / f"{self.template}.sbatch"

    def text(self) -> str:
        """The batch file's text."""
        place = Path(__file__).parents[2] / "slurm" / f"{self.template}.sbatch"
        template = place.read_text(encoding="utf-8")
        for mark in (MARK, MARK_START):
            if template.count(mark) != 1:
                raise LaunchError(
                    f"{place} needs the line {mark!r} once, where settings and first steps go: put it back"
                )
        start = (place.parent / "start.sh").read_text(encoding="utf-8")
        places = {"GLUS_JOB": str(self.folder), "GLUS_CONFIG": str(self.folder / next(iter(self.files)))}
        lines = [f"{name}={_quoted(value)}" for name, value in {**places, **self.settings}.items()]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.exported.items()]
        return template.replace(MARK_START, start.rstrip("\n")).replace(MARK, "\n".join(lines))

    def words(self) -> list[str]:
        """The command that submits it. Raises LaunchError for a folder that SLURM cannot write a log into."""
        log = str(self.folder / LOG)
        if "\\" in log:
            raise LaunchError(
                f"{self.folder}: SLURM takes a backslash in the path of a log for its own; choose another `out`"
            )
        output = log.replace("%", "%%") if not self.array else log.replace("%", "%%").replace(LOG, "log-%a.txt")
        words = ["sbatch", "--parsable", f"--job-name={self.title}", f"--nodes={self.nodes}", f"--output={output}"]
        # Names only: sbatch reads the values from its own environment, whatever they hold.
        words.append(f"--export={','.join(self.forward) or 'NIL'}")
        words += self.options
        if self.array:
            words.append(f"--array=0-{self.array - 1}")
        if self.after:
            words += [f"--dependency=afterok:{':'.join(self.after)}", "--kill-on-invalid-dep=yes"]
        return [*words, str(self.file)]

    def write(self) -> None:
        """Write the batch file and its other files. Raises DataError where it cannot be written."""
        for name, text in self.files.items():
            write_atomic(self.folder / name, text.encode())
        write_atomic(self.file, self.text().encode())

    def submit(self, now: float) -> str:
        """Write the batch file, submit it, record that in job.json; return the job's number. Raises LaunchError."""
        self.write()
        try:
            done = subprocess.run(
                self.words(),
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env=outside_of_jobs(os.environ),
            )
        except FileNotFoundError as error:
            raise LaunchError("no sbatch here: submit from a machine of the cluster, or look with --dry-run") from error
        number = done.stdout.strip().partition(";")[0]
        if done.returncode or not re.fullmatch(r"\d+", number):
            reason = " ".join((done.stderr or done.stdout).split())
            raise LaunchError(f"sbatch refused {self.file}: {reason}")
        note = {"job": number, "what": self.name, "submitted": now, "nodes": self.nodes, "array": self.array}
        note |= {"after": list(self.after), "command": self.words(), **self.note}
        write_atomic(self.folder / JOB, json.dumps(note, indent=1).encode() + b"\n")
        return number


def next_number(out: Path) -> int:
    """Number of the next job of OUT/jobs."""
    numbers = [int(found[1]) for path in (out / JOBS).glob("*") if (found := re.match(r"(\d+)-", path.name))]
    return max(numbers, default=0) + 1


def _quoted(value: str | Sequence[str]) -> str:
    return shlex.quote(value) if isinstance(value, str) else f"({shlex.join(value)})"
