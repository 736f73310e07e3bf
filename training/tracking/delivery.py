"""Sends records to a slow or absent server from a background thread: a training step never waits for it."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Record = TypeVar("Record")

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Undelivered:
    """The number of records that were not delivered, and the last error (None where all were)."""

    count: int
    error: Exception | None


class Delivery(Generic[Record]):
    """Sends records in order and in batches; a batch that fails is sent again later, so `send` must allow repeats.

    `put` never blocks. Beyond `capacity` waiting records it drops the newest; `close` returns how many.
    """

    def __init__(
        self,
        send: Callable[[list[Record]], None],
        capacity: int = 1_000_000,
        batch_size: int = 1000,
        interval_s: float = 1.0,
    ) -> None:
        self._send = send
        self._capacity = capacity
        self._batch_size = batch_size
        self._interval_s = interval_s
        self._waiting: deque[Record] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._refused = 0
        self._error: Exception | None = None
        # A daemon: a process that dies of something else must not hang on a dead server.
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)
        self._thread.start()

    def put(self, records: Iterable[Record]) -> None:
        """Queue records."""
        with self._changed:
            for record in records:
                if len(self._waiting) < self._capacity:
                    self._waiting.append(record)
                else:
                    self._refused += 1
            self._changed.notify_all()

    def close(self, timeout_s: float = 60.0) -> Undelivered:
        """Deliver what waits and end the thread; returns what was left. A second call changes nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            left = len(self._waiting) + self._refused
            error = self._error
        if left and error is None:
            error = TimeoutError(f"not done within {timeout_s:.0f} s")
        return Undelivered(left, error)

    def _next_batch(self) -> list[Record]:
        """Wait for records, and a little longer for more of them; an empty list means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(
                lambda: self._closing or len(self._waiting) >= self._batch_size, timeout=self._interval_s
            )
            return list(islice(self._waiting, self._batch_size))

    def _work(self) -> None:
        pause_s = FIRST_PAUSE_S
        while batch := self._next_batch():
            try:
                self._send(batch)
            except Exception as error:  # noqa: BLE001 (whatever it is: kept, and returned by close)
                with self._changed:
                    self._error = error
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: self._closing, timeout=pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            pause_s = FIRST_PAUSE_S
            with self._changed:
                for _ in batch:
                    self._waiting.popleft()
                self._error = None
