"""Annotation files: JSON, read at once, or member by member: masks of a dataset are a gigabyte of it.

Read at once, such a file takes three times its size in each worker (docs/log.md). `open_members` finds in one pass
where each member lies, and a member is read from the file when it is wanted.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from glus.common.errors import DataError, InputError
from glus.common.files import is_there, open_regular
from glus.common.json_file import parse_json, read_object

#: Bytes of an annotation file at most that is read at once: the largest released one of this kind has 0.6 GB.
LARGEST = 4 * 2**30
REMEDY = "take this file again from the dataset's release"
#: Bytes of the file that are looked at together.
BLOCK = 2**20
#: What opens (1) and what closes (2), by byte.
_BRACKETS = np.zeros(256, np.uint8)
_BRACKETS[[*b"[{"]], _BRACKETS[[*b"]}"]] = 1, 2
#: What stands before the value of a member: {"name": or ,"name":
_NAME = re.compile(rb'\s*([{,])\s*("(?:[^"\\]|\\.)*")\s*:\s*')


def read_annotation(path: Path) -> dict[str, Any]:
    """The object in an annotation file. Raises DataError where it is missing or broken (with line and column).

    Half a surrogate pair is let through: one bad expression must not cost all others (annotated_split.py).
    """
    try:
        there = is_there(path)
    except InputError as error:
        raise DataError(str(error), file=str(path)) from error
    if not there:
        raise DataError(f"{path}: this annotation file is missing; put the dataset there as released", file=str(path))
    return read_object(path, "annotation file", remedy=REMEDY, largest=LARGEST, raises=DataError, checked_texts=False)


class JsonMembers(Mapping[str, Any]):
    """The members of the object in a JSON file. Raises DataError where a member that is asked for is broken."""

    def __init__(self, path: Path, spans: Mapping[str, tuple[int, int]]) -> None:
        """Use `open_members`. `spans` are (first byte, byte behind) of each member's value."""
        self._path, self._spans = path, spans

    def __getitem__(self, name: str) -> Any:
        start, end = self._spans[name]
        try:
            with open_regular(self._path, "annotation file") as file:
                content = os.pread(file.fileno(), end - start, start)
        except InputError as error:
            raise DataError(str(error), file=str(self._path)) from error
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror})", file=str(self._path)) from error
        where = f"{self._path}, {name!r} from byte {start} on"
        return parse_json(content, where, remedy=REMEDY, raises=DataError, file=str(self._path), checked_texts=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


def open_members(path: Path, block: int = BLOCK) -> Mapping[str, Any]:
    """The members of the object in a JSON file, all of them lists or objects; any other file is parsed at once.

    Raises DataError where it is missing, or no such object.
    """
    try:
        with open_regular(path, "annotation file") as file:
            spans = _spans(file, block)
    except (InputError, OSError):
        return read_annotation(path)
    return read_annotation(path) if spans is None else JsonMembers(path, spans)


def _spans(file: BinaryIO, block: int) -> dict[str, tuple[int, int]] | None:
    """Where the values lie; None where the file is anything but an object of lists and objects with names of their own.

    Brackets are counted, not matched: a value that mixes them up is found when it is parsed.
    """
    starts, ends, complete = _values(file, block)
    if not complete or len(starts) != len(ends):
        return None
    spans: dict[str, tuple[int, int]] = {}
    before = 0
    for start, end in zip(starts, ends, strict=True):
        match = _NAME.fullmatch(os.pread(file.fileno(), start - before, before))
        # The first name follows the object's own bracket, the others a comma.
        if match is None or (match.group(1) == b"{") != (before == 0):
            return None
        try:
            name = parse_json(match.group(2), "name", checked_texts=False)
        except InputError:
            return None
        if name in spans:
            return None
        spans[name] = (start, end)
        before = end
    rest = os.pread(file.fileno(), os.fstat(file.fileno()).st_size - before, before)
    return spans if spans and rest.strip() == b"}" else None


def _values(file: BinaryIO, block: int) -> tuple[list[int], list[int], bool]:
    """First byte of, and byte behind, each bracketed value of the outermost object; whether all brackets are closed."""
    starts: list[int] = []
    ends: list[int] = []
    place, depth, quoted = 0, 0, 0
    while content := file.read(block):
        while content.endswith(b"\\") and (more := file.read(1)):
            content += more
        # Of the same length, and without quotation marks that end no string.
        plain = np.frombuffer(content.replace(b"\\\\", b"  ").replace(b'\\"', b"  "), np.uint8)
        quotes = np.flatnonzero(plain == ord('"'))
        marks = np.flatnonzero(_BRACKETS[plain])
        marks = marks[(np.searchsorted(quotes, marks) + quoted) % 2 == 0]
        steps = np.where(_BRACKETS[plain[marks]] == 1, 1, -1)
        depths = depth + np.cumsum(steps)
        starts += (place + marks[(depths == 2) & (steps == 1)]).tolist()
        ends += (place + 1 + marks[(depths == 1) & (steps == -1)]).tolist()
        if len(marks):
            depth = int(depths[-1])
        quoted = (quoted + len(quotes)) % 2
        place += len(content)
    return starts, ends, depth == 0 and not quoted
