"""The one JSON reader: every way in which a file or text can be wrong becomes one UserError that says where.

The standard library raises seven kinds of exceptions here, and accepts what breaks later: NaN, 1e999, half of a
surrogate pair, a key twice, thousands of lists within each other. None of that gets past `parse_json`.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from glus.common.errors import InputError, UserError
from glus.common.files import read_regular

Content = TypeVar("Content")

#: Bytes of a file at most, unless a reader says otherwise.
LARGEST = 256 * 2**20
#: Lists and objects within each other at most, so that recursive code may walk the content.
DEEPEST = 64
#: Digits of an integer at most: transformers writes 10**30 for "no limit".
DIGITS = 40
#: What to do, unless a reader says otherwise.
REMEDY = "take this file again from where it came"

_BOM = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff", b"\0")
#: Every digit as 0, all else as a blank: a long number is then a long run of zeros.
_AS_RUNS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
#: Escapes that json reads as NUL or as half of a surrogate pair.
_SUSPECT = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
_UNFIT = re.compile("[\0\ud800-\udfff]")


class _Refused(Exception):
    """What json accepts and we do not."""


def read_json(
    path: Path | str,
    what: str = "file",
    *,
    remedy: str = REMEDY,
    largest: int = LARGEST,
    raises: type[UserError] = InputError,
    checked_texts: bool = True,
    finite: bool = True,
) -> Any:
    """Return the content of a JSON file: UTF-8, with or without a byte order mark.

    `what` names the kind of file in messages ("config", "manifest"), `remedy` says what to do about a broken one.
    Raises `raises` where it is absent, no regular file, larger than `largest` bytes, or refused by `parse_json`.
    """
    try:
        content = read_regular(path, what, largest)
    except InputError as error:
        raise raises(str(error), file=str(path)) from error
    return parse_json(
        content, str(path), remedy=remedy, raises=raises, file=str(path), checked_texts=checked_texts, finite=finite
    )


def read_object(
    path: Path | str,
    what: str = "file",
    *,
    raises: type[UserError] = InputError,
    remedy: str = REMEDY,
    **options: Any,
) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object. Options and errors as `read_json`."""
    return as_object(read_json(path, what, raises=raises, remedy=remedy, **options), str(path), raises, remedy)


def read_as(
    path: Path | str,
    cls: type[Content],
    what: str = "file",
    *,
    raises: type[UserError] = InputError,
    remedy: str = REMEDY,
    **options: Any,
) -> Content:
    """Return the dataclass `cls` from a JSON object with its fields, types checked, no field missing or unknown.

    Options and errors as `read_json`.
    """
    content = read_json(path, what, raises=raises, remedy=remedy, **options)
    return parsed_as(content, cls, str(path), raises=raises, remedy=remedy)


def parse_json(
    content: bytes | str,
    where: str,
    *,
    remedy: str = REMEDY,
    raises: type[UserError] = InputError,
    file: str | None = None,
    checked_texts: bool = True,
    finite: bool = True,
) -> Any:
    """Return what a JSON text says.

    Raises `raises` with `where`, line and column, and `remedy` for: broken syntax, another encoding than UTF-8, a key
    twice, NaN and Infinity, a float beyond 1.8e308, an integer of more than DIGITS digits, more than DEEPEST levels,
    and texts with NUL or half a surrogate pair. Without `finite` NaN and Infinity pass; without `checked_texts` any
    text does: the caller checks those it uses.
    """
    try:
        raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        found = _parse(raw, finite)
        _check_depth(found)
        if checked_texts and _SUSPECT.search(raw):
            _check_texts(found)
        return found
    except json.JSONDecodeError as error:
        said = f"broken JSON at line {error.lineno}, column {error.colno} ({error.msg})"
    except UnicodeDecodeError as error:
        said = f"no UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}): save it as UTF-8"
    except _Refused as error:
        said = str(error)
    except RecursionError:
        said = f"lists and objects lie more than {DEEPEST} deep in each other"
    except MemoryError:
        said = "too large for the memory of this machine"
    except (ValueError, OverflowError) as error:
        said = f"no JSON ({error})"
    raise raises(f"{where}: {said}; {remedy}", file=file)


def as_object(content: Any, where: str, raises: type[UserError] = InputError, remedy: str = REMEDY) -> dict[str, Any]:
    """Return `content`, a JSON object. Raises `raises` where it is anything else."""
    if not isinstance(content, dict):
        raise raises(f"{where}: {kind_of(content)} where an object is wanted; {remedy}", file=where)
    return content


def parsed_as(
    content: Any, cls: type[Content], where: str, *, raises: type[UserError] = InputError, remedy: str = REMEDY
) -> Content:
    """Return the dataclass `cls` made of a JSON object, or another type that pydantic knows, made of any JSON.

    Raises `raises` naming the first field that is wrong.
    """
    from pydantic import TypeAdapter, ValidationError  # slow to import

    if dataclasses.is_dataclass(cls):
        as_object(content, where, raises, remedy)
    try:
        return TypeAdapter(cls).validate_json(json.dumps(content), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = "unknown key" if first["type"] == "unexpected_keyword_argument" else first["msg"]
        place = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
        raise raises(f"{where}: {place}{said}; {remedy}", file=where) from error
    except (ValueError, OverflowError) as error:
        raise raises(f"{where}: {error}; {remedy}", file=where) from error


def kind_of(value: Any) -> str:
    """Name a JSON value's kind for a message: "a JSON list"."""
    names = {dict: "object", type(None): "null", bool: "boolean", int: "number", float: "number", str: "text"}
    return f"a JSON {names.get(type(value), type(value).__name__)}"


def is_unfit(text: str) -> bool:
    """Whether a text holds NUL or half a surrogate pair: no file, path or terminal takes it."""
    return _UNFIT.search(text) is not None


def shortened(text: str, most: int = 60) -> str:
    """Return the text in quotes, cut where it is long."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}..."


def _parse(raw: bytes, finite: bool) -> Any:
    raw = raw.removeprefix(_BOM)
    if raw.startswith(_OTHER_ENCODINGS) or b"\0" in raw[:4]:
        raise _Refused("no UTF-8 text (it looks like UTF-16 or UTF-32): save it as UTF-8")
    # Long numbers are rare and the hook is slow (files hold a hundred million numbers): look for them first.
    long = b"0" * (DIGITS + 1) in raw.translate(_AS_RUNS)
    return json.loads(
        raw.decode("utf-8"),
        object_pairs_hook=_each_once,
        parse_constant=_no_constant if finite else None,
        parse_float=_finite,
        parse_int=_short if long else None,
    )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise _Refused(f"has {shortened(twice)} twice")
    return content


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Refused(f"the number {shortened(text)} is too large")
    return value


def _short(text: str) -> int:
    if len(text) > DIGITS:
        raise _Refused(f"an integer of {len(text)} digits is too large")
    return int(text)


def _check_depth(content: Any) -> None:
    level = [content] if isinstance(content, (dict, list)) else []
    for _ in range(DEEPEST):
        if not level:
            return
        level = [
            part
            for each in level
            for part in (each.values() if type(each) is dict else each)
            if type(part) is dict or type(part) is list
        ]
    if level:
        raise _Refused(f"lists and objects lie more than {DEEPEST} deep in each other")


def _check_texts(content: Any) -> None:
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if is_unfit(value):
                raise _Refused(f"the text {shortened(value)} holds NUL or half of a surrogate pair")
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
