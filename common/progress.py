"""Progress of a loop: a bar on a terminal; in a file one line a minute at most, without carriage returns."""

import os
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from glus.common.terminal import OTHERS, VARIABLE, is_terminal, one_line

Item = TypeVar("Item")

#: Seconds between two lines of one bar.
INTERVAL_S = 60.0


class Progress(tqdm):  # type: ignore[type-arg]
    """tqdm, with its arguments. A file gets its first line after a minute, and one at the end where there was none."""

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        *,
        file: TextIO | None = None,
        disable: bool = False,
        **options: Any,
    ) -> None:
        stream = file or sys.stderr
        if options.get("desc"):  # often the name of a file
            options["desc"] = one_line(options["desc"])
        self._lines = not is_terminal(stream)
        self._printed: float | None = None
        self._began = time.monotonic()
        if self._lines:
            known = options.get("total") is not None or hasattr(iterable, "__len__")
            done = "{percentage:.0f} %, {n_fmt} of {total_fmt} {unit}" if known else "{n_fmt} {unit}"
            left = "{elapsed}, {remaining} left" if known else "{elapsed}"
            options |= {"bar_format": f"{{desc}}: {done}, {left}, {{rate_fmt}}{{postfix}}"}
            options |= {"mininterval": INTERVAL_S, "maxinterval": INTERVAL_S, "miniters": 1, "delay": INTERVAL_S}
        elsewhere = os.environ.get(VARIABLE, "")
        super().__init__(iterable, file=stream, disable=disable or elsewhere not in ("", OTHERS), **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write its line where one is due."""
        if not self._lines:
            super().display(msg, pos)
            return
        now = time.monotonic()
        if now - (self._began if self._printed is None else self._printed) >= INTERVAL_S:
            self._write_line(now)

    def close(self) -> None:
        """End the bar; a second call changes nothing."""
        if self._lines and not self.disable:
            now = time.monotonic()
            if self._printed is None or now - self._printed >= INTERVAL_S:
                self._write_line(now)
            self.delay = float("inf")  # tqdm would clear its line with a carriage return
        super().close()

    def _write_line(self, now: float) -> None:
        self._printed = now
        self.fp.write(" ".join(str(self).split()) + "\n")
        self.fp.flush()


def progress(iterable: Iterable[Item], **options: Any) -> Iterable[Item]:
    """The items, with their progress shown. Options are tqdm's."""
    shown: Iterable[Item] = Progress(iterable, **options)
    return shown
