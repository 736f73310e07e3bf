"""The keys of a config: dotted names, types and sections, read off nested dataclasses."""

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def known_keys(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of every key, sections (nested dataclasses, optional ones too) before what is in them."""
    hints = get_type_hints(cls)
    keys: dict[str, Any] = {}
    for field in fields(cls):
        name = f"{prefix}{field.name}"
        keys[name] = hints[field.name]
        section = section_of(hints[field.name])
        if section is not None:
            keys |= known_keys(section, f"{name}.")
    return keys


def section_of(hint: Any) -> type | None:
    """The dataclass of a section `Part` or `Part | None`; None for a plain value."""
    found = [part for part in _alternatives(hint) if isinstance(part, type) and is_dataclass(part)]
    return found[0] if len(found) == 1 else None


def is_table(hint: Any) -> bool:
    """Whether any key may stand below this one: dict[str, float]."""
    return any(get_origin(part) in (dict, Mapping) or part is dict for part in _alternatives(hint))


def is_list(hint: Any) -> bool:
    """Whether the value is a list of things: list[str], tuple[str, ...], Sequence[str]."""
    return any(get_origin(part) in (list, tuple, Sequence) or part in (list, tuple) for part in _alternatives(hint))


def is_flag(hint: Any) -> bool:
    """Whether the value is true or false."""
    return hint is bool


def type_name(hint: Any) -> str:
    """Return a type for messages: "tuple[float, float]", "one of: a, b", "a section"."""
    if get_origin(hint) is Literal:
        return "one of: " + ", ".join(str(value) for value in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in get_args(hint))
    if section_of(hint) is not None:
        return "a section"
    if hint is types.NoneType:
        return "null"
    plain = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    if hint in plain:
        return plain[hint]
    if isinstance(hint, type) and get_origin(hint) is None:
        return "a path" if hint.__name__ == "Path" else hint.__name__
    return str(hint).replace("typing.", "").replace("pathlib.", "")


def nearest_key(name: str, known: Sequence[str]) -> str | None:
    """The known dotted name that was most likely meant: misspelt, or put into the wrong section."""
    known = [key for key in known if not name.startswith(f"{key}.")]
    last = name.rpartition(".")[2]
    same_last = [key for key in known if key.rpartition(".")[2] == last]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    by_last = {key.rpartition(".")[2]: key for key in reversed(known)}
    close_last = [by_last[word] for word in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)]
    return next(iter([*same_last, *close, *close_last]), None)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
