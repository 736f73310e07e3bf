"""Typed configs: nested frozen dataclasses <- YAML file <- dotted overrides. jsonargparse checks and converts.

learning_rate: 1e-3                      a key of the file
optimizer.learning_rate=1e-3             an override
--optimizer.learning-rate 1e-3           the same
--optimizer.learning_rate=1e-3           the same
"""

import dataclasses
import enum
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from glus.common.errors import InputError, LaunchError
from glus.common.paths import expand_path, expand_paths, holds_paths
from glus.launch.config.schema import is_flag, is_list, is_table, known_keys, nearest_key, section_of, type_name
from glus.launch.config.value_checks import refuse_texts
from glus.launch.config.yaml_text import format_yaml, parse_yaml, read_yaml

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Config = TypeVar("Config")
#: Our reader of YAML, by the name that jsonargparse knows it by.
_LOADER = "glus"


@dataclass(frozen=True)
class Override:
    """One `key=value` of the command line; `source` is how the user wrote it."""

    key: str
    value: Any
    source: str


def load_config(cls: type[Config], path: Path | None, overrides: Sequence[str]) -> Config:
    """A config of `cls` from its defaults, then a YAML file, then `key=value` or `--key value` words.

    Raises LaunchError for a key that does not exist (with the nearest one that does), a value of another type, a key
    that is missing, a path that cannot be meant (common/paths.py), or words that are none of these.
    """
    found, words = parse_words(cls, overrides)
    if words:
        raise LaunchError(f"{words[0]!r} is no override; write key=value, such as {_example(cls)}")
    return build_config(cls, path, found)


