"""A video of one's own is read as it is shown: EXIF in JPEG and PNG frames, one turn for each frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glus.common.errors import DataError
from glus.evaluation.segment.clip import open_clip
from tests.barcodes import draw, number_shown

TURNS = {1: 0, 3: 2, 6: 1, 8: -1}
"""EXIF's value -> quarter turns (counter-clockwise) from what is shown to what is stored."""


def write_frame(path: Path, number: int, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(np.ascontiguousarray(np.rot90(draw(number), TURNS[value]))).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("values", [(6, 6, 6), (3, 3, 3), (8, 1, 6)])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_frames_are_turned_as_viewers_turn_them(ending: str, values: tuple[int, ...], tmp_path: Path) -> None:
    for number, value in enumerate(values):
        write_frame(tmp_path / f"{number}.{ending}", number, value)
    clip = open_clip(tmp_path, tmp_path / "scratch")
    assert clip.size == (112, 160) and [number_shown(clip.read(index)) for index in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_frames_of_one_stored_size_that_are_shown_in_two_are_refused(ending: str, tmp_path: Path) -> None:
    for number, value in enumerate((1, 6)):
        exif = Image.Exif()
        exif[0x0112] = value
        Image.fromarray(draw(number)).save(tmp_path / f"{number}.{ending}", exif=exif)
    with pytest.raises(DataError, match=rf"1\.{ending}: 160x112 \(height x width\), but .* first frame is 112x160"):
        open_clip(tmp_path, tmp_path / "scratch")
