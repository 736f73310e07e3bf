"""Pictures of what `glus segment` found: a video with every expression in a colour of its own, and a contact sheet."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glus.data_pipeline.captions import fitting, text_font
from glus.evaluation.clip import Clip
from glus.evaluation.errors import EvaluationError
from glus.evaluation.overlays import PREDICTION, contact_strip, draw_overlay, spread_frames, write_png

TINTS = (PREDICTION, (86, 180, 233), (240, 228, 66), (0, 158, 115), (213, 94, 0), (0, 114, 178), (230, 159, 0))
"""RGB of the expressions' tints, in turn; all but the first after Okabe and Ito, who chose them for all eyes."""
FOLDER_RATE = 10.0
"""Frames a second where a video says nothing of it."""
_NARROWEST, _LONGEST = 320, 1280
_LINE, _MARGIN, _TOLD = 22, 8, 12
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
    """Write a WebM (VP8) of the clip, masks tinted, the expressions below; yields each frame's index when drawn.

    One frame is in memory at a time. `rate` is in frames a second. Raises EvaluationError where it cannot be written.
    """
    width, height = _picture_size(clip.size)
    below = _legend(expressions, width)
    size = (width, height + len(below))
    # OpenCV's wheels bring their own FFmpeg, which can write VP8 (browsers show it) but not H.264.
    with _no_word_of_the_tag():
        writer = cv2.VideoWriter(
            str(place.absolute()), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), min(max(rate, 1.0), 60.0), size
        )
    try:
        if not writer.isOpened():
            raise EvaluationError(f"{place}: this OpenCV cannot write a WebM; install opencv-python-headless from PyPI")
        for index in range(len(clip)):
            picture = np.asarray(cv2.resize(clip.read(index), (width, height), interpolation=cv2.INTER_AREA), np.uint8)
            for number, mask in enumerate(masks(index)):
                scaled = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
                picture = draw_overlay(picture, np.asarray(scaled, np.bool_), None, tint_of(number))
            writer.write(cv2.cvtColor(np.concatenate([picture, below]), cv2.COLOR_RGB2BGR))
            yield index
    finally:
        writer.release()
    _check_written(place, len(clip))


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
    """(width, height) of the frames in the overlay: even, as VP8 wants them, and wide enough to read the text below."""
    height, width = size
    scale = min(max(1.0, _NARROWEST / width), _LONGEST / max(height, width))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _legend(expressions: Sequence[str], width: int) -> NDArray[np.uint8]:
    """A line an expression, its tint before it: uint8 [h, width, 3]; h is even."""
    lines = [(tint_of(number), f"{number}  {text}") for number, text in enumerate(expressions[:_TOLD])]
    if len(expressions) > _TOLD:
        lines.append((_PAPER, f"and {len(expressions) - _TOLD} more"))
    font = text_font(14)
    legend = Image.new("RGB", (width, 2 * _MARGIN + _LINE * len(lines)), _PAPER)
    pen = ImageDraw.Draw(legend)
    for number, (tint, text) in enumerate(lines):
        top = _MARGIN + _LINE * number
        pen.rectangle((_MARGIN, top + 3, _MARGIN + 12, top + 15), fill=tint)
        pen.text((_MARGIN + 20, top), fitting(text, font, width - 2 * _MARGIN - 20), fill=_INK, font=font)
    return np.asarray(legend)


@contextmanager
def _no_word_of_the_tag() -> Iterator[None]:
    """WebM has no codec tags; OpenCV prints to stderr, past every logger, that it does without. A person need not know.

    An encoder that does not open is told by the caller.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_written(place: Path, frames: int) -> None:
    """OpenCV does not tell of a full disk; the file's length then is never filled in."""
    capture = cv2.VideoCapture(str(place.absolute()), cv2.CAP_FFMPEG)
    try:
        found = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    finally:
        capture.release()
    if abs(found - frames) > 1:
        raise EvaluationError(f"{place}: only a part of it could be written; is the disk full?")
