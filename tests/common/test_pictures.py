"""Pictures from anywhere: stored numbers come back as they are, everything else is one error that names the file."""

import io
import os
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from glus.common.errors import InputError
from glus.common.pictures import MOST_PIXELS, open_picture

GREY, COLOUR, INDEXED = 0, 2, 3
#: Where the passes of an interlaced PNG begin and how far their pixels lie apart: top, left, down, right (Adam7).
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(values: NDArray[np.integer], bits: int) -> bytes:
    """Rows of a PNG without filters: `bits` a sample, high bits first, each row from a byte of its own."""
    shifts = np.arange(bits - 1, -1, -1)
    return b"".join(
        b"\0" + np.packbits((row.astype(np.int64)[:, None] >> shifts & 1).astype(np.uint8).ravel()).tobytes()
        for row in values
        if len(row)
    )


def png(
    values: NDArray[np.integer], bits: int, colour: int = GREY, interlaced: bool = False, extra: bytes = b""
) -> bytes:
    """A PNG written by hand: Pillow writes neither 2 nor 4 bits of grey, nor interlaced."""
    height, width = values.shape
    parts = [values[top::down, left::right] for top, left, down, right in PASSES] if interlaced else [values]
    pixels = zlib.compress(b"".join(packed(part, bits) for part in parts))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(range(3 * 2**bits))[: 3 * 2**bits]) if colour == INDEXED and bits < 8 else b""
    if colour == INDEXED and bits == 8:
        palette = chunk(b"PLTE", bytes(768))
    body = chunk(b"IHDR", header) + extra + palette + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("interlaced", [False, True], ids=["rows", "interlaced"])
