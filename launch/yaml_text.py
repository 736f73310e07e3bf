"""YAML as configs use it: the core schema of YAML 1.2, safe, without duplicate keys.

PyYAML follows YAML 1.1, where `no` is false, `1e-3` a text and `12:30` a number; none of that is wanted in a config.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from glus.launch.errors import LaunchError

#: tag, pattern, first characters (None: any)
RESOLVERS: tuple[tuple[str, str, list[str] | None], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a text; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice, in lines {seen[key]} and {line}", key_node.start_mark
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # PyYAML writes the items of a list at the column of their key, which reads worse.
        super().increase_indent(flow, False)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text.startswith(("0x", "0o")) else int(text)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace(".inf", "inf").replace(".nan", "nan").lower())


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Line breaks to YAML, which PyYAML writes as they are and reads back as a blank; in double quotes it escapes them.
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


def _lay_schema() -> None:
    for tag, pattern, first in RESOLVERS:
        for side in (_Loader, _Dumper):
            side.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)
    _Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
    _Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
    _Dumper.add_representer(str, _represent_text)


_lay_schema()


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; raises LaunchError with the place of what cannot be read."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark and "\n" in text.strip() else where
        raise LaunchError(f"{place}: not readable as YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise LaunchError(f"{where}: not readable as YAML: {error}") from error


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; raises LaunchError where it is absent or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LaunchError(f"{path}: no such config file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(f"{path}: cannot be read as a config file ({error})") from error
    return parse_yaml(text, str(path))


def format_yaml(value: Any) -> str:
    """A YAML text of dicts, lists and scalars that parse_yaml reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
