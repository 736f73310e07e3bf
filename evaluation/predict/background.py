"""Frames read ahead and masks written behind, in threads, while the model works. What is held is bounded."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, ParamSpec, Self, TypeVar

#: Frames that are read before they are asked for.
AHEAD = 2
#: Threads that write, and calls that wait for one of them at most: a mask of 1280x720 takes 1 MB until it is written.
WRITERS, WAITING = 2, 32

T = TypeVar("T")
P = ParamSpec("P")


class ReadAhead(Generic[T]):
    """Call it with the index of a frame: what `read` gives. A context manager that ends its thread.

    From the third frame in a row on, forward or backward, the next ones are read meanwhile. All calls of `read` are
    made in one thread, one at a time. Its error is raised where that frame is asked for.
    """

    def __init__(self, read: Callable[[int], T], frames: int):
        self._read, self._frames = read, frames
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._begun: dict[int, Future[T]] = {}
        self._last, self._step = -1, 0

    def __call__(self, index: int) -> T:
        step = index - self._last
        in_a_row = step in (1, -1) and step == self._step
        self._last, self._step = index, step
        due = [index, *range(index + step, index + step * (AHEAD + 1), step)] if in_a_row else [index]
        for frame in self._begun.keys() - set(due):
            self._begun.pop(frame).cancel()
        for frame in due:
            if frame not in self._begun and 0 <= frame < self._frames:
                self._begun[frame] = self._thread.submit(self._read, frame)
        return self._begun.pop(index).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


class WriteBehind:
    """Make calls that write in threads. A context manager: when it ends, no call is running.

    An error of a call is raised by a later `call` or at the end of the block, the first one in the order of the calls;
    where the block ends with an error, calls that have not begun are dropped.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="write-behind")
        self._calls: deque[Future[object]] = deque()

    def call(self, write: Callable[P, object], *args: P.args, **keys: P.kwargs) -> None:
        """Call `write` soon; wait where WAITING calls are not done yet."""
        self._calls.append(self._threads.submit(write, *args, **keys))
        while self._calls and (len(self._calls) > WAITING or self._calls[0].done()):
            self._calls.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._calls:
                self._calls.popleft().result()
        finally:
            self._threads.shutdown(wait=True, cancel_futures=True)
