"""YAML as configs use it: the core schema of YAML 1.2, safe, without duplicate keys.

PyYAML follows YAML 1.1, where `no` is false, `1e-3` a text and `12:30` a number; none of that is wanted in a config.
"""

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from glus.common.errors import InputError, LaunchError
from glus.common.files import read_regular
from glus.common.json_file import DEEPEST, DIGITS, is_unfit, shortened

#: Bytes of a config file at most.
LARGEST = 256 * 2**10
#: Values of a config at most, those that an alias repeats counted each time.
MOST_VALUES = 10_000

#: tag, pattern, first characters (None: any)
RESOLVERS: tuple[tuple[str, str, list[str] | None], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
)
#: tag -> all its patterns
_PATTERNS = {
    tag: "|".join(f"(?:{pattern})" for name, pattern, _ in RESOLVERS if name == tag) for tag, _, _ in RESOLVERS
}


class _Loader(yaml.SafeLoader):
    """The core schema alone, and no more of it than a config needs."""

    yaml_implicit_resolvers: dict[Any, Any] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, int] = {}
        self._open: list[yaml.Node] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        # What follows is this node's event; an alias brings the node that was composed before.
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if len(self._open) > DEEPEST:
            raise _problem(f"lists and sections lie more than {DEEPEST} deep in each other", event.start_mark)
        above = self._open
        self._open = [*above, parent] if parent is not None else above
        node = super().compose_node(parent, index)
        assert node is not None
        if isinstance(event, yaml.AliasEvent) and any(node is each for each in self._open):
            raise _problem(f"*{event.anchor} lies in &{event.anchor}, so it has no end", event.start_mark)
        self._open = above
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in _parts(node))
        if max(size, len(self._sizes)) > MOST_VALUES:
            raise _problem(f"has more than {MOST_VALUES:,} values, each alias counted in full", event.start_mark)
        if isinstance(node, yaml.ScalarNode) and is_unfit(node.value):
            raise _problem("a text holds NUL or half of a surrogate pair", event.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _problem(f"key {key!r} is not a text; put it in quotes", key_node.start_mark)
            if key in seen:
                raise _problem(
                    f"key {shortened(key)} stands twice, in lines {seen[key]} and {line}", key_node.start_mark
                )
            seen[key] = line
        # Not SafeLoader's own: it would merge sections where a key is tagged as `<<`.
        return yaml.constructor.BaseConstructor.construct_mapping(self, node, deep)


def _problem(what: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, what, mark)


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # PyYAML writes the items of a list at the column of their key, which reads worse.
        super().increase_indent(flow, False)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > DIGITS or not re.fullmatch(_PATTERNS["int"], text):
        raise _problem(f"{shortened(text)} is no integer of at most {DIGITS} digits", node.start_mark)
    return int(text, 0) if text.startswith(("0x", "0o")) else int(text)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node))
    if not re.fullmatch(_PATTERNS["float"], text):
        raise _problem(f"{shortened(text)} is no number", node.start_mark)
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if math.isinf(value) and "inf" not in text.lower():
        raise _problem(f"the number {shortened(text)} is too large", node.start_mark)
    return value


def _construct_bool(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node)).lower()
    if text not in ("true", "false"):
        raise _problem(f"{shortened(text)} is neither true nor false", node.start_mark)
    return text == "true"


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Line breaks to YAML, which PyYAML writes as they are and reads back as a blank; in double quotes it escapes them.
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


def _lay_schema() -> None:
    for tag, pattern, first in RESOLVERS:
        for side in (_Loader, _Dumper):
            side.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)
    own = {"int": _construct_int, "float": _construct_float, "bool": _construct_bool}
    safe = yaml.SafeLoader.yaml_constructors
    kept = {name: safe[f"tag:yaml.org,2002:{name}"] for name in ("null", "str", "seq", "map")}
    for name, construct in {**kept, **own}.items():
        _Loader.add_constructor(f"tag:yaml.org,2002:{name}", construct)
    # What any other tag comes to: "could not determine a constructor".
    _Loader.add_constructor(None, safe[None])
    _Dumper.add_representer(str, _represent_text)


_lay_schema()


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; raises LaunchError with the place of what cannot be read."""
    if len(text) > LARGEST:
        raise LaunchError(f"{where}: more than {LARGEST:,} characters, too many for a config: name a config file")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark and "\n" in text.strip() else where
        said = error.problem or error.context
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        place = f"{where}, line {line}" if "\n" in text.strip() else where
        said = f"character U+{error.character:04X} may not stand in YAML"
    except RecursionError:
        place, said = where, f"lists and sections lie more than {DEEPEST} deep in each other"
    except (yaml.YAMLError, ValueError, OverflowError, MemoryError) as error:
        place, said = where, " ".join(str(error).split()) or type(error).__name__
    raise LaunchError(f"{place}: not readable as YAML: {said}")


def read_yaml(path: Path) -> Any:
    """The value of a YAML file, UTF-8 with or without a byte order mark; raises LaunchError with the place."""
    try:
        content = read_regular(path, "config file", LARGEST)
    except InputError as error:
        raise LaunchError(str(error), file=str(path)) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = f"byte {error.start} is 0x{content[error.start]:02x}"
        raise LaunchError(f"{path}: no UTF-8 text ({at}): save this config file as UTF-8", file=str(path)) from error
    return parse_yaml(text, str(path))


def format_yaml(value: Any) -> str:
    """A YAML text of dicts, lists and scalars that parse_yaml reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
