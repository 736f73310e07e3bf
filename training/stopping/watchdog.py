"""Watchdog for hanging steps: every rank writes the stacks of its threads, then the run ends with one message.

Ranks that wait for a hung one hang as well, so all of them write, each into OUT/stacks/rank-3.txt.
"""

import faulthandler
import os
import threading
import time
from pathlib import Path
from typing import Self

from glus.common.errors import TrainingError
from glus.common.locks import missing_folders, remove_empty
from glus.training.stopping.error_file import record_error

#: Seconds between the stacks and the end: the other ranks write theirs.
GRACE = 5.0
#: Exit code of a rank that hung, unlike that of a user error: another attempt may help.
HUNG = 70


class Watchdog:
    """Watches while entered; `beat` reports progress. 0 minutes watches nothing."""

    def __init__(self, out: Path, rank: int, minutes: float) -> None:
        self._file = out / "stacks" / f"rank-{rank}.txt"
        self._rank, self._seconds = rank, 60 * minutes
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        """Raises TrainingError where the folder for the stacks cannot be made."""
        if not self._seconds:
            return self
        self._made = missing_folders(self._file.parent)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.unlink(missing_ok=True)
            # Open from now on: a rank that hangs because the disk does could not open it then.
            self._stacks = open(self._file, "w", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{self._file} cannot be written ({error.strerror}): choose another `out`") from error
        self.beat()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._seconds:
            self._ended.set()
            faulthandler.cancel_dump_traceback_later()
            self._stacks.close()
            if not self._file.stat().st_size:
                self._file.unlink()
            remove_empty(self._made)  # a training that is refused leaves nothing

    def beat(self) -> None:
        """Report that a step, or another part of the work, is done."""
        if self._seconds:
            self._last = time.monotonic()
            # Written by a thread of C: it comes even from a rank whose interpreter is held.
            faulthandler.dump_traceback_later(self._seconds, file=self._stacks)

    def _watch(self) -> None:
        while not self._ended.wait(max(0.1, self._last + self._seconds - time.monotonic())):
            if time.monotonic() - self._last >= self._seconds:
                self._end()

    def _end(self) -> None:
        self._ended.wait(GRACE)
        if self._ended.is_set() or time.monotonic() - self._last < self._seconds:
            return  # it went on after all
        message = (
            f"rank {self._rank} did nothing for {self._seconds:g} s (hang_minutes): what each of its threads was at "
            f"is in {self._file}"
        )
        record_error(TrainingError(message))
        print(message, flush=True)
        os._exit(HUNG)
