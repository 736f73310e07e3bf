"""Annotation files: JSON with an error that says where it is broken."""

import json
from pathlib import Path
from typing import Any

from glus.data_pipeline.errors import DataError


class _RepeatedKeyError(Exception):
    """A key that an object has twice: one of the two would be lost without a word."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(repr(max(keys, key=keys.count)))
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DataError where it is missing or broken (with line and column)."""
    try:
        content = parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise DataError(
            f"{path}: this annotation file is missing; put the dataset there as released", file=str(path)
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", file=str(path)) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON {type(content).__name__} where an object is wanted", file=str(path))
    return content


def parse_json(content: bytes, path: Path, where: str = "") -> Any:
    """What JSON says. Raises DataError, naming `path` and `where` in it, where it is broken or has a key twice."""
    try:
        return json.loads(content, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno}{where} ({error.msg}); take this file "
            "anew",
            file=str(path),
        ) from error
    except _RepeatedKeyError as error:
        raise DataError(f"{path}: has {error} twice{where}; take this file anew", file=str(path)) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: no JSON{where} ({error}); take this file anew", file=str(path)) from error
