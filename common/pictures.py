"""The one way to open a picture: regular files, named formats, header before content, one error for all that is wrong.

Everything that Pillow raises on a broken picture, and what it would pass over (a PNG that was cut, a damaged chunk),
becomes one UserError that names the file. Pillow sees nothing of a PNG but its header, palette and pixels.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from glus.common.errors import InputError, UserError
from glus.common.files import read_regular

#: Most pixels of a picture: 8192 x 8192. A frame of an 8K video has half as many; as RGB that is 200 MB of memory.
MOST_PIXELS = 2**26
#: Largest file of a picture, in bytes: MOST_PIXELS in RGB that do not compress.
MOST_BYTES = 3 * 2**26 + 2**20

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Pillow's mode of a PNG's colour type; grey is "1" with one bit and "I;16" with sixteen.
_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
#: How files begin that are found under another's ending.
_BEGINNINGS = {
    b"\xff\xd8\xff": "a JPEG",
    _SIGNATURE: "a PNG",
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"RIFF": "a WebP or AVI",
    b"BM": "a BMP",
    b"%!PS": "a PostScript program",
    b"%PDF": "a PDF",
}


@dataclass(frozen=True)
class Picture:
    """A picture of which the header has been read. `mode` is Pillow's; `bits` are those of one stored sample."""

    where: str
    format: str
    mode: str
    bits: int
    height: int
    width: int
    _content: bytes = field(repr=False)
    _orientation: int | None
    _error: type[UserError]
    _what: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    def check_size(self, height: int, width: int, slack: int = 0) -> None:
        """Raise where a side differs by more than `slack` pixels from what belongs to this picture."""
        if abs(self.height - height) > slack or abs(self.width - width) > slack:
            raise self._error(
                f"{self.where}: this {self._what} is {self.height}x{self.width} (height x width), its frame is "
                f"{height}x{width}; they do not belong together",
                file=self.where,
            )

    def values(self) -> NDArray[Any]:
        """uint8 or uint16 [H, W] of a grey or indexed PNG: the numbers that are stored, whatever the bits of each.

        Raises where the picture has colours (mode RGB, RGBA) or transparency of its own (LA), or is damaged.
        """
        if self.format != "PNG" or self.mode not in ("1", "L", "P", "I;16"):
            raise self._error(
                f"{self.where}: this {self._what} is a {self.format} of mode {self.mode}; wanted is a grey or indexed "
                "PNG",
                file=self.where,
            )
        stored = self._decoded(None)
        if self.mode == "1":
            return stored.astype(np.uint8)
        if self.mode == "L" and self.bits < 8:  # Pillow spreads 2 and 4 bits over 0 to 255
            return stored // np.uint8(255 // (2**self.bits - 1))
        return stored.astype(np.uint16) if self.mode == "I;16" else stored

    def palette(self) -> list[tuple[int, int, int]]:
        """Colour of each index of an indexed PNG; empty for other pictures."""
        colours = (
            b"".join(data for kind, data in _chunks(self._content) if kind == b"PLTE") if self.mode == "P" else b""
        )
        return [(red, green, blue) for red, green, blue in zip(*[iter(colours)] * 3, strict=False)]

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]. Grey and indexed pictures become colours, transparency is dropped."""
        if self.mode == "I;16":
            raise self._error(
                f"{self.where}: cannot be decoded (it has 16 bits a pixel, wanted are 8); convert it", file=self.where
            )
        return self._decoded("RGB")

    def orientation(self) -> int:
        """EXIF's orientation, 1 to 8; 1 (upright) where the picture has none, or one that cannot be read."""
        return _orientation(self._png_exif) if self._orientation is None else self._orientation

    def _png_exif(self) -> Image.Exif:
        exif = Image.Exif()
        exif.load(next((data for kind, data in _chunks(self._content) if kind == b"eXIf"), b""))
        return exif

    def _decoded(self, mode: str | None) -> NDArray[Any]:
        content = _bare_png(self._content) if self.format == "PNG" else self._content
        try:
            with _opened(content, self.format) as image:
                return np.array(image if mode is None or image.mode == mode else image.convert(mode))
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(self.where, self._what, self.format, error, self._error) from error


