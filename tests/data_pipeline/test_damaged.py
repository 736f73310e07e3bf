"""Five hundred damaged inputs: each is refused or put aside with its reason, or comes out as it now is on disk.

The damage is drawn from a seed: files cut short, bytes changed, JSON values and run-length codes replaced.
"""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from glus.common.errors import DataError, UserError
from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.raw.masks import decode
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.shard_job import ShardMaker
from glus.data_pipeline.shards.tar import decode_frames, encode_sample

from .conftest import RawData

pytestmark = pytest.mark.slow

VALUES: list[object] = [
    None,
    7,
    -1,
    1e9,
    "",
    "x",
    [],
    {},
    ["a"],
    [[1]],
    True,
    {"size": [32, 48], "counts": "0"},
    "\ud800",
]


def cut_or_changed(content: bytes, random: np.random.Generator) -> bytes:
    """The bytes cut short, or with one to three of them replaced."""
    if random.random() < 0.4:
        return content[: int(random.integers(len(content)))]
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        changed[int(random.integers(len(changed)))] = int(random.integers(256))
    return bytes(changed)


def with_another_value(content: object, random: np.random.Generator) -> object:
    """JSON in which one value, somewhere, is another."""
    if isinstance(content, (dict, list)) and content and random.random() < 0.93:
        key = list(content)[int(random.integers(len(content)))] if isinstance(content, dict) else None
        place = key if isinstance(content, dict) else int(random.integers(len(content)))
        content[place] = with_another_value(content[place], random)  # type: ignore[index, call-overload]
        return content
    if isinstance(content, str) and content and random.random() < 0.6:
        place = int(random.integers(len(content)))
        return content[:place] + chr(int(random.integers(33, 127))) + content[place + int(random.integers(3)) :]
    return VALUES[int(random.integers(len(VALUES)))]


def outcomes(raw: RawData, name: str, check) -> Counter[str]:
    """Read both videos as `glus prepare` would. What is accepted must pass `check(record, entry)`."""
    found: Counter[str] = Counter()
    try:
        source = read_dataset(name, raw.root, "train")
        source.open_masks()
        videos = source.videos()
    except UserError as error:
        assert str(raw.root) in str(error), error
        return Counter(refused=1)
    for video in videos:
        try:
            source.stamp(video)
            record = source.record(video)
            sample = encode_sample(record)
            decode_frames(sample)
        except UserError as error:
            assert str(error) and "\n" not in str(error)
            found["aside"] += 1
            continue
        check(record)
        assert [content for _, content in sample.members[2:]] == [
            (source.images / video / f"{frame}.jpg").read_bytes() for frame in record.frames.names
        ]
        found["accepted"] += 1
    return found


def masks_are_those_of_the_json(raw: RawData):
    """A check: each accepted mask is what pycocotools reads from the file as it is now."""

    def check(record) -> None:
        text = (raw.root / "mevis" / "train" / "mask_dict.json").read_text(encoding="latin-1")
        for object_id, ours in record.objects.items():
            # The file may be broken elsewhere, so only this object's masks are read.
            name = f'"{object_id}": '
            codes, _ = json.JSONDecoder().raw_decode(text, text.index(name) + len(name))
            for code, theirs in zip(ours, codes, strict=True):
                assert (code is None) == (theirs is None)
                if theirs is not None:
                    raw_code = (
                        theirs if isinstance(theirs["counts"], str) else coco.frPyObjects(theirs, *theirs["size"])
                    )
                    wanted = coco.decode(raw_code).astype(bool)
                    height, width = min(wanted.shape[0], 32), min(wanted.shape[1], 48)
                    assert np.array_equal(decode(code, 32, 48)[:height, :width], wanted[:height, :width])

    return check


def masks_are_those_of_the_pngs(raw: RawData):
    """A check: each accepted mask is what Pillow reads from the files as they are now."""

    def check(record) -> None:
        for place, name in enumerate(record.frames.names):
            with Image.open(raw.root / "DAVIS17" / "train" / "Annotations" / record.video / f"{name}.png") as picture:
                labels = np.array(picture)
            for object_id, codes in record.objects.items():
                assert np.array_equal(decode(codes[place], 32, 48), labels == int(object_id))

    return check


@pytest.mark.parametrize("kind", ["jpeg", "png", "mask_dict bytes", "expressions bytes", "mask_dict", "expressions"])
def test_eighty_damaged_files_of_each_kind_are_refused_put_aside_or_read_as_they_are(raw, kind):
    random = np.random.Generator(np.random.Philox(key=len(kind)))
    name = {"jpeg": "ref_davis17", "png": "ref_davis17"}.get(kind, "mevis")
    folder = raw.root / "mevis" / "train"
    video = raw.root / "DAVIS17" / "train"
    check = (masks_are_those_of_the_pngs if name == "ref_davis17" else masks_are_those_of_the_json)(raw)
    told: Counter[str] = Counter()
    for _ in range(80):
        path = {
            "jpeg": video / "JPEGImages" / "two" / f"{3 * int(random.integers(5)):05d}.jpg",
            "png": video / "Annotations" / "two" / f"{3 * int(random.integers(5)):05d}.png",
        }.get(kind, folder / ("mask_dict.json" if kind.startswith("mask_dict") else "meta_expressions.json"))
        content = path.read_bytes()
        if kind in ("mask_dict", "expressions"):
            path.write_text(json.dumps(with_another_value(json.loads(content), random)))
        else:
            path.write_bytes(cut_or_changed(content, random))
        told += outcomes(raw, name, check)
        path.write_bytes(content)
    assert told["refused"] + told["aside"] >= 25, told


@pytest.fixture
def whole(raw, tmp_path) -> Path:
    """MeViS train as shards, undamaged."""
    split = read_dataset("mevis", raw.root, "train")
    jobs = plan_jobs(split, raw.root, tmp_path / "whole", 1)
    maker = ShardMaker()
    for job in jobs:
        maker.make(job)
    finish_split(split, jobs)
    shutil.rmtree(tmp_path / "whole" / "parts")
    return tmp_path / "whole"


def test_forty_damaged_shards_are_all_found_and_never_give_a_wrong_mask(whole):
    random = np.random.Generator(np.random.Philox(key=40))
    with ShardedSplit.open(whole) as split:
        masks = [split.read_masks(video, split.videos[video].object_ids, range(5)) for video in range(2)]
    for _ in range(40):
        path = sorted(whole.iterdir())[int(random.integers(4))]
        content = path.read_bytes()
        path.chmod(0o644)
        damaged = cut_or_changed(content, random)
        path.write_bytes(damaged)
        if damaged != content:
            with pytest.raises(DataError) as caught:
                with ShardedSplit.open(whole) as split:
                    # Reading at random notices what matters to masks, before anything is hashed.
                    for video in range(2):
                        ids = split.videos[video].object_ids
                        assert np.array_equal(split.read_masks(video, ids, range(5)), masks[video])
                    list(split.stream())
            assert str(whole) in str(caught.value)
        path.write_bytes(content)
    ShardedSplit.open(whole).verify()
