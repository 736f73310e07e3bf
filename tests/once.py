"""What takes seconds to make is made once a session: by the first of pytest's processes that needs it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder NAME, which `make` fills; the other processes wait for it. Tests only read it.

    Where `make` fails, the next process tries again in another folder.
    """
    base = folders.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    record = base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not record.is_file():
            number = len(list(base.glob(f"{name}-*")))
            folder = base / f"{name}-{number}"
            folder.mkdir()
            make(folder)
            record.write_text(str(folder), encoding="utf-8")
    return Path(record.read_text(encoding="utf-8"))
