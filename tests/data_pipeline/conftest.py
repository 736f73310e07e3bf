"""Tiny videos that the tests draw themselves, and the six datasets' layouts made of them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.data_pipeline.raw.frames import FrameFolder
from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Expression, VideoRecord

from .videolisa_recording import Recorded, recording_folder

HEIGHT, WIDTH, LENGTH = 32, 48, 5


@pytest.fixture(scope="session")
def recorded(pytestconfig: pytest.Config) -> Recorded:
    """The recording named by --videolisa-fixture, by default the one in tests/data/parity_videolisa."""
    folder = recording_folder(pytestconfig.getoption("--videolisa-fixture"))
    absent = [name for name in ("expected.json", "expected.npz") if not (folder / name).is_file()]
    if absent:
        pytest.fail(f"--videolisa-fixture {folder}: no {' and no '.join(absent)} there")
    return Recorded.open(folder)


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


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def expressions(ids_key: str | None, first: object, second: object) -> dict:
    """Three expressions with stray characters: one for each object, one for both (or again the first)."""
    both = [first, second] if ids_key == "anno_id" else first
    targets = {"0": first, "1": second, "2": both}
    texts = {"0": " the 'red' one; #1 ", "1": "what appears late", "2": "les deux é/_"}
    entries: dict = {exp_id: {"exp": text} for exp_id, text in texts.items()}
    for exp_id, target in targets.items():
        if ids_key == "anno_id":
            target = target if isinstance(target, list) else [target]
        if ids_key is not None:
            entries[exp_id][ids_key] = target
    return entries


@dataclass(frozen=True)
class RawData:
    """The six datasets below `root`, each split with the two `videos`."""

    root: Path
    videos: tuple[TinyVideo, ...]


def write_mevis(raw: RawData) -> None:
    for split in ("train", "valid_u", "valid"):
        folder, hidden = raw.root / "mevis" / split, split == "valid"
        videos, masks = {}, {}
        for number, video in enumerate(raw.videos):
            video.write_frames(folder / "JPEGImages" / video.name)
            first, second = 10 * number, 10 * number + 3
            entries = expressions(None if hidden else "anno_id", first, second)
            videos[video.name] = {"frames": list(video.frame_names), "expressions": entries}
            masks |= {str(first): video.rles("1"), str(second): video.rles("4")}
        write_json(folder / "meta_expressions.json", {"videos": videos})
        if not hidden:
            write_json(folder / "mask_dict.json", masks)


def write_png_dataset(raw: RawData, name: str, hidden_valid: bool, list_frames: bool) -> None:
    for split in ("train", "valid"):
        folder, hidden = raw.root / name / split, hidden_valid and split == "valid"
        videos = {}
        for video in raw.videos:
            video.write_frames(folder / "JPEGImages" / video.name)
            if not hidden:
                video.write_labels(folder / "Annotations" / video.name)
            videos[video.name] = {"expressions": expressions(None if hidden else "obj_id", "1", "4")}
            if list_frames:
                videos[video.name]["frames"] = list(video.frame_names)
        write_json(raw.root / name / "meta_expressions" / split / "meta_expressions.json", {"videos": videos})


def write_revos(raw: RawData) -> None:
    folder = raw.root / "ReVOS"
    videos, masks = {}, {}
    for number, video in enumerate(raw.videos):
        video.write_frames(folder / "JPEGImages" / video.name)
        first, second = 10 * number, 10 * number + 3
        entries = expressions("anno_id", first, second)
        for exp_id, entry in entries.items():
            entry |= {"type_id": int(exp_id != "0"), "obj_id": [0]}
        entries["3"] = {"exp": "a zebra", "anno_id": [], "obj_id": [], "type_id": 2}
        videos[video.name] = {"frames": list(video.frame_names), "expressions": entries}
        masks |= {str(first): video.rles("1"), str(second): video.rles("4")}
    for split in ("train", "valid"):
        write_json(folder / f"meta_expressions_{split}_.json", {"videos": videos})
    write_json(folder / "mask_dict.json", masks)


def write_reason_vos(raw: RawData) -> None:
    folder = raw.root / "ReasonVOS"
    videos = {}
    for video in raw.videos:
        video.write_frames(folder / "JPEGImages" / video.name)
        for object_id, masks in video.masks.items():
            place = folder / "Annotations" / f"TinySet_{video.name}_{object_id}"
            place.mkdir(parents=True)
            for name, mask in zip(video.frame_names, masks, strict=True):
                Image.fromarray(mask.astype(np.uint8) * 255).save(place / f"{name}.png")
        entries = [
            {"obj_id": 1, "exp_id": 0, "exp_text": "what would stop at a crossing", "is_sent": 1, "kind": "reasoning"},
            {"obj_id": 4, "exp_id": 1, "exp_text": "what would go", "is_sent": 1},
        ]
        videos[video.name] = {"source": "TinySet", "frames": list(video.frame_names), "expressions": entries}
    write_json(folder / "meta_expressions.json", {"videos": videos})


def write_lv_vis(raw: RawData) -> None:
    """The official form; the first video has two instances of one category."""
    videos, annotations = [], []
    for number, video in enumerate(raw.videos, start=1):
        video.write_frames(raw.root / "LVVIS" / "train" / "JPEGImages" / video.name)
        files = [f"{video.name}/{name}.jpg" for name in video.frame_names]
        videos.append({"id": number, "file_names": files, "height": HEIGHT, "width": WIDTH, "length": LENGTH})
        for object_id in video.masks:
            category = 7 if number == 1 or object_id == "1" else 9
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": number,
                    "category_id": category,
                    "segmentations": video.rles(object_id),
                }
            )
    categories = [{"id": 9, "name": "zebra"}, {"id": 7, "name": "alpaca"}]
    content = {"videos": videos, "annotations": annotations, "categories": categories}
    write_json(raw.root / "LVVIS" / "train_instances.json", content)


@pytest.fixture
def raw(tmp_path: Path) -> RawData:
    """The six datasets with two tiny videos a split, in the released layouts."""
    raw = RawData(tmp_path / "raw", (draw_video("one.video"), draw_video("two", step=3)))
    write_mevis(raw)
    write_png_dataset(raw, "Refer-YouTube-VOS", hidden_valid=True, list_frames=True)
    write_png_dataset(raw, "DAVIS17", hidden_valid=False, list_frames=False)
    write_revos(raw)
    write_reason_vos(raw)
    write_lv_vis(raw)
    return raw
