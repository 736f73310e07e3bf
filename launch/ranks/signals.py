"""Forward signals from a launcher to its ranks.

A launcher sends USR2 for "save and end". SIGTERM from it means that another rank failed: end now. SIGTERM from any
other process (a scheduler sends it to every process of a job) means "save and end", too.
"""

import _thread
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil

from glus.training.stopping.stopping import SIGNALS, StopFlag

#: Signals that torch elastic answers itself, by ending the ranks at once. Its own choice holds SIGTERM too.
OF_ELASTIC = "SIGINT,SIGHUP,SIGQUIT"

INTERRUPTED = 130
#: Seconds that a rank has to end by itself when another failed.
TO_END = 5.0


@contextlib.contextmanager
def passing_on_signals() -> Iterator[None]:
    """Forward SIGTERM and SIGUSR2 to the child processes during the block, also to those that start later.

    They are blocked here and a thread waits for them: a child starts with them blocked, and loses none before it
    listens.
    """
    stop, ended = StopFlag(), threading.Event()
    # For threads of libraries that were there before and do not block them.
    handlers = {number: signal.signal(number, stop.on_signal) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    waiting = threading.Thread(target=_wait, args=(stop, ended), name="signals", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _wait(stop: StopFlag, ended: threading.Event) -> None:
    passed_on: set[int] = set()
    while not ended.is_set():
        if found := signal.sigtimedwait(SIGNALS, 0.2):
            stop.on_signal(found.si_signo)
        if stop.cause:
            for child in psutil.Process().children():
                if child.pid not in passed_on:
                    passed_on.add(child.pid)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.send_signal(signal.SIGUSR2)


def listen_as_rank(stop: StopFlag) -> None:
    """Start a thread that waits for signals. Called before any other thread exists."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_listen, args=(stop, os.getppid()), name="signals", daemon=True).start()


def _listen(stop: StopFlag, launcher: int) -> None:
    while True:
        received = signal.sigwaitinfo(SIGNALS)
        if received.si_signo == signal.SIGTERM and received.si_pid == launcher:
            _thread.interrupt_main()
            # It may wait in a library for a rank that is dead.
            time.sleep(TO_END)
            os._exit(INTERRUPTED)
        stop.on_signal(received.si_signo)
