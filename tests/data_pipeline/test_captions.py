"""Lines of text in pictures fit, however long or odd the text is."""

import time

import pytest

from glus.data_pipeline.inspect.captions import MOST_LINES, fitting, text_font, wrapped

FONT = text_font(14)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "a word " * 150_000,
        "\ud800" * 1_000_000,
        "ﷺ" * 1_000_000,
        "a\x00\x1b[2J b",
    ],
)
def test_every_line_fits_and_there_are_few(text: str) -> None:
    start = time.perf_counter()
    lines = wrapped(text, FONT, 300)
    line = fitting(text, FONT, 300)
    assert time.perf_counter() - start < 5
    assert len(lines) <= MOST_LINES and all(FONT.getlength(each) <= 300 for each in (*lines, line))
    if len(text.strip("\ud800")) > 1000:
        assert lines[-1].endswith("…") and line.endswith("…")
    assert all(letter.isprintable() for each in (*lines, line) for letter in each)


def test_a_text_that_fits_is_drawn_as_it_is() -> None:
    assert wrapped("\n" * 1_000_000 + "the zebra  that runs", FONT, 1000) == ["the zebra that runs"]
    assert fitting("the zebra that runs", FONT, 1000) == "the zebra that runs"
    lines = wrapped("the zebra that runs to the left side", FONT, 100)
    assert " ".join(lines) == "the zebra that runs to the left side" and len(lines) > 1
    assert "".join(wrapped("z" * 60, FONT, 100)) == "z" * 60
