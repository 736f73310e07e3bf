"""Decide what a job does when a training has ended: done, again, requeue, or fail with the cause on one line.

OUT/failures/HOST.json    what ended the ranks of a machine, until the next attempt
OUT/attempts.json         every attempt that ended before the last step: when, at which step, why

`python -m glus.launch.ranks.attempts CONFIG CODE MOST` is what slurm/train.sbatch asks; CODE is srun's exit code.
"""

import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from glus.common.atomic import write_atomic
from glus.common.errors import LaunchError, UserError
from glus.common.files import is_there
from glus.common.json_file import read_as
from glus.common.terminal import one_line
from glus.launch.config.configuration import load_config
from glus.training.checkpoints import checkpoint
from glus.training.run_config import RunConfig
from glus.training.stopping.stopping import forget_stop, read_stopped

FAILURES, ATTEMPTS = "failures", "attempts.json"
#: Exit codes of this module.
DONE, FAILED, AGAIN, REQUEUE, ENDED = 0, 1, 10, 11, 12

#: srun's exit codes where a launcher was signalled before it listened: it dies of the signal.
SIGNALLED_EARLY = (0x80 | signal.SIGTERM, 0x80 | signal.SIGUSR2)

Kind = Literal["told", "killed", "hung", "bug", "lost"]
#: A machine whose rank lost its peer records that as a bug, so what others record counts more.
ORDER: tuple[Kind, ...] = ("told", "killed", "hung", "bug", "lost")


@dataclass(frozen=True)
class Failure:
    """What ended the ranks of one machine: the first of them, and why. "told" is an error that the user
    must fix; the others may go away by themselves."""

    host: str
    rank: int
    kind: Kind
    cause: str
    traceback: str = ""


@dataclass(frozen=True)
class Attempt:
    """A line of OUT/attempts.json. `failed`: it counts as one of the failures in a row at its step."""

    time: float
    step: int
    failed: bool
    kind: Kind
    cause: str


@dataclass(frozen=True)
class Decision:
    """What the job does next, and why, in one line."""

    code: int
    words: str


def record_failure(out: Path, failure: Failure) -> None:
    """Write OUT/failures/HOST.json. Raises DataError where it cannot be written."""
    write_atomic(out / FAILURES / f"{failure.host}.json", json.dumps(asdict(failure)).encode() + b"\n")


def decide(config: RunConfig, code: int, most: int) -> Decision:
    """What is next after srun ended with `code`; `most` attempts in a row may end without a new checkpoint.

    Records the attempt and forgets what ended it. Raises LaunchError where a record cannot be read.
    """
    out = Path(config.out)
    newest = next(iter(checkpoint.newest_first(out / "checkpoints")), None)
    step = checkpoint.step_of(newest) if newest else 0
    stopped = read_stopped(out)
    if step >= config.steps and code == 0:
        return Decision(DONE, f"done: {config.steps} steps")
    before = _read(out / ATTEMPTS)
    failure = _cause(out, code)
    if stopped and failure.kind == "lost":
        words = f"stopped after step {stopped.step} of {stopped.steps} by {stopped.cause}"
        decision = Decision(REQUEUE if stopped.again else ENDED, words)
        failed = 0
    elif failure.kind == "lost" and code in SIGNALLED_EARLY:
        decision, failed = Decision(REQUEUE, f"stopped at step {step} before it had started"), 0
    else:
        # How many attempts in a row ended at this step, this one with them.
        failed = 1
        for earlier in reversed(before):
            if earlier.step != step:
                break
            failed += int(earlier.failed)
        decision = _after_failure(failure, failed, most, step)
    entry = Attempt(time.time(), step, bool(failed), failure.kind, decision.words)
    attempts = [asdict(each) for each in (*before, entry)]
    write_atomic(out / ATTEMPTS, json.dumps(attempts, indent=1).encode() + b"\n")
    for file in (out / FAILURES).glob("*.json"):
        file.unlink()
    forget_stop(out)
    return decision


def _after_failure(failure: Failure, failed: int, most: int, step: int) -> Decision:
    cause = f"{failure.host}: {failure.cause}" if failure.host else failure.cause
    cause = " ".join(cause.split())
    if failure.kind == "told":
        return Decision(FAILED, cause)
    if failed > most:
        return Decision(FAILED, f"{failed} attempts ended at step {step} without a new checkpoint; the last: {cause}")
    again = f"{failed} of at most {most} failures in a row at step {step}"
    # Where nobody recorded anything a machine may be gone: the scheduler finds others.
    return Decision(REQUEUE if failure.kind == "lost" else AGAIN, f"{cause} ({again})")


def _cause(out: Path, code: int) -> Failure:
    found = [
        read_as(file, Failure, "record of a failure", raises=LaunchError, remedy="remove it")
        for file in sorted((out / FAILURES).glob("*.json"))
    ]
    if not found:
        return Failure(
            "", -1, "lost", f"srun ended with {code}; no machine reported why: one was lost, or its launcher killed"
        )
    return min(found, key=lambda failure: ORDER.index(failure.kind))


def _read(file: Path) -> list[Attempt]:
    if not is_there(file):
        return []
    return read_as(file, list[Attempt], "record of attempts", raises=LaunchError, remedy="remove it")


def main() -> int:
    """Print the decision and return its code."""

    config, code, most = sys.argv[1:]
    try:
        decision = decide(load_config(RunConfig, Path(config), []), int(code), int(most))
    except UserError as error:
        print(one_line(f"glus: {error}"), file=sys.stderr)
        return FAILED
    print(one_line(f"glus: {decision.words}"), file=sys.stderr, flush=True)
    return decision.code


if __name__ == "__main__":
    sys.exit(main())
