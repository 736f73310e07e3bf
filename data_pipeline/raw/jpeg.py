"""JPEG pictures: what their header says, whether they are intact, and their pixels. The only file with simplejpeg."""

import re
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.common.pictures import open_picture
from glus.data_pipeline.raw.orientation import Orientation

#: Quality at which a video file's frames are encoded: no visible loss, about a tenth of PNG's size.
ENCODED_QUALITY = 95

#: Markers between and behind scans: the picture's end (d9), and segments that begin with their length. Coded data
#: escapes its own 0xff as ff00; other markers in it are damage, which decoding finds.
#: Written with a literal first byte, for which `re` searches 20 times as fast as for the equal \xff+.
_MARKER = re.compile(rb"\xff\xff*([\xc4\xd9-\xdd\xe0-\xef\xfe])")
_HEADER_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END, _SCAN = 0xD9, 0xDA


@dataclass(frozen=True)
class JpegHeader:
    """(height, width) of a JPEG as stored, and how it is turned when it is shown."""

    size: tuple[int, int]
    orientation: Orientation

    @property
    def size_shown(self) -> tuple[int, int]:
        return self.orientation.size_shown(*self.size)


def jpeg_header(content: bytes, origin: str) -> JpegHeader:
    """What the header says; the picture itself is not decoded. Data behind the picture's end (motion photos) may be.

    Raises DataError, naming `origin`, where the bytes are no JPEG or end before the picture does.
    """
    if not content:
        raise DataError(f"{origin}: an empty file instead of a JPEG; take this frame again", file=origin)
    if content[:3] == b"\xff\xd8\xff" and not _ends(content):
        raise DataError(
            f"{origin}: a JPEG that ends too early ({len(content)} bytes); take this frame again", file=origin
        )
    picture = open_picture(content, ("JPEG",), where=origin, what="frame", error=DataError)
    return JpegHeader(picture.size, Orientation(picture.orientation()))


def decode_jpeg(content: bytes, picture: NDArray[np.uint8]) -> None:
    """Decode JPEG bytes into `picture`, uint8 [H, W, 3] RGB. No rotation by EXIF, which the masks do not know of.

    Raises ValueError where the bytes are damaged anywhere, even where most decoders would fill in grey, or where the
    size is another. libjpeg-turbo through simplejpeg: of the well-kept libraries the fastest (docs/log.md).
    """
    height, width = simplejpeg.decode_jpeg(content, colorspace="RGB", buffer=picture).shape[:2]
    if (height, width) != picture.shape[:2]:
        raise ValueError(f"it is {height}x{width} (height x width) instead of {picture.shape[0]}x{picture.shape[1]}")


def encode_jpeg(picture: NDArray[np.uint8], origin: str) -> bytes:
    """JPEG bytes of a picture, uint8 [H, W, 3] RGB. Raises DataError."""
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, ENCODED_QUALITY]
    )
    if not done:
        raise DataError(f"{origin}: a frame of shape {picture.shape} cannot be encoded as JPEG", file=origin)
    return content.tobytes()


def _ends(content: bytes) -> bool:
    """Whether the picture's own end marker is there; those of a thumbnail, or of what follows, do not count."""
    place, in_scan = 2, False
    while True:
        found = _MARKER.search(content, place) if in_scan else _HEADER_MARKER.match(content, place)
        if found is None:
            # Before the first scan a header that cannot be followed is for the reader of the header to refuse.
            return not in_scan and b"\xff\xd9" in content[place:]
        marker = found[1][0]
        if marker == _END:
            return True
        place = found.end()
        if len(content) < place + 2:
            return False
        place += max(2, int.from_bytes(content[place : place + 2], "big"))
        in_scan = in_scan or marker == _SCAN
