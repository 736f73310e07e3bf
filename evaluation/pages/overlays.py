"""Pictures of predictions: the prediction as a tint, the ground truth as an outline, the expression above."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.data_pipeline.inspect.captions import text_font, wrapped

PREDICTION = (255, 45, 155)
"""RGB of the prediction's tint."""
TRUTH = (0, 229, 255)
"""RGB of the ground truth's outline."""
_TINT = 0.5
_PAPER, _INK, _FAINT = (24, 29, 35), (231, 234, 238), (160, 169, 182)
_GAP, _MARGIN, _LINE = 8, 14, 28


def draw_overlay(
    frame: NDArray[np.uint8],
    pred: NDArray[np.bool_] | None,
    target: NDArray[np.bool_] | None,
    tint: tuple[int, int, int] = PREDICTION,
) -> NDArray[np.uint8]:
    """A frame with its prediction tinted and its ground truth outlined; None leaves that part out.

    `frame`: uint8 [H, W, 3] RGB; `pred`, `target`: bool [H, W]; `tint`: RGB. Returns uint8 [H, W, 3].
    """
    picture = frame.copy()
    if pred is not None:
        mixed = (1 - _TINT) * frame[pred] + _TINT * np.asarray(tint)
        picture[pred] = np.rint(mixed).astype(np.uint8)
    if target is not None:
        thickness = max(1, round(max(target.shape) / 200))
        outlines, _ = cv2.findContours(target.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, TRUTH, thickness, cv2.LINE_8)
    return picture


def spread_frames(total: int, count: int) -> list[int]:
    """The middle frame of each of `count` equal parts of a video; all frames where it has no more than that."""
    if total <= count:
        return list(range(total))
    return [int((part + 0.5) * total / count) for part in range(count)]


def contact_strip(
    frames: NDArray[np.uint8],
    preds: NDArray[np.bool_] | None,
    targets: NDArray[np.bool_] | None,
    expression: str,
    captions: Sequence[str],
    panel_width: int = 400,
    tint: tuple[int, int, int] = PREDICTION,
) -> NDArray[np.uint8]:
    """Several frames side by side with the expression above and a line under each.

    `frames`: uint8 [N, H, W, 3] RGB; `preds`, `targets`: bool [N, H, W] or None; `captions`: N lines.
    Returns uint8 [h, w, 3]. Raises EvaluationError for no frames or unequal counts.
    """
    parts = [part for part in (frames, preds, targets, captions) if part is not None]
    if len({len(part) for part in parts}) != 1 or len(frames) == 0:
        raise EvaluationError(f"a contact strip needs as many masks and lines as frames, got {[len(p) for p in parts]}")
    height = max(1, round(frames.shape[1] * panel_width / frames.shape[2]))
    size = (panel_width, height)
    title, small = text_font(20), text_font(14)
    width = 2 * _MARGIN + len(frames) * panel_width + (len(frames) - 1) * _GAP
    lines = wrapped(expression, title, width - 2 * _MARGIN) or ["(no text)"]
    top = _MARGIN + _LINE * len(lines) + 8
    strip = Image.new("RGB", (width, top + height + 30), _PAPER)
    pen = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + _LINE * number), line, fill=_INK, font=title)
    for index, caption in enumerate(captions):
        # Masks are drawn at the panel's size: an outline drawn before scaling would blur away.
        panel = draw_overlay(
            np.asarray(cv2.resize(frames[index], size, interpolation=cv2.INTER_AREA), np.uint8),
            None if preds is None else _scaled(preds[index], size),
            None if targets is None else _scaled(targets[index], size),
            tint,
        )
        left = _MARGIN + index * (panel_width + _GAP)
        strip.paste(Image.fromarray(panel), (left, top))
        pen.text((left, top + height + 6), caption, fill=_FAINT, font=small)
    return np.asarray(strip)


def write_png(place: Path, picture: NDArray[np.uint8]) -> Path:
    """Write a picture, uint8 [h, w, 3] RGB, complete or not at all; make the folder. Raises DataError."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    write_atomic(place, stream.getvalue())
    return place


def _scaled(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.bool_)
