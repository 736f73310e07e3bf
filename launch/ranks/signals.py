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

import psutil

from glus.training.stopping.stopping import SIGNALS, StopFlag

#: Signals that torch elastic answers itself, by ending the ranks at once. Its own choice holds SIGTERM too.
OF_ELASTIC = "SIGINT,SIGHUP,SIGQUIT"

INTERRUPTED = 130
#: Seconds that a rank has to end by itself when another failed.
TO_END = 5.0


@contextlib.contextmanager
def passing_on_signals() -> Iterator[None]:
    """While it is entered, SIGTERM and SIGUSR2 go to the child processes, also to those that are born later.

    They are blocked here and waited for by a thread: a child is born with them blocked, and loses none before it is
    ready to listen.
    """
    told, ended = StopFlag(), threading.Event()
    # For threads of libraries that were there before and do not block them.
    handlers = {number: signal.signal(number, told.on_signal) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    waiting = threading.Thread(target=_wait, args=(told, ended), name="signals", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _wait(told: StopFlag, ended: threading.Event) -> None:
    passed_on: set[int] = set()
    while not ended.is_set():
        if found := signal.sigtimedwait(SIGNALS, 0.2):
            told.on_signal(found.si_signo)
        if told.cause:
            for child in psutil.Process().children():
                if child.pid not in passed_on:
                    passed_on.add(child.pid)
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
        stop.on_signal(told.si_signo)
