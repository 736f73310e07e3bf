"""Raw files to shards and back: all that comes out is what a plain reading of the released files gives.

The readings here use json, Pillow and pycocotools alone, and nothing of this project.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.shard_job import ShardMaker


@dataclass(frozen=True)
class Plain:
    """A video as its files have it: JPEG bytes by frame name, (id, text, object ids) each, bool [T, H, W] an object."""

    video: str
    frames: dict[str, bytes]
    said: list[tuple[str, str, tuple[str, ...]]]
    masks: dict[str, np.ndarray]
    void: np.ndarray | None = None


def frames_of(folder: Path, names: list[str] | None) -> dict[str, bytes]:
    return {name: (folder / f"{name}.jpg").read_bytes() for name in names or sorted(p.stem for p in folder.iterdir())}


def decoded(codes: list[Any], size: tuple[int, int]) -> np.ndarray:
    return np.stack([np.zeros(size, bool) if code is None else coco.decode(code).astype(bool) for code in codes])


def size_of(frames: dict[str, bytes], folder: Path) -> tuple[int, int]:
    with Image.open(folder / f"{next(iter(frames))}.jpg") as picture:
        return picture.height, picture.width


def in_one_file(annotation: Path, images: Path) -> Iterator[Plain]:
    """MeViS and ReVOS: masks in mask_dict.json, or hidden where there is none."""
    table = annotation.with_name("mask_dict.json")
    codes = json.loads(table.read_text()) if table.is_file() else None
    for video, entry in json.loads(annotation.read_text())["videos"].items():
        frames = frames_of(images / video, entry["frames"])
        said = [
            (key, item["exp"], tuple(str(each) for each in item.get("anno_id", [])))
            for key, item in entry["expressions"].items()
        ]
        ids = {each for _, _, objects in said for each in objects}
        yield Plain(video, frames, said, {each: decoded(codes[each], size_of(frames, images / video)) for each in ids})


def in_indexed_pngs(annotation: Path, folder: Path) -> Iterator[Plain]:
    """Refer-YouTube-VOS and Ref-DAVIS17; hidden where there is no folder of masks."""
    for video, entry in json.loads(annotation.read_text())["videos"].items():
        frames = frames_of(folder / "JPEGImages" / video, entry.get("frames"))
        hidden = not (folder / "Annotations").is_dir()
        said = [
            (key, item["exp"], () if hidden else (str(item["obj_id"]),)) for key, item in entry["expressions"].items()
        ]
        masks, void = {}, None
        if not hidden:
            labels = np.stack([np.array(Image.open(folder / "Annotations" / video / f"{name}.png")) for name in frames])
            masks = {str(label): labels == label for label in np.unique(labels) if label not in (0, 255)}
            void = labels == 255
        yield Plain(video, frames, said, masks, void)


def in_object_folders(annotation: Path) -> Iterator[Plain]:
    """ReasonVOS."""
    folder = annotation.parent
    for video, entry in json.loads(annotation.read_text())["videos"].items():
        frames = frames_of(folder / "JPEGImages" / video, entry["frames"])
        said = [(str(item["exp_id"]), item["exp_text"], (str(item["obj_id"]),)) for item in entry["expressions"]]
        masks = {}
        for _, _, (each,) in said:
            place = folder / "Annotations" / f"{entry['source']}_{video}_{each}"
            masks[each] = np.stack([np.array(Image.open(place / f"{name}.png")) != 0 for name in frames])
        yield Plain(video, frames, said, masks)


def as_instances(annotation: Path, images: Path) -> Iterator[Plain]:
    """LV-VIS's official file: a category's name for all its instances of a video, in rising order of categories."""
    content = json.loads(annotation.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    for listed in content["videos"]:
        video = listed["file_names"][0].split("/")[0]
        frames = frames_of(images / video, [name.split("/")[1].removesuffix(".jpg") for name in listed["file_names"]])
        own = [each for each in content["annotations"] if each["video_id"] == listed["id"]]
        categories = sorted({each["category_id"] for each in own})
        said = [
            (str(number), names[category], tuple(str(each["id"]) for each in own if each["category_id"] == category))
            for number, category in enumerate(categories)
        ]
        size = (listed["height"], listed["width"])
        yield Plain(video, frames, said, {str(each["id"]): decoded(each["segmentations"], size) for each in own})


def plain(root: Path, name: str, split: str) -> list[Plain]:
    """A split as its files have it."""
    words = "meta_expressions.json"
    pngs: Callable[[str], Iterator[Plain]] = lambda top: in_indexed_pngs(  # noqa: E731
        root / top / "meta_expressions" / split / words, root / top / split
    )
    readings: dict[str, Callable[[], Iterator[Plain]]] = {
        "mevis": lambda: in_one_file(root / "mevis" / split / words, root / "mevis" / split / "JPEGImages"),
        "refer_youtube_vos": lambda: pngs("Refer-YouTube-VOS"),
        "ref_davis17": lambda: pngs("DAVIS17"),
        "revos": lambda: in_one_file(root / "ReVOS" / f"meta_expressions_{split}_.json", root / "ReVOS" / "JPEGImages"),
        "reason_vos": lambda: in_object_folders(root / "ReasonVOS" / words),
        "lv_vis": lambda: as_instances(
            root / "LVVIS" / f"{split}_instances.json", root / "LVVIS" / split / "JPEGImages"
        ),
    }
    return list(readings[name]())


def assert_same_as_plain(root: Path, name: str, split: str, out: Path) -> None:
    """Prepare a split, and compare every frame, mask, expression and id with the plain reading."""
    source = read_dataset(name, root, split)
    jobs = plan_jobs(source, root, out, 2)
    maker = ShardMaker()
    for job in jobs:
        maker.make(job)
    manifest = finish_split(source, jobs)
    assert not manifest.quarantine
    wanted = plain(root, name, split)
    with ShardedSplit.open(out) as shards:
        assert [entry.video for entry in shards.videos] == [video.video for video in wanted]
        for number, (entry, video) in enumerate(zip(shards.videos, wanted, strict=True)):
            assert list(entry.frame_names) == list(video.frames)
            everything = range(len(entry.frame_names))
            assert list(shards.read_jpegs(number, everything)) == list(video.frames.values())
            assert [(each.id, each.text, each.object_ids) for each in entry.expressions] == video.said
            assert set(entry.object_ids) == set(video.masks)
            void = shards.read_void(number, everything)
            assert (void is not None) == (video.void is not None and bool(video.void.any()))
            assert void is None or np.array_equal(void, video.void)
            for object_id, masks in video.masks.items():
                found = shards.read_masks(number, [object_id], everything)[0]
                assert np.array_equal(found, masks)
            for expression in entry.expressions:
                union = np.zeros((len(everything), entry.height, entry.width), bool)
                for object_id in expression.object_ids:
                    union |= video.masks[object_id]
                assert np.array_equal(shards.read_target(number, expression, everything), union)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("mevis", split) for split in ("train", "valid_u", "valid")),
        *(("refer_youtube_vos", split) for split in ("train", "valid")),
        *(("ref_davis17", split) for split in ("train", "valid")),
        *(("revos", split) for split in ("train", "valid")),
        ("reason_vos", "valid"),
        ("lv_vis", "train"),
    ],
)
def test_each_synthetic_dataset_comes_back_as_a_plain_reading_has_it(raw, tmp_path, name, split):
    assert_same_as_plain(raw.root, name, split, tmp_path / "out")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_real_cuts_come_back_as_a_plain_reading_has_them(real_data, tmp_path, split):
    assert_same_as_plain(real_data, "ref_davis17", split, tmp_path / "out")
