"""Processes that share work with this one, and end with it."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def process_pool(processes: int, begin: Callable[..., object] | None = None, *words: object) -> ProcessPoolExecutor:
    """Return a pool of spawned processes, each of which calls `begin(*words)` first.

    They end at once where this process is gone, however that ended: the next run may begin in its folder.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads may hold
    return ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin, initargs=(begin, words))


def _begin(begin: Callable[..., object] | None, words: tuple[object, ...]) -> None:
    end_with_parent()
    if begin is not None:
        begin(*words)


def end_with_parent(parent: int | None = None) -> None:
    """End this process at once where the one that started it is gone, however that ended; looks twice a second.

    A launcher that is killed cannot stop its ranks, and the next run may begin in its folder: no rank may go on.
    `parent` is its process id, where it said so: it may have ended before this call.
    """
    if parent is None:
        # A process of multiprocessing knows its parent even where that ended before this call.
        started_by = multiprocessing.parent_process()
        parent = os.getppid() if started_by is None else started_by.pid

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
