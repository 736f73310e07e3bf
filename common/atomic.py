"""Files that are whole or not there: written aside under a temporary name in the same folder, then renamed."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from glus.common.errors import DataError
from glus.common.writing import disk_fault

#: Names of files that a killed process may leave behind begin so.
ASIDE_PREFIX = ".aside-"


@contextmanager
def written_aside(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that becomes `path` when the block ends well, and is removed when it does not.

    A durable file is on the disk before it gets its name, so that it survives a power cut. The folder is made.
    Raises DataError where the disk is full or the folder cannot be written.
    """
    # Short enough for a file system, which takes 255 bytes: names have up to 200, hosts 64.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    kept = path.name if path.name.isascii() and len(path.name) <= 64 else digest
    aside = path.with_name(f"{ASIDE_PREFIX}{socket.gethostname()[:64]}-{os.getpid()}-{kept}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except RuntimeError as error:  # torch's for a full disk
        if not disk_fault(error):
            raise
        raise DataError(f"{path}: cannot be written ({disk_fault(error)}); no half-written file was left") from error
    except OSError as error:
        # A read error of the block's own input names another file: that is not about this one.
        if error.filename not in (None, str(aside), str(path), str(path.parent)):
            raise
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Make room or choose another folder, then run "
            "again: what is finished is kept, and no half-written file was left"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def write_bytes_aside(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. Raises DataError as `written_aside`."""
    with written_aside(path) as file:
        file.write(content)
