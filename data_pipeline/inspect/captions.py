"""Text in pictures: the font of all of them, and lines that fit."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from PIL import ImageFont

#: Letters of a text that are looked at, and lines of it that are drawn.
LONGEST_TEXT, MOST_LINES = 4000, 20


def text_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, `size` in pixels."""
    # Pillow's own font knows Latin letters only; expressions are not always ASCII. Matplotlib brings DejaVu.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = MOST_LINES) -> list[str]:
    """The words of a text in lines of `width` pixels at most, `most` of them; a longer word is broken.

    What does not fit is left out, and the last line ends in "…".
    """
    lines: list[str] = []
    joined = " ".join(printable(text).split())
    cut = len(joined) > LONGEST_TEXT
    for word in joined[:LONGEST_TEXT].split():
        for piece in _pieces(word, font, width):
            longer = f"{lines[-1]} {piece}" if lines else piece
            if lines and font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
            if len(lines) > most:
                break
        if len(lines) > most:
            break
    if len(lines) > most or (cut and lines):
        lines = lines[:most]
        lines[-1] = fitting(f"{lines[-1]}…", font, width)
    return lines


def fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text on one line of `width` pixels at most; one that is longer ends in "…"."""
    joined = " ".join(printable(text).split())
    if len(joined) <= LONGEST_TEXT and font.getlength(joined) <= width:
        return joined
    return f"{_longest(joined[:LONGEST_TEXT], font, width, '…')}…".replace("……", "…")


def printable(text: str) -> str:
    """The text without control characters and halves of surrogate pairs, which no font draws."""
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    while word:
        piece = word if font.getlength(word) <= width else _longest(word, font, width) or word[0]
        yield piece
        word = word[len(piece) :]


def _longest(text: str, font: ImageFont.FreeTypeFont, width: int, end: str = "") -> str:
    """The longest beginning that fits, by bisection."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle] + end) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low]
