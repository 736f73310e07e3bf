"""Pictures of what `glus segment` found: a video with every expression in a colour of its own, and a contact sheet."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glus.data_pipeline.inspect.captions import fitting, text_font
from glus.evaluation.pages.overlays import PREDICTION, contact_strip, draw_overlay, spread_frames, write_png
from glus.evaluation.segment.clip import Clip
from glus.evaluation.segment.video_writer import VideoWriter, even_times

TINTS = (PREDICTION, (86, 180, 233), (240, 228, 66), (0, 158, 115), (213, 94, 0), (0, 114, 178), (230, 159, 0))
"""RGB of the expressions' tints, in turn; all but the first after Okabe and Ito, who chose them for all eyes."""
FOLDER_RATE = 10.0
"""Frames a second where a video says nothing of it."""
_NARROWEST, _LONGEST = 320, 1280
_LINE, _MARGIN, _MOST_LINES = 22, 8, 12
_PAPER, _INK = (24, 29, 35), (231, 234, 238)
_PANELS, _PANEL_WIDTH = 6, 320

Masks = Callable[[int], NDArray[np.bool_]]
"""Index of a frame -> masks of its expressions, bool [E, H, W]."""


def tint_of(expression: int) -> tuple[int, int, int]:
    """RGB of the expression with this number."""
    return TINTS[expression % len(TINTS)]


def write_overlay_video(
    place: Path, clip: Clip, masks: Masks, expressions: Sequence[str], rate: float
) -> Iterator[int]:
    """Write an MP4 (H.264) of the clip, masks tinted, the expressions below; yields each frame's index when drawn.

    One frame is in memory at a time. `rate` is in frames a second; 0 shows each frame when the clip does, or
    FOLDER_RATE a second where it does not say. Raises EvaluationError where it cannot be written.
    """
    width, height = _picture_size(clip.size)
    below = _legend(expressions, width)
    every = max(Fraction(rate or clip.rate or FOLDER_RATE).limit_denominator(1001), Fraction(1, 1000))
    times = clip.times if clip.times and not rate else even_times(len(clip), every)
    with VideoWriter(place, (height + len(below), width), times, every) as writer:
        for index in range(len(clip)):
            picture = np.asarray(cv2.resize(clip.read(index), (width, height), interpolation=cv2.INTER_AREA), np.uint8)
            for number, mask in enumerate(masks(index)):
                scaled = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
                picture = draw_overlay(picture, np.asarray(scaled, np.bool_), None, tint_of(number))
            writer.write(np.concatenate([picture, below]))
            yield index


def write_contact_sheet(place: Path, clip: Clip, masks: Masks, expressions: Sequence[str]) -> Path:
    """Write a PNG with a row of frames for each expression, spread over the clip. Raises DataError."""
    shown = spread_frames(len(clip), _PANELS)
    frames = np.stack([clip.read(index) for index in shown])
    found = np.stack([masks(index) for index in shown], axis=1)
    names = [clip.frame_names[index] for index in shown]
    rows = [
        contact_strip(frames, of_expression, None, f"{number}  {text}", names, _PANEL_WIDTH, tint_of(number))
        for number, (of_expression, text) in enumerate(zip(found, expressions, strict=True))
    ]
    return write_png(place, np.concatenate(rows))


def _picture_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the frames in the overlay: even, as 4:2:0 wants them, and wide enough for the text below."""
    height, width = size
    scale = min(max(1.0, _NARROWEST / width), _LONGEST / max(height, width))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _legend(expressions: Sequence[str], width: int) -> NDArray[np.uint8]:
    """A line an expression, its tint before it: uint8 [h, width, 3]; h is even."""
    lines = [(tint_of(number), f"{number}  {text}") for number, text in enumerate(expressions[:_MOST_LINES])]
    if len(expressions) > _MOST_LINES:
        lines.append((_PAPER, f"and {len(expressions) - _MOST_LINES} more"))
    font = text_font(14)
    legend = Image.new("RGB", (width, 2 * _MARGIN + _LINE * len(lines)), _PAPER)
    pen = ImageDraw.Draw(legend)
    for number, (tint, text) in enumerate(lines):
        top = _MARGIN + _LINE * number
        pen.rectangle((_MARGIN, top + 3, _MARGIN + 12, top + 15), fill=tint)
        pen.text((_MARGIN + 20, top), fitting(text, font, width - 2 * _MARGIN - 20), fill=_INK, font=font)
    return np.asarray(legend)
