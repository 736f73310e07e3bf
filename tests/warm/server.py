"""Runs Python programs of tests in forks of a process that has imported the libraries; tests/warm/client.py asks.

Each gets the words, variables, folder, signal mask and open files of the process that asks, and is forked from one that
has computed nothing (tests/preloaded.py). Modules of ours other than those there, and all state, begin as usual.
"""

import atexit
import contextlib
import gc
import importlib.util
import json
import multiprocessing.process
import multiprocessing.spawn
import os
import selectors
import shutil
import signal
import socket
import sys
import threading
import types
from pathlib import Path
from typing import Any

from glus.launch.cli import PARENT

#: Above every file that a program is given.
_ABOVE = 500


class Server:
    """Answers on FOLDER/socket until nobody holds a lease: a connection that asks for nothing."""

    def __init__(self, folder: Path) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / "socket"))
        self._listening.listen(64)
        self._known = selectors.DefaultSelector()
        self._known.register(self._listening, selectors.EVENT_READ)
        self._leases: set[socket.socket] = set()
        self._running: dict[socket.socket, int] = {}

    def serve(self) -> dict[str, Any] | None:
        """Return what is asked for in the process that is to run it, None at the end."""
        while True:
            for key, _ in self._known.select():
                if key.fileobj is self._listening:
                    connection = self._listening.accept()[0]
                    if (asked := self._accept(connection)) is not None:
                        self._kept = connection  # else it would close a number that is a file of the program by now
                        return asked
                elif key.data is not None:
                    self._report(key.fd, key.data)
                elif not self._goes_on(key.fileobj):
                    return None

    def _accept(self, connection: socket.socket) -> dict[str, Any] | None:
        beginning, files, _, _ = socket.recv_fds(connection, 8, 250)
        length = int.from_bytes(beginning, "big")
        if not length:
            self._leases.add(connection)
            self._known.register(connection, selectors.EVENT_READ)
            return None
        text = bytearray()
        while len(text) < length and (part := connection.recv(length - len(text))):
            text += part
        process = os.fork() if len(text) == length else None  # it may have been killed meanwhile
        if process == 0:
            asked: dict[str, Any] = json.loads(text)
            _take_files(files, asked["files"])
            return asked
        for number in files:
            os.close(number)
        if process is None:
            connection.close()
            return None
        with contextlib.suppress(OSError):
            connection.sendall(f"{process}\n".encode())
        self._running[connection] = process
        self._known.register(connection, selectors.EVENT_READ)
        self._known.register(os.pidfd_open(process), selectors.EVENT_READ, connection)
        return None

    def _report(self, ended: int, connection: socket.socket) -> None:
        """Send the exit code, or the signal's number as a negative one."""
        self._known.unregister(ended)
        os.close(ended)
        _, status = os.waitpid(self._running.pop(connection), 0)
        with contextlib.suppress(OSError):  # its asker may have been killed
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        with contextlib.suppress(KeyError):
            self._known.unregister(connection)
        connection.close()

    def _goes_on(self, connection: socket.socket) -> bool:
        """Handle a signal's number, or the end of an asker or of a lease."""
        if connection.fileno() < 0:
            return True
        try:
            heard = connection.recv(1)
        except OSError:
            heard = b""
        if connection in self._running:
            os.kill(self._running[connection], heard[0] if heard else signal.SIGKILL)
        if heard:
            return True
        self._known.unregister(connection)
        if connection not in self._leases:
            return True
        self._leases.remove(connection)
        if not self._leases:
            for process in self._running.values():
                os.kill(process, signal.SIGKILL)
        return bool(self._leases)


class _Parent(multiprocessing.process._ParentProcess):  # type: ignore[name-defined,misc]
    """The parent by which a process of multiprocessing knows whether it is alone."""

    def __init__(self, name: str, pid: int, sentinel: int) -> None:
        super().__init__(name, os.getppid(), sentinel)


def _take_files(given: list[int], wanted: list[int]) -> None:
    """Have the files of the asker under its own numbers, and no others."""
    above = [os.dup2(number, _ABOVE + place) for place, number in enumerate(given)]
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in above:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(number)
    for source, number in zip(above, wanted, strict=True):
        os.dup2(source, number)
        os.close(source)


def _run(asked: dict[str, Any]) -> int:
    """Run the program as Python does, and return its exit code."""
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    # What follows its parent (common/processes.py) follows this server, which ends it when its starter is gone.
    if PARENT in os.environ:
        os.environ[PARENT] = str(os.getppid())
    multiprocessing.process._ParentProcess = _Parent  # type: ignore[attr-defined]
    sys.executable = asked["executable"]
    multiprocessing.spawn.set_executable(sys.executable)
    words = list(asked["words"])
    options = []
    while words[0] in ("-P", "-u"):
        options.append(words.pop(0))
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through="-u" in options)  # type: ignore[union-attr]
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    kind, program, *rest = words
    if "-P" not in options:
        sys.path.insert(0, "" if kind == "-c" else os.getcwd())
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if kind == "-c":
        code, sys.argv = compile(program, "<string>", "exec"), ["-c", *rest]
    else:
        spec = importlib.util.find_spec(program)
        assert spec is not None and spec.origin is not None and spec.loader is not None, program
        code = spec.loader.get_code(program)  # type: ignore[attr-defined]
        main.__spec__, main.__file__, main.__loader__, main.__package__ = spec, spec.origin, spec.loader, spec.parent
        sys.argv = [spec.origin, *rest]
    sys.modules["__main__"] = main
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["mask"])
    try:
        exec(code, main.__dict__)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 -- as Python ends
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def main(place: str) -> None:
    """Import, answer until nobody is there; in each fork run one program and end."""
    server = Server(Path(place))
    path = list(sys.path)[:-1]  # without the repository, which its starter added
    import tests.preloaded  # noqa: F401

    threads = sorted(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))
    # pyarrow's jemalloc knows that forks do not have its thread.
    assert len(set(threads) - {"jemalloc_bg_thd"}) == 1, f"forks would be without these threads: {threads}"
    sys.path[:] = path
    gc.collect()
    gc.freeze()
    asked = server.serve()
    if asked is None:
        shutil.rmtree(place)
        return
    code = 1
    try:
        code = _run(asked)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)
