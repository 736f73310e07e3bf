"""Paths and URIs as the user writes them: `~` is the home folder; a `~` or `$NAME` that no shell expanded is refused.

A key of a config that holds a path has the type Path or PathText. launch/config/configuration.py expands all of
them, those in lists and mappings too; other texts (expressions, names) stay as they are.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import unquote

from glus.common.errors import InputError


class _PathMark:
    """Marks a text of a config as a path or URI."""

    def __repr__(self) -> str:
        return "path"


#: A text that is a path, or a URI (s3://, sqlite:///, http://): fsspec and MLflow take both.
PathText = Annotated[str, _PathMark()]

_VARIABLE = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[^}]*\}?)")
#: A URI of this machine's disk whose path is relative, so that it may begin with `~`.
_LOCAL = re.compile(r"(?:sqlite(?:\+\w+)?:///|(?:file|local)://)(?=~)", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@]*@")


def expand_path(text: str) -> str:
    """Return the path or URI with `~` or `~user` at its beginning replaced by the home folder.

    Raises InputError for a user without a home folder, for `~` as the name of another folder, for `$NAME` or `${NAME}`,
    and for characters that no path holds. A name with a `$` is taken literally where that file or folder exists.
    """
    if "\0" in text:
        raise InputError("a path cannot hold a NUL character: write another one")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("the path is not UTF-8: rename the folder, or link to it") from error
    opening = _LOCAL.match(text)
    prefix = opening[0] if opening else ""
    home, rest = _home(text[len(prefix) :])
    shown = rest if home or prefix else _USER.sub(_braces, rest)
    _refuse_variable(home + shown)
    for name in re.split(r"[/:]", shown):
        if unquote(name) == "~":
            raise InputError("`~` is the home folder only where a path begins: write the path in full")
    return prefix + home + rest


def refuse_unexpanded(word: str) -> None:
    """Raise InputError for a word that begins as a path that only a shell expands: `~/x`, `$SCRATCH/x`.

    For words of commands and values of variables, which may hold `~` and `$` elsewhere.
    """
    found = _VARIABLE.match(word) or re.match(r"~[\w.-]*(?=/|$)", word)
    if found and word[found.end() :][:1] in ("", "/"):
        raise InputError(f"{found[0]} is not expanded here: write its value")


def holds_paths(hint: Any) -> bool:
    """Whether values of this type (with its annotations) are paths, or contain paths."""
    if isinstance(hint, type) and issubclass(hint, Path):
        return True
    return isinstance(hint, _PathMark) or any(holds_paths(part) for part in _parts(hint))


def expand_paths(value: Any) -> Any:
    """`expand_path` of a text or Path, and of each in a list or mapping (its values); other things stay as they are."""
    if isinstance(value, str):
        return expand_path(value)
    if isinstance(value, Path):
        return Path(expand_path(str(value)))
    if isinstance(value, (list, tuple)):
        return type(value)(expand_paths(part) for part in value)
    if isinstance(value, dict):
        return {name: expand_paths(part) for name, part in value.items()}
    return value


def _parts(hint: Any) -> Iterator[Any]:
    yield from get_args(hint)
    yield from getattr(hint, "__metadata__", ())


def _home(text: str) -> tuple[str, str]:
    """The home folder that the path begins with, "" for none, and the rest of the path."""
    user = re.match(r"~[^/]*", text)
    if not user:
        return "", text
    _refuse_variable(user[0])
    home = os.path.expanduser(user[0])
    if home == user[0]:
        raise InputError(
            f"no home folder of {user[0]!r} is known here: write the path in full (a folder of that name, too)"
        )
    return home, text[len(user[0]) :]


def _braces(user: re.Match[str]) -> str:
    """What must be looked at of user:password@ in a URI: a password may hold `$x`, and is never shown."""
    return "${...}@" if "${" in user[0] else "@"


def _refuse_variable(text: str) -> None:
    for found in _VARIABLE.finditer(text):
        ends = text.find("/", found.end())
        begins = text if ends < 0 else text[:ends]
        if not (os.path.isabs(begins) and os.path.lexists(begins)):
            raise InputError(f"{found[0]} is not expanded here: write its value, or let the shell do it (no quotes)")
