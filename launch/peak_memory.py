"""Peak memory of this process and all that it started, sampled from a thread."""

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

#: Adding up what processes share takes 50 ms of a core where there are several of them.
INTERVAL_S = 2.0
GIGABYTE = 1024**3


@dataclass(frozen=True)
class Peak:
    """Largest sums over all processes, in bytes. `rss` counts a page that several share for each of them, `pss` (0
    where the system does not report it) once.
    """

    rss: int = 0
    pss: int = 0

    def or_more(self, other: "Peak") -> "Peak":
        """The larger of each."""
        return Peak(max(self.rss, other.rss), max(self.pss, other.pss))


class MemoryWatch:
    """As a context manager, samples every two seconds until it ends; `peak` may be read at any time."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.peak = Peak()
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="memory", daemon=True)

    def _work(self) -> None:
        while True:
            self.peak = self.peak.or_more(held_now())
            if self._ended.wait(self._interval_s):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()


def held_now() -> Peak:
    """Memory of this process and its descendants now."""
    own = psutil.Process()
    rss = pss = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            held = process.memory_full_info()
            rss, pss = rss + held.rss, pss + getattr(held, "pss", 0)
        except psutil.NoSuchProcess:
            continue  # it ended between the list and the look: it holds nothing
        except psutil.AccessDenied:
            rss += process.memory_info().rss
    return Peak(rss, pss)
