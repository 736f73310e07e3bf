"""A process that ends when the one that started it is gone, however that ended."""

import multiprocessing
import multiprocessing.connection
import os
import threading
import time


def end_with_parent() -> None:
    """From now on a thread of this spawned process ends it, at once, where its parent has ended.

    A parent that is killed cannot stop its children; they would finish what they are at, and write it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process of multiprocessing has a parent to watch"

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def end_with_launcher() -> None:
    """The same for a process that another program started: looks every half second whether it is an orphan.

    The launcher holds the run's folder. Once it is killed the next run may begin there, so no rank may go on.
    """
    launcher = os.getppid()

    def wait() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=wait, name="launcher", daemon=True).start()
