"""What the trainer will see, as a picture: a slot's context and query frames with its masks and texts."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glus.data_pipeline.batches.prompt_style import clean_expression
from glus.data_pipeline.inspect.captions import text_font, wrapped
from glus.data_pipeline.sampling.sample_plan import SamplePlan, Slot
from glus.data_pipeline.shards.storage import Storage

#: RGB of the expressions' masks, in their order.
COLOURS = ((255, 45, 155), (0, 200, 255), (255, 190, 0), (90, 220, 90), (170, 120, 255), (255, 110, 60))
_PAPER, _INK, _FAINT = (24, 29, 35), (231, 234, 238), (160, 169, 182)
_GAP, _MARGIN, _LINE, _TINT = 6, 12, 22, 0.5


def draw_slot(plan: SamplePlan, slot: Slot, title: str, panel_width: int = 220) -> NDArray[np.uint8]:
    """uint8 [h, w, 3] RGB: context frames, then query frames; below them a row for each expression. Raises DataError.

    A row has the expression as the prompt says it, its objects, and its mask on each query frame.
    """
    split = plan.splits[slot.split]
    entry = split.videos[slot.video]
    shown = (*slot.context, *slot.query)
    height = max(1, round(entry.height * panel_width / entry.width))
    panels = [
        np.asarray(cv2.resize(frame, (panel_width, height), interpolation=cv2.INTER_AREA), np.uint8)
        for frame in split.read_frames(slot.video, shown)
    ]
    said = [entry.expressions[number] for number in slot.expressions]
    targets = split.read_targets(slot.video, said, slot.query)
    width = 2 * _MARGIN + len(shown) * (panel_width + _GAP)
    row = height + _LINE + _GAP
    sheet = Image.new("RGB", (width, 2 * _MARGIN + 2 * _LINE + row * (1 + len(said))), _PAPER)
    pen, font = ImageDraw.Draw(sheet), text_font(14)
    head = f"{title}   {entry.dataset}/{entry.split}/{entry.video}   {entry.width}x{entry.height}"
    pen.text(
        (_MARGIN, _MARGIN), head + ("   partners and a rival" if slot.grouped else ""), fill=_INK, font=text_font(16)
    )
    for place, (panel, frame) in enumerate(zip(panels, shown, strict=True)):
        left, top = _MARGIN + place * (panel_width + _GAP), _MARGIN + 2 * _LINE
        kind = "context" if place < len(slot.context) else "query"
        pen.text((left, top - _LINE), f"{kind} {entry.frame_names[frame]}", fill=_FAINT, font=font)
        sheet.paste(Image.fromarray(panel), (left, top))
    for number, (expression, masks) in enumerate(zip(said, targets, strict=True)):
        top = _MARGIN + 2 * _LINE + row * (number + 1)
        objects = ", ".join(expression.object_ids)
        room = len(slot.context) * (panel_width + _GAP) - _GAP
        lines = wrapped(f"{clean_expression(expression.text)}  [objects {objects}]", font, room)
        for place, line in enumerate(lines[: max(1, height // _LINE)]):
            pen.text((_MARGIN, top + _LINE + place * _LINE), line, fill=COLOURS[number % len(COLOURS)], font=font)
        for place, mask in enumerate(masks):
            panel = _tinted(panels[len(slot.context) + place], mask, COLOURS[number % len(COLOURS)])
            left = _MARGIN + (len(slot.context) + place) * (panel_width + _GAP)
            sheet.paste(Image.fromarray(panel), (left, top + _LINE))
    return np.asarray(sheet)


def write_sheets(pictures: Sequence[NDArray[np.uint8]], place: Path) -> Path:
    """Write pictures one below the other as one PNG, complete or not at all. Raises DataError."""
    width = max(picture.shape[1] for picture in pictures)
    sheet = Image.new("RGB", (width, sum(picture.shape[0] for picture in pictures)), _PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(Image.fromarray(picture), (0, top))
        top += picture.shape[0]
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    Storage.at(place.absolute().parent).write(place.name, stream.getvalue())
    return place


def _tinted(panel: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A panel with a mask, bool [H, W] at the frame's own size, tinted and outlined."""
    size = (panel.shape[1], panel.shape[0])
    small = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA), np.uint8)
    seen = small > 0 if mask.any() else np.zeros(panel.shape[:2], np.bool_)
    tinted = panel.copy()
    tinted[seen] = np.rint((1 - _TINT) * panel[seen] + _TINT * np.asarray(colour)).astype(np.uint8)
    outlines, _ = cv2.findContours(seen.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tinted, outlines, -1, colour, 1)
    return tinted
