"""Run commands of `glus` in order; skip those that are finished with the same settings on the same input.

OUT/stages.json remembers of each stage what decided its outcome (its words, the files it read, the code), whether it
ended well, its seconds and its peak memory.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from glus.common.atomic import write_atomic
from glus.common.errors import LaunchError
from glus.common.files import is_there, sha256_of
from glus.common.json_file import parsed_as, read_object
from glus.launch.cli import PARENT
from glus.launch.config.yaml_text import read_yaml
from glus.launch.peak_memory import MemoryWatch, Peak

RECORD = "stages.json"
FORMAT = 1
#: Seconds that an interrupted stage has to stop what it started.
GRACE = 30


@dataclass(frozen=True)
class Stage:
    """One command.

    `words` are those after `glus`. `inputs` are files whose content decides the outcome (fingerprints of data,
    checkpoints), `code` the folders of our code that do. `makes` are the files and folders that are there when it ended
    well; they are removed before it runs with other settings.
    """

    name: str
    words: tuple[str, ...]
    makes: tuple[Path, ...]
    inputs: tuple[Path, ...] = ()
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What stages.json holds of a stage. `key` is the digest of `settings`."""

    key: str
    settings: dict[str, Any]
    ended: bool
    seconds: float = 0.0
    peak: Peak = field(default_factory=Peak)


class StageFailed(Exception):
    """A stage ended with an exit code that is not 0; its own message was printed by it."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"stage {name!r} ended with exit code {code}")
        self.name, self.code = name, code

    def report(self, command: str) -> int:
        """Print where `command` stopped and how to go on; return the exit code."""
        print(f"{command}: {self}; the same command goes on from there", file=sys.stderr)
        return self.code


class Stages:
    """Runs stages in order and remembers them in `out`; `done` and `ran` hold those gone through so far.

    What a stage made with other settings is removed, and the stage runs again; with `keep` it is refused instead.
    """

    def __init__(self, out: Path, total: int, keep: bool = False) -> None:
        """Raises LaunchError where the record of earlier runs cannot be read."""
        self.out, self.total, self._keep = out, total, keep
        self.done: dict[str, Done] = {}
        self.ran: list[str] = []
        self._known = _read(out / RECORD)

    def run(self, stage: Stage) -> None:
        """Run the stage unless it is done.

        Raises StageFailed, and LaunchError where its outputs are there but were not made here, or must be kept.
        """
        settings = _settings(stage)
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        known = self._known.get(stage.name)
        heading = f"[{len(self.done) + 1}/{self.total}] {stage.name}"
        if known and known.key == key and known.ended and all(made.exists() for made in stage.makes):
            print(f"{heading}: done before ({known.seconds:.1f} s)", flush=True)
            self.done[stage.name] = known
            return
        self._clear(stage, known, key, settings)
        self._remember(stage.name, Done(key, settings, ended=False))
        print(f"{heading}: glus {' '.join(stage.words)}", flush=True)
        began = time.monotonic()
        with MemoryWatch() as memory:
            code = _run(stage.words)
        seconds = time.monotonic() - began
        if code:
            raise StageFailed(stage.name, code)
        missing = [made for made in stage.makes if not made.exists()]
        if missing:
            raise LaunchError(f"stage {stage.name!r} ended well, but {missing[0]} is not there: report this as a bug")
        done = Done(key, settings, ended=True, seconds=seconds, peak=memory.peak)
        self._remember(stage.name, done)
        self.done[stage.name] = done
        self.ran.append(stage.name)
        print(f"      {seconds:.1f} s, {memory.peak.rss / 1024**3:.1f} GB at most", flush=True)

    def _clear(self, stage: Stage, known: Done | None, key: str, settings: dict[str, Any]) -> None:
        """Outputs of other settings would be taken for these; outputs that nobody remembers are not ours to remove."""
        there = [made for made in stage.makes if made.exists()]
        if known is None and there:
            raise LaunchError(
                f"{there[0]} is there, but {self.out / RECORD} does not know what made it: move it away, or choose "
                "another `out`"
            )
        if known and known.key != key:
            if there and self._keep:
                changed = [name for name in settings if settings[name] != known.settings.get(name)]
                raise LaunchError(
                    f"{there[0]} was made with other settings ({', '.join(changed) or 'format'}; {self.out / RECORD} "
                    f"has them under {stage.name!r}): choose another `out`, or remove that folder to make it again"
                )
            for made in there:
                shutil.rmtree(made) if made.is_dir() else made.unlink()

    def _remember(self, name: str, done: Done) -> None:
        self._known[name] = done
        record = {"format": FORMAT, "stages": {name: asdict(each) for name, each in self._known.items()}}
        write_atomic(self.out / RECORD, json.dumps(record, indent=1).encode() + b"\n")


def with_terminate_as_interrupt() -> None:
    """Let SIGTERM end this process as an interrupt does, so that it stops its stage."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def checkpoint_files(run: Path) -> tuple[Path, ...]:
    """Files that identify the latest checkpoint of a run folder. Raises TrainingError where there is none."""
    from glus.training.checkpoints import checkpoint

    folder = checkpoint.resolve(run)
    return folder / checkpoint.WEIGHTS, folder / checkpoint.RUN


def code_fingerprint(folder: str) -> str:
    """SHA-256 over the Python sources of one of our folders."""
    top = Path(__file__).parents[1] / folder
    digest = hashlib.sha256()
    for file in sorted(top.rglob("*.py")):
        digest.update(f"{file.relative_to(top).as_posix()} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _settings(stage: Stage) -> dict[str, Any]:
    """All that decides the outcome. A config file counts by what it says, not by its comments."""
    configs = {word: read_yaml(Path(word)) for word in stage.words if _is_config(word)}
    return {
        "words": list(stage.words),
        "configs": configs,
        "inputs": {str(path): sha256_of(path) for path in stage.inputs},
        "code": {folder: code_fingerprint(folder) for folder in stage.code},
    }


def _is_config(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) and "=" not in word


def _run(words: Sequence[str]) -> int:
    """Exit code of `glus WORDS` in a process of its own, on this terminal."""
    # Where this process is killed, the stage must end: the next start goes on in its folders.
    environment = os.environ | {PARENT: str(os.getpid())}
    # -P: a bare `training` in the current folder would hide the one that sam2 brings.
    process = subprocess.Popen([sys.executable, "-P", "-m", "glus.launch.cli", *words], env=environment)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
        raise


def _read(file: Path) -> dict[str, Done]:
    if not is_there(file):
        return {}
    remedy = f"remove {file.parent} to begin again, or choose another `out`"
    record = read_object(file, "record of stages", raises=LaunchError, remedy=remedy)
    if record.get("format") != FORMAT:
        raise LaunchError(f"{file} has format {record.get('format')!r}, this code reads {FORMAT}: {remedy}")
    return parsed_as(record.get("stages"), dict[str, Done], str(file), raises=LaunchError, remedy=remedy)
