"""Tiny videos that the tests draw themselves, and the six datasets' layouts made of them."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.data_pipeline.frames import FrameFolder
from glus.data_pipeline.masks import encode
from glus.data_pipeline.records import Expression, VideoRecord

HEIGHT, WIDTH, LENGTH = 32, 48, 5


@dataclass(frozen=True)
class TinyVideo:
    """Five frames of 32x48: object 1 moves right and is always seen, object 4 is seen from the third frame on."""

    name: str
    frame_names: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    masks: dict[str, np.ndarray]  # object id -> bool [T, H, W]

    def write_frames(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for name, content in zip(self.frame_names, self.jpegs, strict=True):
            (folder / f"{name}.jpg").write_bytes(content)

    def labels(self, index: int) -> np.ndarray:
        """uint8 [H, W], with a row of void pixels at the bottom."""
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for object_id, masks in self.masks.items():
            labels[masks[index]] = int(object_id)
        labels[-1] = 255
        return labels

    def write_labels(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for index, name in enumerate(self.frame_names):
            picture = Image.fromarray(self.labels(index))
            picture.putpalette(bytes(range(256)) * 3)
            picture.save(folder / f"{name}.png")

    def rles(self, object_id: str) -> list[dict | None]:
        return [encode(mask) if mask.any() else None for mask in self.masks[object_id]]


def draw_video(name: str, step: int = 5) -> TinyVideo:
    rng = np.random.Generator(np.random.Philox(key=sum(name.encode())))
    masks = {"1": np.zeros((LENGTH, HEIGHT, WIDTH), bool), "4": np.zeros((LENGTH, HEIGHT, WIDTH), bool)}
    jpegs = []
    top = int(rng.integers(2, 8))
    for index in range(LENGTH):
        frame = np.full((HEIGHT, WIDTH, 3), rng.integers(0, 80, 3), np.uint8)
        masks["1"][index, top : top + 9, 3 * index : 3 * index + 12] = True
        if index >= 2:
            masks["4"][index, 20:29, 30 - index : 40 - index] = True
        frame[masks["1"][index]] = (200, 40, 40)
        frame[masks["4"][index]] = (40, 200, 40)
        jpegs.append(cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes())
    names = tuple(f"{step * index:05d}" for index in range(LENGTH))
    return TinyVideo(name, names, tuple(jpegs), masks)


@pytest.fixture
def tiny() -> TinyVideo:
    return draw_video("one.video")


@pytest.fixture
def record(tmp_path: Path, tiny: TinyVideo) -> VideoRecord:
    """The tiny video as a record, its frames in a folder."""
    folder = tmp_path / "frames" / tiny.name
    tiny.write_frames(folder)
    return VideoRecord(
        dataset="mevis",
        split="train",
        video=tiny.name,
        height=HEIGHT,
        width=WIDTH,
        frames=FrameFolder(folder, tiny.frame_names),
        objects={object_id: tiny.rles(object_id) for object_id in tiny.masks},
        expressions=(
            Expression("0", " the red one; 'quoted' #1 é", ("1",), kind="look"),
            Expression("1", "both", ("1", "4"), kind="several"),
            Expression("2", "what moves right", ("1",), type_id=1),
            Expression("3", "nobody", (), type_id=2),
        ),
    )


@pytest.fixture
def real_data() -> Path:
    """The folder of real cuts; the test skips where it is absent."""
    shared = Path(os.environ.get("GLUS_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (shared / "realdata").is_dir():
        pytest.skip(f"the real cuts are not at {shared}/realdata (set GLUS_SHARED)")
    return shared / "realdata"
