"""Stop and save requests: signals and a stop file set a flag; after each step the ranks decide together.

OUT/stop            made by the user: save, then end; a job requeues itself. With the word "end" in it, it does not.
OUT/stopped.json    the last stop, removed when the run continues
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self

from glus.common.errors import InputError, TrainingError
from glus.common.files import is_there, read_regular
from glus.common.json_file import read_as
from glus.training.run_config import RunConfig

if TYPE_CHECKING:
    from glus.training.distributed import Rank

STOP, STOPPED = "stop", "stopped.json"
#: Seconds between two looks for the stop file.
LOOK_EVERY = 1.0
#: Bytes that are read of the stop file.
LARGEST_STOP = 4096


class Cause(IntEnum):
    """The cause of a stop; of several the largest counts."""

    NONE = 0
    USR2 = 1
    SIGTERM = 2
    STOP_FILE = 3
    STOP_FILE_END = 4

    @property
    def words(self) -> str:
        """The cause as messages name it."""
        return {1: "SIGUSR2", 2: "SIGTERM", 3: "the stop file", 4: 'the stop file ("end")'}.get(self.value, "nothing")


#: USR2, not USR1: NCCL may catch that one.
SIGNALS = {signal.SIGUSR2: Cause.USR2, signal.SIGTERM: Cause.SIGTERM}


class StopFlag:
    """Set by signals while `listening` or `watching` (in the main thread), and by OUT/stop."""

    def __init__(self) -> None:
        self._out: Path | None = None
        self._cause = Cause.NONE
        self._looked = 0.0

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Signals set the flag and do nothing else; afterwards they do what they did before."""
        before = {number: signal.signal(number, self.on_signal) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def watching(self, out: Path | None) -> Iterator[Self]:
        """Listen, and look for the stop file in `out` (None on all ranks but the first)."""
        self._out = out
        with self.listening():
            yield self

    def on_signal(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal: note its cause."""
        self._cause = max(self._cause, SIGNALS[signal.Signals(number)])

    @property
    def cause(self) -> Cause:
        """The strongest cause so far on this rank."""
        if self._out and time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            self._cause = max(self._cause, _cause_of(self._out / STOP))
        return self._cause


@dataclass(frozen=True)
class Stopped:
    """A stop that the run has handled. `again`: a job continues the run by itself."""

    step: int
    steps: int
    cause: str
    again: bool


def record_stop(out: Path, cause: Cause, step: int, steps: int) -> None:
    """Write OUT/stopped.json (the run stopped after `step` of `steps`), and remove the stop file (rank 0).

    Raises TrainingError where that cannot be written.
    """
    try:
        note = Stopped(step, steps, cause.words, again=cause != Cause.STOP_FILE_END)
        aside = out / f".{STOPPED}.writing"
        aside.write_text(json.dumps(asdict(note)), encoding="utf-8")
        aside.replace(out / STOPPED)
        (out / STOP).unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{out / STOPPED} cannot be written ({error.strerror})") from error


def forget_stop(out: Path) -> None:
    """Remove OUT/stopped.json of the run's earlier stop (rank 0)."""
    (out / STOPPED).unlink(missing_ok=True)


def read_stopped(out: Path) -> Stopped | None:
    """The stop that ended the last training in `out`, None where it ended otherwise. Raises TrainingError."""
    file = out / STOPPED
    if not is_there(file):
        return None
    return read_as(file, Stopped, "record of a stop", raises=TrainingError, remedy="remove it")


def _cause_of(file: Path) -> Cause:
    if not os.path.lexists(file):
        return Cause.NONE
    try:
        # Users write it on any system: with a byte order mark, too.
        word = read_regular(file, "stop file", LARGEST_STOP).decode("utf-8-sig").strip()
    except (InputError, UnicodeDecodeError):
        return Cause.STOP_FILE if os.path.lexists(file) else Cause.NONE  # there, whatever is in it
    return Cause.STOP_FILE_END if word == "end" else Cause.STOP_FILE


class Due:
    """When the next checkpoint is due: every so many steps, or minutes after the last one (rank 0's clock)."""

    def __init__(self, every: int, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._seconds, self._clock = every, 60 * minutes, clock
        self._since = clock()

    def by_steps(self, done: int) -> bool:
        """Return whether `done` steps are a multiple of `checkpoint_every`."""
        return bool(self._every) and done % self._every == 0

    def by_minutes(self) -> bool:
        """Return whether `checkpoint_minutes` have passed since the last checkpoint."""
        return bool(self._seconds) and self._clock() - self._since >= self._seconds

    def saved(self) -> None:
        """Start the time to the next checkpoint again."""
        self._since = self._clock()


@dataclass(frozen=True)
class StepDecision:
    """Save or not after a step, and the cause of a stop there (NONE: the run continues)."""

    save: bool
    stop: Cause


class StepDecider:
    """Makes all ranks save or stop at the same step: one all-reduce of two numbers a step."""

    def __init__(self, config: RunConfig, rank: "Rank", stop: StopFlag) -> None:
        self._steps, self._rank, self._stop = config.steps, rank, stop
        self._due = Due(config.checkpoint_every, config.checkpoint_minutes)

    def after(self, done: int) -> StepDecision:
        """Return the decision after step `done`, the same on all ranks. The ranks' clocks differ: rank 0's counts."""
        late = self._rank.rank == 0 and self._due.by_minutes()
        cause, by_minutes = self._rank.all_reduce_max([self._stop.cause, late])
        stop = Cause(cause) if done < self._steps else Cause.NONE
        return StepDecision(bool(stop or by_minutes) or done == self._steps or self._due.by_steps(done), stop)

    def saved(self) -> None:
        """Start the time to the next checkpoint again."""
        self._due.saved()
