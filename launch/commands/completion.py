"""`glus completion bash`: a script with which a shell completes commands, keys and their choices, by shtab."""

import argparse
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from glus.common.paths import holds_paths
from glus.launch.config.schema import is_flag, known_keys, section_of


@dataclass(frozen=True)
class CompletionConfig:
    """For which shell the script is."""

    shell: Literal["bash", "zsh", "tcsh"] = "bash"
    """The shell that reads the script; `glus completion --help` shows where to write it."""


def completion(config: CompletionConfig) -> None:
    """Print the script. It knows this version's commands and keys, so that completing starts no Python."""
    import shtab

    print(shtab.complete(_glus_parser(), config.shell))


def _glus_parser() -> argparse.ArgumentParser:
    """All commands with their keys as options, as argparse sees them."""
    from glus.launch.cli import COMMANDS, load_config_class

    parser = argparse.ArgumentParser("glus")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        cls = load_config_class(command)
        keys = known_keys(cls)
        own = commands.add_parser(name, help=command.help)
        own.add_argument("--print-config", action="store_true", help="print the config that would be used")
        for key, hint in keys.items():
            if section_of(hint) is None:
                _add(own, f"--{key}", hint)
        first = keys.get(command.first or command.words)
        if get_origin(first) is Literal:
            own.add_argument("first", nargs="?", choices=[str(each) for each in get_args(first)])
        words: Any = own.add_argument("words", nargs="*")
        words.complete = _files()
    return parser


def _add(parser: argparse.ArgumentParser, option: str, hint: Any) -> None:
    choices = [str(each) for each in get_args(hint)] if get_origin(hint) is Literal else None
    added: Any = parser.add_argument(option, choices=["true", "false"] if is_flag(hint) else choices)
    if holds_paths(hint):
        added.complete = _files()


def _files() -> dict[str, str]:
    import shtab

    return dict(shtab.FILE)
