"""Image datasets to shards and back: all that comes out is what a plain reading of the released files gives.

The readings here use json, pickle, Pillow, OpenCV and pycocotools alone, and nothing of this project.
"""

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.shard_job import ShardMaker
from tests.data_pipeline.image_layouts import write_all


@dataclass(frozen=True)
class Plain:
    """An image: its name and JPEG, (id, text, object ids, kind) of each expression, bool [H, W] an object, void."""

    name: str
    jpeg: bytes
    said: list[tuple[str, str, tuple[str, ...], str]]
    masks: dict[str, np.ndarray]
    void: np.ndarray | None = None


def mask_of(segmentation: Any, height: int, width: int) -> np.ndarray:
    """As REFER.getMask and LISA: the sum of all parts."""
    if not segmentation:
        return np.zeros((height, width), bool)
    codes = coco.frPyObjects(segmentation, height, width)
    decoded = coco.decode(codes)
    return decoded.astype(bool) if decoded.ndim == 2 else decoded.sum(axis=2) > 0


def refer(root: Path, folder: str, file: str, split: str) -> Iterator[Plain]:
    place = root / "refer_seg" / folder
    content = json.loads((place / "instances.json").read_text())
    with (place / file).open("rb") as opened:
        # Written by this test.
        refs = [ref for ref in pickle.load(opened) if ref["split"] == split]  # noqa: S301
    found = {each["id"]: each for each in content["annotations"]}
    for image in content["images"]:
        own = [ref for ref in refs if ref["image_id"] == image["id"]]
        if not own:
            continue
        said = [(str(s["sent_id"]), s["sent"], (str(ref["ann_id"]),), "") for ref in own for s in ref["sentences"]]
        masks = {
            str(ref["ann_id"]): mask_of(found[ref["ann_id"]]["segmentation"], image["height"], image["width"])
            for ref in own
        }
        jpeg = (root / "refer_seg/images/mscoco/images/train2014" / image["file_name"]).read_bytes()
        yield Plain(image["file_name"].removesuffix(".jpg"), jpeg, said, masks)


