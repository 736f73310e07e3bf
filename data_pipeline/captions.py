"""Text in pictures: the font of all of them, and lines that fit."""

from pathlib import Path

import matplotlib
from PIL import ImageFont


def text_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, `size` in pixels."""
    # Pillow's own font knows Latin letters only; expressions are not always ASCII. Matplotlib brings DejaVu.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The words of a text in lines of `width` pixels at most; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
