"""Regular files: opened without waiting, read up to a limit, digested, and folders made next to what they replace."""

import errno
import hashlib
import os
import secrets
import stat
from io import BufferedReader
from pathlib import Path

from glus.common.errors import InputError

#: The first line of what Git keeps instead of a large file until `git lfs pull` fetches it.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: No pointer is larger (the specification says less than 1024 bytes).
_LARGEST_POINTER = 1024
#: Bytes that are read at once of a file that says no size.
_BLOCK = 2**20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path | str, what: str = "file", largest: int | None = None) -> BufferedReader:
    """Open a regular file for reading; `what` names it in messages ("frame", "config", "weights").

    Raises InputError at once for anything else (folder, pipe, device, socket), a file of more than `largest` bytes, one
    that is absent or may not be read, a path that no file can have, and a Git LFS pointer.
    """
    try:
        _check_kind(path, what, os.stat(path).st_mode)
        # A pipe that takes its place now must not block the opening.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, what, error) from error
    except ValueError as error:
        raise InputError(
            f"{str(path)!r}: no {what} can have this path ({error}): correct it", file=str(path)
        ) from error
    file = os.fdopen(descriptor, "rb")
    try:
        status = os.fstat(descriptor)
        _check_kind(path, what, status.st_mode)
        if largest is not None and status.st_size > largest:
            raise _too_large(path, what, largest)
        if status.st_size <= _LARGEST_POINTER and os.pread(descriptor, len(LFS_POINTER), 0) == LFS_POINTER:
            raise InputError(
                f"{path}: a Git LFS pointer instead of the {what}: run `git lfs pull` in its folder", file=str(path)
            )
    except OSError as error:
        file.close()
        raise unreadable(path, what, error) from error
    except InputError:
        file.close()
        raise
    return file


def read_regular(path: Path | str, what: str = "file", largest: int | None = None) -> bytes:
    """All bytes of a regular file. Raises InputError as `open_regular`; never reads more than `largest` bytes."""
    with open_regular(path, what, largest) as file:
        try:
            if largest is None:
                return file.read()
            # Not all of `largest` at once: that much memory would be asked for, whatever the file's size.
            content = file.read(os.fstat(file.fileno()).st_size + 1)
            while len(content) <= largest and (more := file.read(_BLOCK)):
                content += more  # files of /proc have no size, others grow
        except OSError as error:
            raise unreadable(path, what, error) from error
    if len(content) > largest:
        raise _too_large(path, what, largest)
    return content


def sha256_of(path: Path | str, what: str = "file", *, needed_again: bool = True) -> str:
    """SHA-256 of a regular file, in hexadecimal. Raises InputError as `open_regular`.

    Without `needed_again` its pages leave the cache: hundreds of gigabytes must not push out what a run reads.
    """
    with open_regular(path, what) as file:
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not needed_again:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise unreadable(path, what, error) from error
    return digest


def is_there(path: Path | str) -> bool:
    """Whether there is anything at a path.

    Raises InputError where that cannot be seen, without permission say, and for a link to nothing: as files are
    kept by git-annex and in caches of downloads, what it stands for is missing and not left out.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not os.path.islink(path):
            return False
        raise InputError(
            f"{path}: a link to {os.readlink(path)}, which is not there: copy the file itself (`cp -L`), or fetch it",
            file=str(path),
        ) from error
    except (OSError, ValueError) as error:
        raise unreadable(path, "file", error if isinstance(error, OSError) else OSError(str(error))) from error
    return True


def unreadable(path: Path | str, what: str, error: OSError) -> InputError:
    """The InputError for an OSError of opening or reading: absent, without permission, or broken."""
    if error.errno in (errno.EACCES, errno.EPERM):
        message = f"{path}: no permission to read the {what}: ask its owner for `chmod a+rX` on it and its folders"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        message = f"{path}: no such {what}: correct the path"
    else:
        message = f"{path}: the {what} cannot be read ({error.strerror or error}): check the path and the disk"
    return InputError(message, file=str(path))


def give_usual_mode(path: Path) -> None:
    """Give a file the mode that a new one gets here (umask, default ACL). Raises OSError.

    safetensors and tempfile make files that only their owner reads.
    """
    probe = _unused(path.parent, f".{path.name[:100]}.", ".mode")
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        os.chmod(path, stat.S_IMODE(os.fstat(descriptor).st_mode))
    finally:
        os.close(descriptor)
        os.unlink(probe)


def make_folder_aside(parent: Path, prefix: str, suffix: str) -> Path:
    """Make a folder of an unused name in `parent`, with the usual mode. Raises OSError.

    tempfile.mkdtemp makes one that only its owner enters, and keeps that mode when it is renamed.
    """
    path = _unused(parent, prefix, suffix)
    path.mkdir()
    return path


def _unused(parent: Path, prefix: str, suffix: str) -> Path:
    return parent / f"{prefix}{secrets.token_hex(6)}{suffix}"


def _check_kind(path: Path | str, what: str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for matches, name in _KINDS if matches(mode)), "no regular file")
    raise InputError(f"{path}: {kind} instead of a regular file: name the {what} itself", file=str(path))


def _too_large(path: Path | str, what: str, largest: int) -> InputError:
    return InputError(
        f"{path}: more than {largest:,} bytes, too many for this {what}: check that it is the right file",
        file=str(path),
    )
