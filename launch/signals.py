"""Signals that ask a launcher to stop go to its ranks, which save first and then end by themselves.

To its ranks a launcher says USR2 for "save and end". SIGTERM from it means that another rank failed: end now. From
anybody else (a scheduler sends it to every process of a job) SIGTERM means "save and end", too.
"""

import _thread
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import psutil

from glus.training.stopping import SIGNALS, StopFlag

#: Which signals torch elastic answers itself, by ending the ranks at once.
OF_ELASTIC = "TORCHELASTIC_SIGNALS_TO_HANDLE"

INTERRUPTED = 130
#: Seconds that a rank has to end by itself when another failed.
TO_END = 5.0


@contextlib.contextmanager
def passing_on_signals() -> Iterator[None]:
    """While it is entered, SIGTERM and SIGUSR2 go to the child processes.

    They are blocked here and waited for by a thread: a child is born with them blocked, and loses none before it is
    ready to listen.
    """
    left_to_elastic = os.environ.get(OF_ELASTIC)
    os.environ[OF_ELASTIC] = "SIGINT,SIGHUP,SIGQUIT"
    ended = threading.Event()
    # For a thread of some library that does not block them.
    handlers = {number: signal.signal(number, _pass_on) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    waiting = threading.Thread(target=_wait, args=(ended,), name="signals", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if left_to_elastic is None:
            del os.environ[OF_ELASTIC]
        else:
            os.environ[OF_ELASTIC] = left_to_elastic


def _wait(ended: threading.Event) -> None:
    while not ended.is_set():
        if found := signal.sigtimedwait(SIGNALS, 0.2):
            _pass_on(found.si_signo, None)


def _pass_on(number: int, frame: FrameType | None) -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGUSR2)


def listen_as_rank(stop: StopFlag) -> None:
    """From now on a thread of this process waits for what it is told. Called before any other thread is there."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_listen, args=(stop, os.getppid()), name="signals", daemon=True).start()


def _listen(stop: StopFlag, launcher: int) -> None:
    while True:
        told = signal.sigwaitinfo(SIGNALS)
        if told.si_signo == signal.SIGTERM and told.si_pid == launcher:
            _thread.interrupt_main()
            # It may wait in a library for a rank that is dead.
            time.sleep(TO_END)
            os._exit(INTERRUPTED)
        stop.told(told.si_signo)
