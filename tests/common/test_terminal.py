"""Names from outside reach the terminal without control characters."""

import logging

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from glus.common.terminal import PlainFormatter, cells, one_line, plain

HOSTILE = "a\x1b[2Jb\x9b31mc\x07d\u202ee\x00f\x7f"


def test_escape_sequences_are_shown_and_do_not_act() -> None:
    assert one_line(HOSTILE) == "a\\x1b[2Jb\\x9b31mc\\x07d\\u202ee\\x00f\\x7f"
    assert one_line("first\n  second\r\nthird\rfourth\u2028fifth\n") == "first second third fourth\\u2028fifth"
    assert plain("first\n\tsecond\x1b[0m\r") == "first\n\tsecond\\x1b[0m\\r"
    assert one_line("Grüße, 漢字, 👩\u200d🚀") == "Grüße, 漢字, 👩\u200d🚀"


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_printed_as_one_line(text: str) -> None:
    shown = one_line(text)
    shown.encode("utf-8")
    assert "\x1b" not in shown and len(shown.splitlines()) <= 1


def test_a_table_shows_names_as_they_are() -> None:
    table = Table("name", "other", box=None)
    table.add_row(*cells(["[red]x[/]", HOSTILE]))
    table.add_row(*cells(["[/nothing]", "\\[b]"]))
    console = Console(width=120)
    with console.capture() as seen:
        console.print(table)
    assert "[red]x[/]" in seen.get() and "[/nothing]" in seen.get() and "\x1b" not in seen.get()


def test_a_log_record_with_a_hostile_name_is_harmless() -> None:
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "video %s", (HOSTILE,), None)
    assert "\x1b" not in PlainFormatter().format(record)