@pytest.mark.parametrize(
    ("bits", "colour"),
    [(1, GREY), (2, GREY), (4, GREY), (8, GREY), (16, GREY), (1, INDEXED), (2, INDEXED), (4, INDEXED), (8, INDEXED)],
)
def test_numbers_come_back_as_they_are_stored(bits: int, colour: int, interlaced: bool) -> None:
    draw = np.random.Generator(np.random.Philox(key=bits))
    values = draw.integers(0, 2**bits, (13, 21), np.uint16)
    values[0, :2] = 0, 2**bits - 1
    # A transparent colour changes no number.
    extra = chunk(b"tRNS", b"\0\1") if colour == GREY else b""
    picture = open_picture(png(values, bits, colour, interlaced, extra), ("PNG",))
    assert (picture.size, picture.bits) == ((13, 21), bits)
    assert np.array_equal(picture.values(), values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_numbers(mode: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (4, 4)).save(stream, "PNG")
    with pytest.raises(InputError, match=f"frame 3: this mask is a PNG of mode {mode}; wanted is a grey or indexed"):
        open_picture(stream.getvalue(), ("PNG",), where="frame 3", what="mask").values()


def encoded(format: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 90, 200)).save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded("JPEG"), "it is a JPEG, whatever its name says"),
        (encoded("TIFF"), "it is a TIFF"),
        (encoded("BMP"), "it is a BMP"),
        (encoded("GIF"), "it is a GIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "it is a PostScript program"),
        (b"", "an empty file"),
        (b"no picture", "no PNG signature"),
    ],
)
def test_another_format_under_the_name_png_is_named_and_not_opened(
    tmp_path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(InputError, match=rf"a\.png: cannot be read as PNG \({message}") as error:
        open_picture(tmp_path / "a.png", ("PNG",))
    assert error.value.file == str(tmp_path / "a.png")


def test_a_postscript_program_is_not_run_whatever_is_asked_for(tmp_path: Path) -> None:
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n({tmp_path}/ran) (w) file closefile\nshowpage\n"
    for formats in (("PNG",), ("JPEG",)):
        with pytest.raises(InputError, match="it is a PostScript program"):
            open_picture(program.encode(), formats).values()
    assert not (tmp_path / "ran").exists()


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path, kind in ((tmp_path / "a.png", "named pipe"), (Path("/dev/zero"), "device"), (tmp_path, "folder")):
        with pytest.raises(InputError, match=f"{path}: a {kind} instead of a regular file: name the frame itself"):
            open_picture(path, ("PNG",), what="frame")


@pytest.mark.parametrize(("format", "size"), [("PNG", (200_000, 200_000)), ("PNG", (8193, 8192)), ("JPEG", None)])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(format: str, size: tuple[int, int] | None) -> None:
    if size:
        content = png(np.zeros((4, 4), np.uint8), 8)
        header = struct.pack(">IIBBBBB", *size, 8, GREY, 0, 0, 0)
        content = content[:8] + chunk(b"IHDR", header) + content[33:]
    else:
        content = encoded("JPEG")
        place = content.index(b"\xff\xc0") + 5
        content = content[:place] + struct.pack(">HH", 10_000, 10_000) + content[place + 4 :]
    tracemalloc.start()
    with pytest.raises(InputError, match=f"pixels, a picture may have {MOST_PIXELS:,}"):
        open_picture(content, (format,))
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_the_size_is_compared_without_the_pixels() -> None:
    content = png(np.zeros((5, 4), np.uint8), 8)
    broken = content.replace(chunk(b"IDAT", content[content.index(b"IDAT") + 4 : -16]), chunk(b"IDAT", b"nothing"))
    picture = open_picture(broken, ("PNG",), where="a", what="mask")
    picture.check_size(5, 4)
    picture.check_size(6, 3, slack=1)
    with pytest.raises(InputError, match=r"a: this mask is 5x4 \(height x width\), its frame is 5x6"):
        picture.check_size(5, 6, slack=1)
    with pytest.raises(InputError, match="a: cannot be read as PNG"):
        picture.values()


def test_text_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26), 9))
    values = np.arange(20, dtype=np.uint8).reshape(4, 5)
    tracemalloc.start()
    assert np.array_equal(open_picture(png(values, 8, extra=bomb), ("PNG",)).values(), values)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_damage_anywhere_is_one_error_or_changes_no_number(format: str) -> None:
    values = np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (12, 17), np.uint8)
    whole = png(values, 8, INDEXED) if format == "PNG" else encoded("JPEG")
    draw = random.Random(4)
    refused = 0
    for _ in range(1000):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(content))
            content[place : place + draw.choice((0, 1, 1, 5))] = draw.randbytes(draw.choice((0, 1, 1, 9)))
        try:
            picture = open_picture(bytes(content), (format,), where="a")
            pixels = picture.values() if format == "PNG" else picture.rgb()
        except InputError as error:
            refused += 1
            assert str(error).startswith("a: ")
        else:
            assert format == "JPEG" or np.array_equal(pixels, values)
    assert refused > 300


def test_a_jpeg_with_several_pictures_is_a_jpeg() -> None:
    stream = io.BytesIO()
    first, second = (Image.new("RGB", (8, 4), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    first.save(stream, "MPO", save_all=True, append_images=[second])
    picture = open_picture(stream.getvalue(), ("JPEG",))
    assert (picture.format, picture.size) == ("JPEG", (4, 8)) and picture.rgb()[0, 0, 0] > 240


def test_exif_orientation_is_read_and_never_decides_over_the_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for format in ("JPEG", "PNG"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 4)).save(stream, format, exif=exif)
        picture = open_picture(stream.getvalue(), (format,))
        assert (picture.orientation(), picture.size, picture.rgb().shape) == (6, (4, 8), (4, 8, 3))
        assert open_picture(encoded(format), (format,)).orientation() == 1
    assert open_picture(png(np.zeros((1, 1), np.uint8), 8, extra=chunk(b"eXIf", b"junk")), ("PNG",)).orientation() == 1


def test_pictures_are_opened_in_one_place() -> None:
    root = Path(__file__).parents[2]
    folders = ("common", "data_pipeline", "model", "training", "evaluation", "launch")
    found = [
        str(path.relative_to(root))
        for folder in folders
        for path in (root / folder).rglob("*.py")
        if any(call in path.read_text() for call in ("Image.open(", "cv2.imread", "cv2.imdecode"))
    ]
    assert found == ["common/pictures.py"]