def reason_seg(root: Path, split: str) -> Iterator[Plain]:
    """As get_mask_from_json of LISA's utils/data_processing.py."""
    for path in sorted((root / "reason_seg/ReasonSeg" / split).glob("*.json")):
        try:
            content = json.loads(path.read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            content = json.loads(path.read_bytes().decode("cp1252"))
        height, width = cv2.imread(str(path.with_suffix(".jpg"))).shape[:2]
        kept, areas = [shape for shape in content["shapes"] if shape["label"].lower() != "flag"], []
        for shape in kept:
            alone = np.zeros((height, width), np.uint8)
            cv2.polylines(alone, np.array([shape["points"]], dtype=np.int32), True, 1, 1)
            cv2.fillPoly(alone, np.array([shape["points"]], dtype=np.int32), 1)
            areas.append(alone.sum())
        labels = np.zeros((height, width), np.uint8)
        for place in np.argsort(areas)[::-1]:
            value = 255 if "ignore" in kept[place]["label"].lower() else 1
            cv2.polylines(labels, np.array([kept[place]["points"]], dtype=np.int32), True, value, 1)
            cv2.fillPoly(labels, np.array([kept[place]["points"]], dtype=np.int32), value)
        kind = "sentence" if content["is_sentence"] else "phrase"
        said = [(str(number), text, ("1",), kind) for number, text in enumerate(content["text"])]
        yield Plain(path.stem, path.with_suffix(".jpg").read_bytes(), said, {"1": labels == 1}, labels == 255)


ADE = {1: "wall", 2: "building", 13: "person", 150: "flag"}
COCO_STUFF = {0: "person", 95: None, 168: "tree", 171: None, 181: "wood"}  # building-other and wall-concrete have a "-"


def semantic(root: Path, images: str, labels: str, names: dict[int, str | None], ignored: int) -> Iterator[Plain]:
    for path in sorted((root / labels).glob("*.png")):
        stored = np.array(Image.open(path))
        shown = [int(each) for each in np.unique(stored) if each != ignored and names[int(each)] is not None]
        said = [(str(each), str(names[each]), (str(each),), "") for each in shown]
        jpeg = (root / images / f"{path.stem}.jpg").read_bytes()
        yield Plain(path.stem, jpeg, said, {str(each): stored == each for each in shown})


def parts(root: Path, file: str, images: str, texts: dict[int, list[str]]) -> Iterator[Plain]:
    content = json.loads((root / file).read_text())
    for image in content["images"]:
        own = [each for each in content["annotations"] if each["image_id"] == image["id"]]
        said = [
            (f"{each['id']}{'-of' if number else ''}", text, (str(each["id"]),), "")
            for each in own
            for number, text in enumerate(texts[each["category_id"]])
        ]
        masks = {str(each["id"]): mask_of(each["segmentation"], image["height"], image["width"]) for each in own}
        name = image["file_name"].rpartition("/")[2].removesuffix(".jpg")
        yield Plain(name, (root / images / image["file_name"]).read_bytes(), said, masks)


def plain(root: Path, name: str, split: str) -> list[Plain]:
    files = {"refcoco": ("refcoco", "refs(unc).p"), "refcoco_plus": ("refcoco+", "refs(unc).p")}
    if name.startswith("refcoco"):
        return list(refer(root, *files.get(name, ("refcocog", "refs(umd).p")), split))
    pascal = "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages"
    readings = {
        "reason_seg": lambda: reason_seg(root, split),
        "ade20k": lambda: semantic(root, "ade20k/images/training", "ade20k/annotations/training", ADE, 0),
        "coco_stuff": lambda: semantic(root, "coco/train2017", "cocostuff/train2017", COCO_STUFF, 255),
        "paco_lvis": lambda: parts(
            root,
            "vlpart/paco/annotations/paco_lvis_v1_train.json",
            "coco",
            {1: ["mug"], 2: ["mug handle", "the handle of the mug"]},
        ),
        "pascal_part": lambda: parts(
            root,
            "vlpart/pascal_part/train.json",
            pascal,
            {1: ["dog head", "the head of the dog"], 2: ["dog tail", "the tail of the dog"]},
        ),
    }
    return list(readings[name]())


def prepared(root: Path, name: str, split: str, out: Path) -> ShardedSplit:
    source = read_dataset(name, root, split)
    jobs = plan_jobs(source, root, out, 2)
    maker = ShardMaker()
    for job in jobs:
        maker.make(job)
    assert not finish_split(source, jobs).quarantine
    return ShardedSplit.open(out)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("refcoco", split) for split in ("train", "val", "testA")),
        *(("refcoco_plus", split) for split in ("train", "val", "testB")),
        *(("refcocog", split) for split in ("train", "val", "test")),
        *(("reason_seg", split) for split in ("train", "val")),
        *((name, "train") for name in ("ade20k", "coco_stuff", "paco_lvis", "pascal_part")),
    ],
)
def test_each_image_dataset_comes_back_as_a_plain_reading_has_it(tmp_path, name, split):
    root = write_all(tmp_path / "raw")
    wanted = plain(root, name, split)
    assert wanted
    with prepared(root, name, split, tmp_path / "out") as shards:
        assert [entry.video for entry in shards.videos] == [image.name for image in wanted]
        for number, (entry, image) in enumerate(zip(shards.videos, wanted, strict=True)):
            assert entry.frame_names == (image.name,)
            assert list(shards.read_jpegs(number, [0])) == [image.jpeg]
            assert [(e.id, e.text, e.object_ids, e.kind) for e in entry.expressions] == image.said
            assert set(entry.object_ids) == set(image.masks)
            for object_id, mask in image.masks.items():
                assert np.array_equal(shards.read_masks(number, [object_id], [0])[0, 0], mask)
            void = shards.read_void(number, [0])
            assert (void is not None) == (image.void is not None and bool(image.void.any()))
            assert void is None or np.array_equal(void[0], image.void)


def test_youtube_vos_says_a_category_for_all_its_objects(tmp_path):
    root = write_all(tmp_path / "raw")
    with prepared(root, "youtube_vos", "train", tmp_path / "out") as shards:
        [entry] = shards.videos
        assert [(e.text, e.object_ids) for e in entry.expressions] == [("car", ("1", "3")), ("cow", ("2",))]
        folder = root / "YouTube-VOS/train/Annotations/003234408d"
        stored = np.stack([np.array(Image.open(path)) for path in sorted(folder.iterdir())])
        for expression, ids in zip(entry.expressions, ((1, 3), (2,)), strict=True):
            assert np.array_equal(shards.read_target(0, expression, range(3)), np.isin(stored, ids))