def open_picture(
    source: Path | bytes,
    formats: Sequence[str],
    *,
    where: str | None = None,
    what: str = "picture",
    error: type[UserError] = InputError,
    most_pixels: int = MOST_PIXELS,
) -> Picture:
    """Read the header of a picture, a regular file or its bytes; nothing is decoded before its pixels are asked for.

    `formats`: those of Pillow's names that are accepted. `where` and `what` stand in messages, such as a path and
    "mask"; `error` is the class that is raised, here and by the picture's methods: for a file that is missing, no
    regular file, of another format, damaged, cut, without pixels or with more than `most_pixels`.
    """
    where = where or (str(source) if isinstance(source, Path) else "bytes")
    if isinstance(source, Path):
        try:
            source = read_regular(source, what, MOST_BYTES)
        except UserError as found:
            raise error(str(found), file=where) from found
    named, orientation = " or ".join(formats), None
    if not source:
        raise error(f"{where}: cannot be read as {named} (an empty file); take this {what} again", file=where)
    try:
        if "PNG" in formats and source.startswith(_SIGNATURE):
            format, (mode, bits, height, width) = "PNG", _png_header(source)
        else:
            found_kind = next((kind for begin, kind in _BEGINNINGS.items() if source.startswith(begin)), None)
            if found_kind and not any(found_kind == f"a {each}" for each in formats):
                raise ValueError(f"it is {found_kind}, whatever its name says")
            with _opened(source, *(each for each in formats if each != "PNG")) as image:
                mode, bits, (width, height) = image.mode, 8, image.size
                orientation = _orientation(image.getexif)
                # Pillow calls a JPEG with several pictures (of many phones) an MPO.
                found_format = image.format or ""
                format = found_format if found_format in formats else formats[0]
    except MemoryError:
        raise
    except Exception as found:
        raise _unreadable(where, what, named, found, error) from found
    if not height or not width:
        raise error(f"{where}: a {format} without size ({height}x{width}); take this {what} again", file=where)
    if height * width > most_pixels:
        raise error(
            f"{where}: {height}x{width} (height x width) are {height * width:,} pixels, a {what} may have "
            f"{most_pixels:,}; make it smaller",
            file=where,
        )
    return Picture(where, format, mode, bits, height, width, source, orientation, error, what)


def _opened(content: bytes, *formats: str) -> Image.Image:
    if not formats:
        raise ValueError("no PNG signature")
    with warnings.catch_warnings():  # of many pixels: they are counted here
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(content), formats=formats)
        except UnidentifiedImageError:
            raise ValueError(f"it begins with {content[:4].hex()}") from None


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    try:
        found = read_exif().get(0x0112, 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow raises whatever a broken block leads it to
        return 1
    return found if found in range(1, 9) else 1


def _png_header(content: bytes) -> tuple[str, int, int, int]:
    """Mode, bits, height and width of a PNG whose chunks are all there and intact. Raises ValueError."""
    kinds = [kind for kind, _ in _chunks(content)]
    if kinds[0] != b"IHDR" or b"IDAT" not in kinds:
        raise ValueError("no header or no pixels")
    if len(content) < 29 or struct.unpack(">I", content[8:12])[0] != 13:
        raise ValueError("a damaged header")
    width, height, bits, colour = struct.unpack(">IIBB", content[16:26])
    if bits not in _BITS.get(colour, ()) or (colour == 3 and b"PLTE" not in kinds):
        raise ValueError("a damaged header")
    mode = _MODES[colour] if colour else {1: "1", 16: "I;16"}.get(bits, "L")
    return mode, bits, height, width


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk of a PNG, the last one included. Raises ValueError for one cut or damaged."""
    view, place = memoryview(content), len(_SIGNATURE)
    while True:
        if place + 12 > len(content):
            raise ValueError(f"it ends too early, after {len(content)} bytes")
        (length,) = struct.unpack(">I", view[place : place + 4])
        end = place + 12 + length
        if end > len(content):
            raise ValueError(f"it ends too early, after {len(content)} bytes")
        kind = bytes(view[place + 4 : place + 8])
        # An upper-case first letter marks what a decoder needs; other chunks (texts, colour profiles) may be damaged.
        if kind[:1].isupper() and zlib.crc32(view[place + 4 : end - 4]) != struct.unpack(">I", view[end - 4 : end])[0]:
            raise ValueError(f"its part {kind.decode('latin-1')!r} is damaged")
        yield kind, bytes(view[place + 8 : end - 4])
        if kind == b"IEND":
            return
        place = end


def _bare_png(content: bytes) -> bytes:
    """The PNG without anything but header, palette and pixels: no text or profile that unpacks to gigabytes."""
    parts = [_SIGNATURE]
    for kind, data in _chunks(content):
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))]
    return b"".join(parts)


def _unreadable(where: str, what: str, format: str, reason: Exception, error: type[UserError]) -> UserError:
    text = str(reason).strip() or type(reason).__name__
    return error(f"{where}: cannot be read as {format} ({text}); take this {what} again", file=where)
