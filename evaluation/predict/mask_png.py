"""The one form of a predicted mask on disk: an 8-bit grey PNG of the frame's size, 0 and 255.

Other people's masks are read in every form that says the same without doubt.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from glus.common.errors import EvaluationError
from glus.common.pictures import Picture, open_picture

ON = 255
_BLACK = (0, 0, 0)


def encode_mask(mask: NDArray[np.bool_], compression: int = 1) -> bytes:
    """PNG of a bool [H, W] mask.

    Without row filters a mask is read four times as fast, for a file half as large again (854x480: 0.4 ms, 4.5 kB).
    """
    settings = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, compression)
    done, data = cv2.imencode(".png", mask.astype(np.uint8) * ON, settings)
    if not done:
        raise EvaluationError(f"a mask of {list(mask.shape)} cannot be encoded as PNG")
    return bytes(data.tobytes())


def read_mask(place: Path, height: int, width: int) -> NDArray[np.bool_]:
    """bool [H, W] of a PNG that holds 0 and its largest value (255 with 8 bits), or 0 and 1.

    Grey of any bits, or indexed; there index 0 must show black and the other index a colour, because some programs
    give white the index 0. The size is compared before anything is decoded. Raises EvaluationError with the file.
    """
    picture = open_picture(place, ("PNG",), what="mask", error=EvaluationError)
    picture.check_size(height, width)
    values = picture.values()
    most = 2**picture.bits - 1
    on = values == most
    if not np.array_equal(on, values != 0):
        on = values == 1
        if not np.array_equal(on, values != 0):
            found = np.unique(values).tolist()
            raise EvaluationError(
                f"{place} holds the values {found[:6]}; a mask holds only 0 and {most}, or only 0 and 1",
                file=str(place),
            )
    if picture.mode == "P":
        _check_palette(picture, int(values.max()))
    return on


def _check_palette(picture: Picture, on: int) -> None:
    colours = picture.palette()
    off, shown = colours[0], colours[on] if on < len(colours) else _BLACK
    if off != _BLACK or (on and shown == _BLACK):
        raise EvaluationError(
            f"{picture.where} is an indexed PNG whose index 0 shows {off}, index {on} {shown}; 0 must show black and "
            "the object a colour: write 8-bit grey, 0 and 255",
            file=picture.where,
        )
