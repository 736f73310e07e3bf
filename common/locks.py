"""One command at a time in one folder.

FOLDER/.glus.lock is locked with flock (by the library filelock) and holds the host, process id and command of its
holder. The kernel drops the lock with the process, however that ends, so a file that a killed process leaves means
nothing. Children of the holder do not keep it: programs that it starts never get the descriptor, and forked ones close
it.

On NFS the server keeps the lock, so it holds between machines (NFSv4; NFSv3 with lockd, not mounted with `nolock`).
Where a machine is lost, the server drops its locks when its lease ends, after 90 seconds by default. Where a file
system keeps no locks, a warning says so and the command goes on.
"""

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glus.common.errors import InputError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".glus.lock"
#: How long a process that just took a lock may need to write who it is, and a probe (`holder`) may hold it.
RECORD_SECONDS = 0.3
#: How long a requeued job waits for the lock that its predecessor held on a lost machine: more than an NFS lease.
LEASE_SECONDS = 150.0
#: No record of ours is longer.
_LONGEST_RECORD = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. `job` is its SLURM job, "" outside of one."""

    host: str
    process: int
    command: str
    job: str = ""

    def __str__(self) -> str:
        return f"{self.command} on {self.host}, process {self.process}"


class InUseError(InputError):
    """Another process holds the lock: `holder`, None where it did not say who it is."""

    def __init__(self, folder: Path, holder: Holder | None) -> None:
        super().__init__(
            f"{folder} is in use by {holder or 'another process'}: wait for it, or choose another folder",
            file=str(folder),
        )
        self.folder, self.holder = folder, holder

    def __reduce__(self) -> tuple[type["InUseError"], tuple[Path, Holder | None]]:
        return type(self), (self.folder, self.holder)


@contextmanager
def exclusive(folder: Path, command: str, name: str = LOCK) -> Iterator[None]:
    """Hold FOLDER/NAME while the block runs, as `command` ("glus prepare"); `folder` is made.

    Of several processes of one run, one takes the lock for all of them, or each takes one of another name.
    At the end the file is removed, and so are folders that were made for it and are still empty.
    Raises InUseError at once where another process holds it, with its host, process id and command; InputError where
    the folder cannot be written.
    """
    import filelock  # here, because it takes 0.2 s

    made = missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(
            folder / name,
            mode=0o644,
            thread_local=False,
            fallback_to_soft=False,
            on_acquired=lambda descriptor: _sign(descriptor, command),
        )
        locked = _acquired(lock, folder, name)
    except OSError as error:
        remove_empty(made)
        raise _unwritable(folder, error) from error
    owner = os.getpid()
    try:
        yield
    finally:
        # A forked child that leaves the block has no right to the file.
        if os.getpid() == owner:
            if locked:
                # While it is held: who has opened it already finds that it lost its name, and makes another.
                with suppress(OSError):
                    (folder / name).unlink()
                lock.release()
            remove_empty(made)


def exclusive_file(path: Path, command: str) -> AbstractContextManager[None]:
    """The same for a command that writes one file, or makes a folder: it holds .NAME.glus.lock next to it."""
    return exclusive(path.absolute().parent, command, f".{path.name[:80]}{LOCK}")


def holder(path: Path) -> Holder | None:
    """Who holds the lock file at `path`, None where nobody does. Raises OSError where it cannot be opened."""
    import filelock

    if not path.is_file():
        return None
    lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        with lock.acquire(blocking=False):
            return None
    except filelock.Timeout:
        return _read(path)


def _acquired(lock: "BaseFileLock", folder: Path, name: str) -> bool:
    """Whether the lock is held now; False where the file system keeps no locks. Raises InUseError where it is taken."""
    import filelock

    began = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=RECORD_SECONDS, poll_interval=0.05)
            return True
        except filelock.Timeout as error:
            other = _read(folder / name)
            if time.monotonic() - began < LEASE_SECONDS and _is_predecessor(other):
                time.sleep(1.0)
                continue
            raise InUseError(folder, other) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning(
                "%s: this file system keeps no locks (%s); start no other command that writes there until this one "
                "ends",
                folder,
                error.strerror,
            )
            return False


def _is_predecessor(other: Holder | None) -> bool:
    """Whether a holder is an earlier start of this same SLURM job: then it is dead, and its lock a lease."""
    job = os.environ.get("SLURM_JOB_ID", "")
    again = os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
    return other is not None and again and job == other.job != "" and other.host != socket.gethostname()


def _sign(descriptor: int, command: str) -> None:
    """Write into a lock file who holds it. On a full disk it says nothing and is held all the same."""
    held = Holder(socket.gethostname(), os.getpid(), command, os.environ.get("SLURM_JOB_ID", ""))
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(held)).encode("ascii") + b"\n", 0)
    except OSError as error:
        if error.errno not in _FULL:
            raise


def _read(path: Path) -> Holder | None:
    """What a lock file says, None where it says nothing that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fields = json.loads(os.pread(descriptor, _LONGEST_RECORD, 0))
        finally:
            os.close(descriptor)
        return Holder(str(fields["host"]), int(fields["process"]), str(fields["command"]), str(fields["job"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _unwritable(folder: Path, error: OSError) -> InputError:
    """The error for a folder that cannot be made or written; it names the file that takes the place of a folder."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not os.path.isdir(place):
            return InputError(
                f"{place} is not a folder, so nothing can be written below it: choose another folder", file=str(place)
            )
    return InputError(
        f"{folder}: cannot be written ({error.strerror or error}); choose another folder", file=str(folder)
    )


def missing_folders(folder: Path) -> list[Path]:
    """The folders on the way to `folder`, and itself, that are not there: the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove those of `missing_folders` that are still empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
