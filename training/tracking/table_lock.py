"""One process at a time makes MLflow's tables in a SQLite file: MLflow takes no lock, and all but one would fail."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from glus.common.errors import TrainingError

Made = TypeVar("Made")

#: How long a start waits for another that makes the tables: seconds on most machines, a minute on a busy one.
WAIT_S = 180.0
_TRIES = 5


@contextmanager
def making_tables(file: Path) -> Iterator[None]:
    """Hold .NAME.lock next to the file; waits. Raises TrainingError where the folder cannot be made, or too late."""
    from filelock import FileLock, Timeout

    lock = file.parent / f".{file.name}.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Who may not write next to a file of somebody else's finds its tables there.
        usable = os.access(file.parent, os.W_OK) and (not lock.exists() or os.access(lock, os.W_OK))
        held = FileLock(lock, timeout=WAIT_S)
        if usable:
            held.acquire()
    except Timeout as error:
        raise TrainingError(
            f"{file}: another process has been making its tables for {WAIT_S:.0f} s: end that one (`fuser -v {lock}` "
            "names it), or choose another tracking.uri"
        ) from error
    except OSError as error:
        raise TrainingError(f"MLflow at sqlite:///{file}: {error}; choose another tracking.uri") from error
    try:
        yield
    finally:
        held.release()


def after_others(make: Callable[[], Made]) -> Made:
    """What `make` returns; tries again where a program that knows no lock of ours (`mlflow ui`) makes the tables."""
    for tries in range(1, _TRIES):
        try:
            return make()
        except TrainingError as error:
            if "already exists" not in str(error):
                raise
            time.sleep(tries)
    return make()
