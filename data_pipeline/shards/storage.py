"""Folders of shards on a disk, on a shared file system, or below an fsspec URL such as s3://bucket/shards.

The only file that imports fsspec. On a disk a file is written aside and renamed; an object store shows an object only
when it is complete, so there a local file is written first and then sent.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from glus.common.atomic import TEMPORARY_PREFIX, atomic_open
from glus.common.errors import DataError, InputError
from glus.common.files import open_regular, read_regular

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_URL_AS_PATH = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+):/(?=[^/])")
#: Bytes fetched at once where a remote file is read from front to back.
STREAM_BLOCK = 4 * 1024**2
#: Bytes of a local file at most that is read at once: a manifest or a part.
LARGEST = 2 * 1024**3


def is_full(place: str | os.PathLike[str]) -> bool:
    """Whether a place means the same from any working folder: an absolute path or a URL."""
    text = os.fspath(place)
    return os.path.isabs(text) or bool(_URL.match(text)) or bool(_URL_AS_PATH.match(text))


@dataclass(frozen=True)
class Storage:
    """A folder. Can be sent to other processes: connections are made where they are used."""

    place: str

    @staticmethod
    def at(place: "str | os.PathLike[str] | Storage") -> "Storage":
        """A local path (file:// too) or a URL that fsspec knows."""
        if isinstance(place, Storage):
            return place
        text = os.fspath(place).removeprefix("file://")
        if isinstance(place, PurePath):
            # pathlib takes the second slash out of an address.
            text = _URL_AS_PATH.sub(r"\1://", text)
        return Storage(text.rstrip("/") if _URL.match(text) else str(Path(text).absolute()))

    def __str__(self) -> str:
        return self.place

    @property
    def local(self) -> Path | None:
        """The folder as a path, None where it is remote."""
        return None if _URL.match(self.place) else Path(self.place)

    def below(self, *names: str) -> "Storage":
        """A folder in this one."""
        return Storage("/".join([self.place, *names]))

    def path(self, name: str) -> str:
        """Where a file of this folder is, for messages and for other readers."""
        return f"{self.place}/{name}"

    def read(self, name: str) -> bytes:
        """All of a file. Raises FileNotFoundError, or DataError where it cannot be read."""
        with self._as_data_error(name, "read"):
            if self.local:
                (self.local / name).stat()  # that it is missing is for the caller
                return read_regular(self.local / name, what="file of shards", largest=LARGEST)
            return bytes(self._remote().cat_file(self.path(name)))

    def read_spans(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """(offset, size) pieces of a remote file, fetched at the same time. Raises DataError, FileNotFoundError."""
        with self._as_data_error(name, "read"):
            starts = [offset for offset, _ in spans]
            ends = [offset + size for offset, size in spans]
            return [bytes(piece) for piece in self._remote().cat_ranges([self.path(name)] * len(spans), starts, ends)]

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where it is not there. Raises DataError where the store does not answer."""
        with self._as_data_error(name, "read"):
            try:
                if self.local:
                    return (self.local / name).stat().st_size if (self.local / name).is_file() else None
                return int(self._remote().info(self.path(name))["size"])
            except FileNotFoundError:
                return None

    def blocks(self, name: str) -> Iterator[bytes]:
        """A file from front to back, in pieces of STREAM_BLOCK. Raises FileNotFoundError, DataError."""
        with self._as_data_error(name, "read"):
            path = self.path(name)
            remote = {"block_size": STREAM_BLOCK, "cache_type": "readahead"}
            if self.local:
                Path(path).stat()  # that it is missing is for the caller
            with open_regular(path, "shard") if self.local else self._remote().open(path, "rb", **remote) as file:
                while block := file.read(STREAM_BLOCK):
                    yield block

    def sha256(self, name: str) -> str:
        """The digest of a file, read back. Raises FileNotFoundError, DataError."""
        digest = hashlib.sha256()
        for block in self.blocks(name):
            digest.update(block)
        return digest.hexdigest()

    @contextmanager
    def written(self, name: str) -> Iterator[BinaryIO]:
        """Open a local file that becomes NAME when the block ends well, and leaves nothing when it does not.

        It may not survive a power cut before `make_durable` was called.
        Raises InputError or DataError where the disk is full or the place cannot be written.
        """
        if self.local:
            with atomic_open(self.local / name, durable=False) as file:
                yield file
            return
        with tempfile.TemporaryDirectory(prefix="glus-") as folder:
            aside = Path(folder) / name.rpartition("/")[2]
            with atomic_open(aside, durable=False) as file:
                yield file
            with self._as_data_error(name, "written"):
                self._remote().put_file(str(aside), self.path(name))
            if self.size(name) != aside.stat().st_size:
                raise DataError(f"{self.path(name)}: arrived incomplete; run again", file=self.path(name))

    def make_durable(self, names: Iterable[str]) -> None:
        """Wait until files are on the disk itself. Raises DataError."""
        for name in names if self.local else ():
            with self._as_data_error(name, "written"), open(self.path(name), "rb") as file:
                os.fsync(file.fileno())

    def write(self, name: str, content: bytes, durable: bool = True) -> None:
        """Write a file, complete or not at all. Raises InputError or DataError as `written`."""
        if self.local:
            with atomic_open(self.local / name, durable) as file:
                file.write(content)
            return
        with self._as_data_error(name, "written"):
            self._remote().pipe_file(self.path(name), content)

    def remove(self, name: str) -> None:
        """Remove a file, there or not. Raises DataError."""
        with self._as_data_error(name, "removed"):
            if self.local:
                (self.local / name).unlink(missing_ok=True)
            elif self.size(name) is not None:
                self._remote().rm_file(self.path(name))

    def files(self, folder: str = "") -> list[str]:
        """Names of the files of this folder, or of a folder in it, sorted; none where there is no such folder."""
        place = self.below(folder) if folder else self
        return sorted(name for name, is_folder in place._entries() if not is_folder)

    def folders(self) -> list[str]:
        """Names of the folders in this one, sorted."""
        return sorted(name for name, is_folder in self._entries() if is_folder)

    def exists(self) -> bool:
        """Whether there is such a folder. A remote one is there when something is in it."""
        return self.local.is_dir() if self.local else bool(self._entries())

    def remove_asides(self) -> None:
        """Remove what killed processes left half-written here."""
        for path in self.local.rglob(f"{TEMPORARY_PREFIX}*") if self.local else ():
            path.unlink(missing_ok=True)

    def _entries(self) -> list[tuple[str, bool]]:
        """(name, whether it is a folder) of everything in this folder; nothing where it is not there."""
        with self._as_data_error("", "listed"):
            try:
                if self.local:
                    return [(path.name, path.is_dir()) for path in self.local.iterdir()]
                found = self._remote().ls(self.place, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = [(str(item["name"]).rstrip("/").rpartition("/")[2], item["type"] == "directory") for item in found]
        # Some stores list the folder itself, as an object without content.
        return [(name, is_folder) for name, is_folder in names if name != self.place.rpartition("/")[2] or is_folder]

    def _remote(self) -> Any:
        """The file system of the URL. fsspec keeps one connection a process and a set of options."""
        import fsspec

        # What other processes write must be seen: no listings are kept.
        return fsspec.core.url_to_fs(self.place, use_listings_cache=False)[0]

    @contextmanager
    def _as_data_error(self, name: str, doing: str) -> Iterator[None]:
        """A file system's own errors as DataError; that a file to be read is missing is left to the caller."""
        try:
            yield
        except DataError:
            raise
        except InputError as error:
            raise DataError(str(error), file=self.path(name)) from error
        except ImportError as error:
            raise DataError(f"{self.place}: fsspec needs a library for such addresses ({error})") from error
        except Exception as error:
            # Each store has exceptions of its own (botocore, aiohttp, ...), and no common class.
            missing = isinstance(error, FileNotFoundError) and doing in ("read", "listed")
            if missing or (self.local and not isinstance(error, OSError)):
                raise
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            remedy = "" if self.local else "; check the address, its credentials and the network, then run again"
            raise DataError(
                f"{self.path(name) if name else self.place}: cannot be {doing} ({reason}){remedy}", file=self.path(name)
            ) from error


class SequentialReader:
    """Reads pieces of a file in order, in large blocks, and hashes it. `where` names the file in messages."""

    def __init__(self, blocks: Iterator[bytes], where: str) -> None:
        self._blocks, self._where = blocks, where
        self._held, self._start = b"", 0
        self._sha256 = hashlib.sha256()

    def take(self, span: tuple[int, int]) -> bytes:
        """Return the piece at `span` (offset, size), which starts behind all taken before.

        Raises DataError where the file ends early.
        """
        offset, size = span
        pieces: list[bytes] = []
        wanted = size
        while wanted or not pieces:
            if offset >= self._start + len(self._held):
                self._start += len(self._held)
                self._held = self._next(offset + wanted)
                continue
            place = offset - self._start
            pieces.append(self._held[place : place + wanted])
            offset, wanted = offset + len(pieces[-1]), wanted - len(pieces[-1])
        return b"".join(pieces)

    def digest(self) -> str:
        """Read the rest of the file. Return the SHA-256 of all of it."""
        for block in self._blocks:
            self._sha256.update(block)
        return self._sha256.hexdigest()

    def _next(self, wanted: int) -> bytes:
        try:
            block = next(self._blocks, b"")
        except FileNotFoundError:
            raise DataError(f"{self._where}: this shard is missing; run `glus prepare` again") from None
        if not block:
            raise DataError(f"{self._where}: ends before byte {wanted}; run `glus prepare` again", file=self._where)
        self._sha256.update(block)
        return block
