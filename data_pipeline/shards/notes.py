"""What was noticed while a video was read and is no reason to leave it out: kept in the manifest and printed once."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from glus.common.terminal import one_line
from glus.data_pipeline.shards.index import Note

#: Notes of one kind that are printed; the manifest has all of them.
SHOWN = 10
#: Different notes kept of one video, and letters of each.
MOST, LONGEST = 50, 500
#: About code, not about data.
_OF_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
_OF_RAY = "ray"

_log = logging.getLogger(__name__)


class _Collector(logging.Handler):
    """Takes records of WARNING and above, of every library but Ray."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] != _OF_RAY:
            self.add(record.getMessage())

    def add(self, text: str) -> None:
        if len(self.texts) < MOST:
            self.texts[text[:LONGEST]] = None
        elif len(self.texts) == MOST:
            self.texts["more warnings than are kept"] = None


@contextmanager
def collected() -> Iterator[dict[str, None]]:
    """Collect, each once, the texts of Python warnings and of log records at WARNING or above while the block runs.

    Python warnings go nowhere else; log records still reach their other handlers. Not for several threads at once.
    """
    collector, root = _Collector(), logging.getLogger()

    def take(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        collector.add(str(message))

    root.addHandler(collector)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for category in _OF_CODE:
                warnings.simplefilter("ignore", category)
            warnings.showwarning = take
            yield collector.texts
    finally:
        root.removeHandler(collector)


def report_notes(place: str, notes: Sequence[Note]) -> None:
    """Print the notes of a split, each once."""
    each = list(dict.fromkeys(notes))
    if not each:
        return
    shown = "\n  ".join(one_line(f"{note.video}: {note.text}" if note.video else note.text) for note in each[:SHOWN])
    more = f"\n  and {len(each) - SHOWN} more" if len(each) > SHOWN else ""
    _log.warning("%s: %d warnings, kept in its manifest:\n  %s%s", place, len(each), shown, more)
