"""What names from outside may send to a terminal: their letters, never control characters.

An escape sequence in a video's name could move the cursor, hide lines, or set the window's title.
"""

import logging
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from glus.common.urls import hide_secrets

if TYPE_CHECKING:
    from rich.text import Text

#: C0 and C1 control characters, DEL, marks that change the direction of writing, line separators, lone surrogates.
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_KEPT = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BREAKS = re.compile(r"[ \t]*[\r\n]+[ \t]*")


def one_line(text: object) -> str:
    """Return a text as one line: its line breaks as blanks, other control characters as escapes (\\x1b), no secrets."""
    return _CONTROL.sub(_escaped, _BREAKS.sub(" ", hide_secrets(str(text)).strip("\r\n")))


def plain(text: object) -> str:
    """Return a text with its lines and tabs, other control characters as escapes (\\x1b), no secrets."""
    return _KEPT.sub(_escaped, hide_secrets(str(text)))


def cell(text: object) -> "Text":
    """Return a table's cell with the text as it is: no control characters, and nothing that rich takes for markup."""
    from rich.text import Text

    return Text(one_line(text))


def cells(texts: Iterable[object]) -> "list[Text]":
    """Return `cell` of each text."""
    return [cell(text) for text in texts]


class PlainFormatter(logging.Formatter):
    """Log records as `plain` text, whatever names they hold."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line without control characters."""
        return plain(super().format(record))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


#: tqdm reads it when it is imported. Our own bars (progress.py) know the value and are shown.
VARIABLE, OTHERS = "TQDM_DISABLE", "others"


def quiet_other_bars() -> None:
    """Hide them in this process and its children, unless stderr is a terminal. Called before tqdm is imported."""
    if not is_terminal(sys.stderr):
        os.environ.setdefault(VARIABLE, OTHERS)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; not where there is none or it is closed."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