def parse_words(cls: type, words: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Overrides among the words of a command line, and the other words in their order."""
    keys = known_keys(cls)
    overrides, others = [], []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        option = re.fullmatch(r"--([^=\s]+)(?:=(.*))?", word, re.DOTALL)
        if option:
            key, value = _option_key(option[1], keys), option[2]
            source = word
            if value is None:
                value = _next_value(word, keys.get(key), waiting)
                source = f"{word} {value}"
        elif pair := re.fullmatch(r"([A-Za-z_][\w.\-]*)=(.*)", word, re.DOTALL):
            key, value, source = pair[1], pair[2], word
        else:
            others.append(word)
            continue
        overrides.append(Override(key, value, source))
    return overrides, others


def build_config(cls: type[Config], path: Path | None, overrides: Sequence[Override]) -> Config:
    """As load_config, from overrides that were parsed before."""
    keys = known_keys(cls)
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        path = _expanded_file(path)
        content = read_yaml(path)
        if content is not None and not isinstance(content, dict):
            raise LaunchError(f"{path}: a config is a list of `key: value` lines, not {type(content).__name__}")
        for key, value in _leaves(content or {}, keys):
            _put(tree, sources, key, value, str(path))
    for override in overrides:
        value = override.value
        if section_of(keys.get(override.key)) and isinstance(value, str):
            value = parse_yaml(value, override.source)
        for key, leaf in _leaves(value, keys, override.key):
            _put(tree, sources, key, leaf, override.source)
    refuse_texts({key: _get(tree, key) for key in sources})
    _refuse_unknown(cls, keys, sources)
    _refuse_no_section(keys, tree, sources)
    return _with_paths(_instance(cls, keys, tree, sources), sources, None if path is None else str(path))


def to_yaml(config: object) -> str:
    """The resolved config as YAML; load_config reads it back as an equal config."""
    return format_yaml(_plain(config))


def new_parser(described: bool = True) -> "ArgumentParser":
    """Return a parser without arguments that reads values as files are read.

    `described` reads the text of each key from the sources, for help.
    """
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=described)
    # Lists and numbers inside a text ("datasets=[mevis]") are read as those of files are.
    jsonargparse.set_loader(_LOADER, _load_value, exceptions=(LaunchError,))
    return jsonargparse.ArgumentParser(exit_on_error=False, default_env=False, add_help=False, parser_mode=_LOADER)


def add_arguments(
    parser: "ArgumentParser", cls: type, section: str | None = None, skip: AbstractSet[str] = frozenset()
) -> None:
    """Add the keys of a config class, below `section` if one is named, without those in `skip`."""
    parser.add_class_arguments(cls, section, skip={*skip})


@functools.lru_cache(maxsize=64)  # of a run's config it takes 0.2 s
def _parser(cls: type) -> "ArgumentParser":
    parser = new_parser(described=False)
    add_arguments(parser, cls)
    return parser


def _load_value(text: str) -> Any:
    return parse_yaml(text, "value")


def _instance(cls: type[Config], keys: Mapping[str, Any], tree: dict[str, Any], sources: Mapping[str, str]) -> Config:
    import jsonargparse

    parser = _parser(cls)  # type: ignore[arg-type]  # mypy: a type variable is not hashable
    try:
        made = parser.instantiate(parser.parse_object(tree))
        return cls(**vars(made))
    except jsonargparse.ArgumentError as error:
        raise LaunchError(_type_message(cls, str(error), keys, tree, sources)) from error
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:  # a config's own __post_init__
        raise LaunchError(f"{cls.__name__}: {error or type(error).__name__}") from error


def _with_paths(config: Config, sources: Mapping[str, str], file: str | None, prefix: str = "") -> Config:
    """The config with every path in it expanded. Raises LaunchError with the key and, of a file, its name."""
    hints = get_type_hints(type(config), include_extras=True)
    changed = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        key, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            expanded: Any = _with_paths(value, sources, file, f"{key}.")
        elif holds_paths(hints[field.name]):
            try:
                expanded = expand_paths(value)
            except InputError as error:
                # An override is not repeated: its value may hold a password.
                from_file = any(sources[name] == file for name in sources if name == key or name.startswith(f"{key}."))
                raise LaunchError(f"{f'{file}: ' if from_file else ''}{key}: {error}") from error
        else:
            continue
        if expanded != value:
            changed[field.name] = expanded
    return dataclasses.replace(config, **changed) if changed else config  # type: ignore[type-var]


def _expanded_file(path: Path) -> Path:
    try:
        return Path(expand_path(str(path)))
    except InputError as error:
        raise LaunchError(f"config file: {error}") from error


def _type_message(
    cls: type, message: str, keys: Mapping[str, Any], tree: Mapping[str, Any], sources: Mapping[str, str]
) -> str:
    """Return a message with the file or option and the type wanted; jsonargparse names the parser's key only."""
    missing = re.search(r'arguments are required: ([\w., ]+)|[Kk]ey "([\w.]+)" is required', message)
    if missing:
        # Of an optional section only the last part is named.
        full = {name: name if name in keys else _ending_in(name, keys, tree) for name in _names(missing)}
        missing_keys = ", ".join(
            f"{key}=... ({type_name(keys[key])})" if key in keys else f"{key}=..." for key in full.values()
        )
        return f"{cls.__name__} needs {missing_keys}; there is no default"
    named = re.search(r'[Kk]ey "([\w.\-]+)"', message)
    key = named[1] if named else ""
    given = [name for name in sources if name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.")]
    if key not in keys or not given:
        return f"{cls.__name__}: {message}"
    worst = given[0]
    value = _get(tree, worst)
    shown = f'"{value:.200}"' if isinstance(value, str) else f"{value!r:.200}"
    text = f"{sources[worst]}: {worst} = {shown} does not fit; wanted: {type_name(keys.get(worst, keys[key]))}"
    if is_list(keys.get(worst)) and isinstance(value, str) and not value.startswith("["):
        text += f", such as {worst}=[{value}]"
    return text


def _names(missing: re.Match[str]) -> list[str]:
    return str(missing[1] or missing[2]).split(", ")


def _ending_in(name: str, keys: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    """The one key of a section that is given which ends in `name`; `name` itself where there are none or several."""
    found = [key for key in keys if key.endswith(f".{name}") and key.partition(".")[0] in tree]
    return found[0] if len(found) == 1 else name


def _refuse_unknown(cls: type, keys: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    unknown = [key for key in sources if key not in keys and not _in_table(key, keys)]
    if not unknown:
        return
    lines = []
    for key in unknown:
        near = nearest_key(key, list(keys))
        if near:
            meant = f"did you mean {near} ({type_name(keys[near])})?"
        else:
            meant = f"there are: {', '.join(_neighbours(key, keys))}"
        lines.append(f"{sources[key]}: no key {key!r} in {cls.__name__}; {meant}")
    raise LaunchError("; ".join(lines))


def _refuse_no_section(keys: Mapping[str, Any], tree: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    for key, source in sources.items():
        section = section_of(keys.get(key))
        value = _get(tree, key)
        if section is None or isinstance(value, dict) or (value is None and keys[key] is not section):
            continue
        raise LaunchError(f"{source}: {key} is a section with the keys {', '.join(known_keys(section))}; not {value!r}")


def _leaves(value: Any, keys: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name -> value of everything given; a mapping is opened where it is a section or is not known at all."""
    is_section = not prefix or section_of(keys.get(prefix)) is not None
    unknown = prefix not in keys and not _in_table(prefix, keys)
    if isinstance(value, dict) and (is_section or unknown) and (value or not prefix):
        for name, part in value.items():
            yield from _leaves(part, keys, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def _put(tree: dict[str, Any], sources: dict[str, str], key: str, value: Any, source: str) -> None:
    *parents, last = key.split(".")
    place = tree
    for parent in parents:
        if not isinstance(place.get(parent), dict):
            place[parent] = {}
        place = place[parent]
    place[last] = value
    for below in [name for name in sources if name.startswith(f"{key}.")]:
        del sources[below]
    sources[key] = source


def _get(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value[part]
    return value


def _in_table(key: str, keys: Mapping[str, Any]) -> bool:
    parent, _, last = key.rpartition(".")
    return bool(parent and last) and parent in keys and is_table(keys[parent])


def _option_key(text: str, keys: Mapping[str, Any]) -> str:
    """--gpus-per-node for gpus_per_node, unless the name is right as it stands."""
    changed = text.replace("-", "_")
    return changed if changed in keys and text not in keys else text


def _next_value(option: str, hint: Any, waiting: list[str]) -> str:
    if is_flag(hint) and (not waiting or waiting[0].lower() not in ("true", "false")):
        return "true"
    if not waiting or waiting[0].startswith("--"):
        raise LaunchError(f"{option} needs a value: {option} VALUE")
    return waiting.pop(0)


def _example(cls: type) -> str:
    plain = [key for key, hint in known_keys(cls).items() if section_of(hint) is None]
    return f"{plain[0]}=..." if plain else "key=value"


def _neighbours(key: str, keys: Mapping[str, Any]) -> list[str]:
    """The keys of the section that `key` was looked for in."""
    section = key.rpartition(".")[0]
    prefix = f"{section}." if section_of(keys.get(section)) else ""
    return [known for known in keys if known.startswith(prefix) and "." not in known[len(prefix) :]]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    return value
