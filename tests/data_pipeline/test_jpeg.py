"""JPEG headers: intact or not, whatever lies inside or behind them, and how the picture is turned."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from glus.common.errors import DataError
from glus.data_pipeline.raw.jpeg import decode_jpeg, jpeg_header


def jpeg(orientation: int | None = None, **options: object) -> bytes:
    random = np.random.Generator(np.random.Philox(2))
    picture = Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8))
    exif, stream = Image.Exif(), io.BytesIO()
    if orientation is not None:
        exif[0x0112] = orientation
    picture.save(stream, format="JPEG", exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 100}])
@pytest.mark.parametrize("behind", [b"", b"\0" * 5000, b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40, b"\xff\xd8\xff"])
def test_a_picture_is_intact_whatever_follows_its_end(options: dict[str, object], behind: bytes) -> None:
    content = jpeg(**options)
    picture, alone = np.empty((48, 64, 3), np.uint8), np.empty((48, 64, 3), np.uint8)
    assert jpeg_header(content + behind, "x").size == (48, 64)
    decode_jpeg(content + behind, picture)
    decode_jpeg(content, alone)
    np.testing.assert_array_equal(picture, alone)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_picture_that_was_cut_is_refused_wherever_the_cut_is(options: dict[str, object]) -> None:
    content = jpeg(comment=b"\xff\xd9" * 10, **options)  # an end marker that is not the picture's own
    assert jpeg_header(content, "x").size == (48, 64)
    for end in range(4, len(content) - 1, 37):
        with pytest.raises(DataError, match=r"^x: "):
            jpeg_header(content[:end], "x")


def test_a_jpeg_with_several_pictures_is_read_as_its_first() -> None:
    stream = io.BytesIO()
    first, second = Image.new("RGB", (64, 48), (200, 20, 20)), Image.new("RGB", (64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(stream, format="MPO", save_all=True, append_images=[second], exif=exif)
    header = jpeg_header(stream.getvalue(), "x")
    assert header.size == (48, 64) and header.orientation.value == 6


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (1, lambda upright: upright),
        (2, np.fliplr),
        (3, lambda upright: np.rot90(upright, 2)),
        (4, np.flipud),
        (5, lambda upright: upright.swapaxes(0, 1)),
        (6, lambda upright: np.rot90(upright, 1)),  # the viewer turns it clockwise
        (7, lambda upright: np.rot90(upright, 2).swapaxes(0, 1)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_a_picture_is_shown_as_its_exif_data_say(value: int, stored: Callable[[np.ndarray], np.ndarray]) -> None:
    upright = np.random.Generator(np.random.Philox(2)).integers(0, 256, (6, 8, 3), np.uint8)
    header = jpeg_header(jpeg(value), "x")
    assert header.orientation.value == value
    np.testing.assert_array_equal(header.orientation.show(np.ascontiguousarray(stored(upright))), upright)
    assert header.size_shown == ((48, 64) if value < 5 else (64, 48))


@pytest.mark.parametrize("value", [None, 0, 9, 300])
def test_no_orientation_or_one_that_is_none_is_upright(value: int | None) -> None:
    assert jpeg_header(jpeg(value), "x").orientation.upright
