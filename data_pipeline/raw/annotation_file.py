"""Annotation files: JSON as every other file, with room for the largest released ones."""

from pathlib import Path
from typing import Any

from glus.common.errors import DataError, InputError
from glus.common.files import is_there
from glus.common.json_file import parse_json, read_object

#: Bytes of an annotation file at most that is read at once: the largest released one of this kind has 0.6 GB.
LARGEST = 4 * 2**30
REMEDY = "take this file again from the dataset's release"


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


def parse_annotation(content: bytes, path: Path, where: str) -> Any:
    """What a part of an annotation file says. Raises DataError, naming `path` and `where` in it."""
    return parse_json(content, f"{path}, {where}", remedy=REMEDY, raises=DataError, file=str(path), checked_texts=False)
