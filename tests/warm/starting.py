"""A Python for tests that starts in a tenth of a second instead of ten: tests/warm/client.py and server.py."""

import multiprocessing.spawn
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SERVE = "import sys; sys.path.append(sys.argv[1]); from tests.warm.server import main; main(sys.argv[2])"
#: `glus` as code for `python -c`, whose ranks and stages are started by the Python that its first word names.
LAUNCHER = "import sys; sys.executable = sys.argv.pop(1); from glus.launch.cli import main; sys.exit(main())"
#: Python warns of a process that is forgotten while it runs.
_SERVERS: list[subprocess.Popen[bytes]] = []


def start_server(folder: Path) -> None:
    """Start a server, which ends with its last lease. FOLDER/place names its folder."""
    # Not below FOLDER: the address of a socket has 108 characters at most.
    place = Path(tempfile.mkdtemp(prefix="glus-warm-"))
    (place / "real").symlink_to(sys.executable)
    client = Path(__file__).with_name("client.py").read_text(encoding="utf-8")
    (place / "python").write_text(f"#!{sys.executable} -IS\n{client}", encoding="utf-8")
    (place / "python").chmod(0o755)
    with open(place / "log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE, str(Path(__file__).parents[2]), str(place)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # a fork would not have its threads
        )
    _SERVERS.append(server)
    (folder / "place").write_text(str(place), encoding="utf-8")


@contextmanager
def leased(folder: Path) -> Iterator[Path]:
    """Hold the server that `start_server(folder)` started; gives the program that stands for Python."""
    place = Path((folder / "place").read_text(encoding="utf-8"))
    with socket.socket(socket.AF_UNIX) as lease:
        until = time.monotonic() + 60
        while lease.connect_ex(str(place / "socket")):
            assert time.monotonic() < until, (place / "log").read_text(encoding="utf-8")
            time.sleep(0.02)
        lease.sendall(bytes(8))
        yield place / "python"


@contextmanager
def started_by(python: Path) -> Iterator[None]:
    """Start by `python` what this process starts: commands of `glus`, ranks, processes of multiprocessing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        patch.setattr(multiprocessing.spawn, "_python_exe", str(python).encode())
        yield
