"""Random access over shards, and what `open` refuses."""

import copy
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from glus.common.errors import DataError, UserError
from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.finish import write_split
from glus.data_pipeline.shards.index import Counts
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.data_pipeline.shards.tar import encode_sample, write_shard


@pytest.fixture
def folder(tmp_path, record) -> Path:
    """A split of one shard with one video, written by hand."""
    folder = tmp_path / "shards" / "mevis" / "train"
    write_split(folder, "mevis", "train", [write_shard(folder / "shard-00000.tar", [encode_sample(record)])])
    return folder


def test_frames_masks_and_expressions_come_back_as_they_went_in(folder, record, tiny):
    with ShardedSplit.open(folder) as split:
        entry = split.videos[0]
        assert (split.dataset, split.split, entry.video) == ("mevis", "train", "one.video")
        assert entry.expressions == record.expressions
        assert entry.object_ids == ("1", "4")
        assert split.manifest.counts == Counts(videos=1, frames=5, objects=2, expressions=4, groups=2)
        frames = split.read_frames(0, [4, 0])
        assert frames.shape == (2, 32, 48, 3) and frames.dtype == np.uint8
        bgr = cv2.imdecode(np.frombuffer(tiny.jpegs[4], np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(frames[0], bgr[..., ::-1])
        masks = split.read_masks(0, ["4", "1"], range(5))
        assert np.array_equal(masks, np.stack([tiny.masks["4"], tiny.masks["1"]]))
        assert np.array_equal(split.read_target(0, entry.expressions[1], [3]), (tiny.masks["1"] | tiny.masks["4"])[[3]])
        assert not split.read_target(0, entry.expressions[3], [3]).any()


def test_a_mask_one_pixel_narrower_comes_back_at_the_frames_size(tmp_path, record, tiny):
    narrow = [encode(mask[:, :-1]) for mask in tiny.masks["1"]]
    sample = encode_sample(dataclasses.replace(record, objects={"1": narrow}, expressions=()))
    write_split(tmp_path / "s", "mevis", "train", [write_shard(tmp_path / "s" / "shard-00000.tar", [sample])])
    split = ShardedSplit.open(tmp_path / "s")
    assert split.read_masks(0, ["1"], range(5)).shape == (1, 5, 32, 48)
    assert np.array_equal(split.read_masks(0, ["1"], range(5))[0], tiny.masks["1"])


def test_a_split_can_be_pickled_for_workers_after_it_was_read(folder):
    split = ShardedSplit.open(folder)
    frames = split.read_frames(0, [0])
    assert np.array_equal(copy.deepcopy(split).read_frames(0, [0]), frames)


def test_an_object_that_is_not_there_is_named(folder):
    with pytest.raises(DataError, match="video one.video has no object 9; it has 1, 4"):
        ShardedSplit.open(folder).read_target(0, Expression("0", "", ("9",)), [0])


def test_a_frame_that_is_not_there_is_an_index_error(folder):
    with pytest.raises(IndexError, match="has frames 0 to 4, not 5"):
        ShardedSplit.open(folder).read_frames(0, [5])


def test_absent_empty_and_half_written_folders_are_told_apart(folder, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        ShardedSplit.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="an empty folder"):
        ShardedSplit.open(tmp_path / "empty")
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="without a manifest, so not finished"):
        ShardedSplit.open(folder)


def test_another_version_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(DataError, match="format version 99, this program reads versions 2 and 3"):
        ShardedSplit.open(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "glus-shards", "version": 2}'])
def test_a_damaged_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match="manifest"):
        ShardedSplit.open(folder)


def test_a_changed_index_is_refused(folder):
    (folder / "index.arrow").write_bytes((folder / "index.arrow").read_bytes().replace(b"look", b"feel"))
    with pytest.raises(DataError, match="not the index that the manifest vouches for"):
        ShardedSplit.open(folder)


def test_a_cut_or_missing_shard_is_refused(folder):
    shard = folder / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(DataError, match="the manifest says"):
        ShardedSplit.open(folder)
    shard.unlink()
    with pytest.raises(DataError, match="this shard is missing"):
        ShardedSplit.open(folder)


def test_verify_finds_one_changed_byte(folder):
    split = ShardedSplit.open(folder)
    split.verify()
    shard = folder / "shard-00000.tar"
    content = bytearray(shard.read_bytes())
    content[3000] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(content)
    with pytest.raises(DataError, match="shard-00000.tar: SHA-256"):
        ShardedSplit.open(folder).verify()


def test_splits_are_opened_by_name_and_a_wrong_name_gets_the_nearest(folder):
    root = folder.parents[1]
    assert [split.dataset for split in open_splits(root)] == ["mevis"]
    assert open_splits(root, ["mevis/train"])[0].fingerprint == ShardedSplit.open(folder).fingerprint
    with pytest.raises(DataError, match="no split mevis/trian here; did you mean mevis/train"):
        open_splits(root, ["mevis/trian"])
    with pytest.raises(DataError, match="does not exist"):
        open_splits(root / "x")


@pytest.mark.parametrize(
    "change",
    [
        {"shards": "../x.tar"},
        {"shards": "/etc/passwd"},
        {"shards": "a\\..\\x.tar"},
        {"dataset": "../../outside"},
        {"split": "train/.."},
        {"split": 3},
        {"source": {"../../secret": "0" * 64}},
    ],
)
def test_a_manifest_that_names_anything_outside_its_folder_is_refused(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if "shards" in change:
        # A good shard, outside: that it is there and whole is no reason to read it.
        (folder.parent / "x.tar").write_bytes((folder / "shard-00000.tar").read_bytes())
        change = {"shards": [{**manifest["shards"][0], "name": change["shards"]}]}
    path.chmod(0o644)
    path.write_text(json.dumps(manifest | change))
    refused = r"manifest\.json: (the (shard|dataset|split|source) name|a damaged manifest|split: Input)"
    with pytest.raises(UserError, match=refused):
        ShardedSplit.open(folder)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (b"[]", "damaged"),
        (b'{"1":[null]}', r"damaged \(1 masks for 5 frames\)"),
        (b'{"1":[null,null,null,null,{"size":[60000,60000],"counts":"0"}]}', r"one is 60000x60000 .* its frame 32x48"),
        (b'{"1":[null,null,null,null,{"size":[32,48],"counts":7}]}', "damaged"),
        (b'{"1":[null,null,null,null,{"size":[32,48],"counts":"0PPPP4"}]}', "do not fill it"),
    ],
)
def test_a_strangers_masks_that_lie_are_refused_before_they_are_unpacked(tmp_path, record, masks, message):
    sample = encode_sample(record)
    sample = dataclasses.replace(sample, members=(sample.members[0], ("masks.json", masks), *sample.members[2:]))
    write_split(tmp_path / "s", "mevis", "train", [write_shard(tmp_path / "s" / "shard-00000.tar", [sample])])
    with pytest.raises(DataError, match=message):
        ShardedSplit.open(tmp_path / "s").read_masks(0, ["1"], [4])
