"""Atomic writing: a file is complete or absent. What a full or forbidden disk looks like."""

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from glus.common.errors import InputError

#: Names of files that a killed process may leave behind begin so.
TEMPORARY_PREFIX = ".aside-"

#: Faults of the disk or its permissions, which a user can fix and no code can cause.
_FAULTS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
        *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE),
    }
)
#: The words of torch, safetensors and SQLite for them, in exceptions of their own.
_LIBRARY_WORDS = (
    "PytorchStreamWriter",
    "inline_container.cc",
    "No space left on device",
    "File too large",
    "disk is full",
)
_REMEDY = "make room, or choose another place, then run again"


@contextmanager
def atomic_open(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`; rename it to `path` when the block succeeds, else remove it.

    A durable file is on the disk before it gets its name, so that it survives a power cut. The folder is made.
    Raises InputError where the disk is full or the folder cannot be written.
    """
    # Short enough for a file system, which takes 255 bytes: names have up to 200, hosts 64.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    kept = path.name if path.name.isascii() and len(path.name) <= 64 else digest
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{socket.gethostname()[:64]}-{os.getpid()}-{kept}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:  # torch's for a full disk
        if not disk_fault(error):
            raise
        raise InputError(f"{path}: cannot be written ({disk_fault(error)}); no half-written file was left") from error
    except OSError as error:
        # An error of another file, such as one that the block reads, is not about this one.
        if error.filename not in (None, str(temporary), str(path), str(path.parent)):
            raise
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}). Make room or choose another folder, then run "
            "again: finished files are kept, and no half-written file was left"
        ) from error
    finally:
        with suppress(OSError):  # such as that its folder is a file: the error above says so
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`, complete or not at all. Raises InputError as `atomic_open`."""
    with atomic_open(path) as file:
        file.write(content)


def disk_fault(error: BaseException) -> str:
    """Return one line for an exception that comes from a full, read-only, forbidden or broken disk; "" for any other.

    Looks at the exceptions that it was raised from, too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FAULTS:
            place = f"{os.fsdecode(seen.filename)}: " if isinstance(seen.filename, (str, bytes)) else ""
            return f"{place}{seen.strerror or seen}: {_REMEDY}"
        if not isinstance(seen, OSError) and any(words in str(seen) for words in _LIBRARY_WORDS):
            return f"a file cannot be written, most likely because the disk is full: {_REMEDY}"
        seen = seen.__cause__ or seen.__context__
    return ""
