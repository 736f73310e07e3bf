"""The help of a command: every key with its type and default, grouped by section, and examples at the end."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_type_hints

from glus.launch.config.configuration import add_arguments, new_parser
from glus.launch.config.schema import section_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def config_help(cls: type, usage: str, description: str, examples: Sequence[str] = ()) -> str:
    """Every key with its type, default and docs (the docstrings of the dataclasses and of their attributes)."""
    parser = _parser(cls)
    parser.usage = usage
    parser.description = description
    # jsonargparse would take the path of a file for a section; load_config does not (one file, one place to look).
    text = re.sub(r"^ +--\S+ CONFIG\s+Path to a configuration file\.\n", "", parser.format_help(), flags=re.MULTILINE)
    text = re.sub(r"Annotated\[str,\s+path\]|<class\s+'Path'>|\bPath\b(?=[ |\],)])", "path", text)
    if examples:
        text = f"{text.rstrip()}\n\nExamples:\n" + "".join(f"  {line}\n" for line in examples)
    return text


def _parser(cls: type) -> "ArgumentParser":
    """A parser with the keys of optional sections (`Part | None`) too, which a value for the section would hide."""
    hints = get_type_hints(cls)
    optional = {name: found for name, hint in hints.items() if (found := section_of(hint)) and hint is not found}
    parser = new_parser()
    add_arguments(parser, cls, skip=set(optional))
    for name, section in optional.items():
        add_arguments(parser, section, name)
    return parser
