"""A video as a WebDataset sample."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import DataError, InputError
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.tar import encode_sample, sample_key, tar_spans, write_shard


def test_plain_webdataset_reads_every_member_as_it_was(tmp_path, record, tiny):
    other = dataclasses.replace(record, video="a/b c.d")
    write_shard(tmp_path / "shard-00000.tar", [encode_sample(record), encode_sample(other)])
    samples = list(webdataset.WebDataset(str(tmp_path / "shard-00000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["mevis/train/one%2Evideo", "mevis/train/a%2Fb%20c%2Ed"]
    for sample in samples:
        endings = [name for name in sample if not name.startswith("__")]
        assert endings == ["video.json", "masks.json", *(f"{index:05d}.jpg" for index in range(5))]
        assert tuple(sample[f"{index:05d}.jpg"] for index in range(5)) == tiny.jpegs
        assert json.loads(sample["masks.json"]) == record.objects
    content = json.loads(samples[0]["video.json"])
    assert content["frame_names"] == ["00000", "00005", "00010", "00015", "00020"]
    assert content["groups"] == [["0", "2"], ["1"]]
    assert content["expressions"][0] == {
        "id": "0",
        "text": " the red one; 'quoted' #1 é",
        "object_ids": ["1"],
        "kind": "look",
        "type_id": None,
    }


def test_the_same_samples_give_the_same_bytes(tmp_path, record):
    sample = encode_sample(record)
    first, index = write_shard(tmp_path / "a" / "shard-00000.tar", [sample])
    second, _ = write_shard(tmp_path / "b" / "shard-00000.tar", [sample])
    assert first == second
    content = (tmp_path / "a" / "shard-00000.tar").read_bytes()
    assert content == (tmp_path / "b" / "shard-00000.tar").read_bytes()
    offset, size = index[0].frames[3]
    assert content[offset : offset + size] == record.frames.read_bytes(3)
    assert [name for name, _ in tar_spans(tmp_path / "a" / "shard-00000.tar")][
        0
    ] == "mevis/train/one%2Evideo.video.json"


def test_a_shard_is_written_without_torch(tmp_path: Path) -> None:
    """Each Ray worker would take seconds to import it; it is there for who needs it later."""
    code = (
        "import importlib.util, sys\n"
        "from glus.data_pipeline.shards.tar import write_shard\n"
        "write_shard(sys.argv[1], [])\n"
        "print('webdataset' in sys.modules, 'torch' in sys.modules, importlib.util.find_spec('torch') is not None)\n"
    )
    words = [sys.executable, "-P", "-c", code, str(tmp_path / "shard-00000.tar")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True False True\n", 0), done.stderr


@given(st.lists(st.text(min_size=1, max_size=120), min_size=2, max_size=2, unique=True))
def test_keys_of_different_videos_differ_and_hold_no_dot(videos):
    keys = [sample_key("mevis", "train", video) for video in videos]
    assert keys[0] != keys[1]
    for key in keys:
        assert "." not in key and key.count("/") == 2 and key.isascii() and len(key) <= 90


def test_a_very_long_video_name_still_makes_a_tar(tmp_path, record):
    sample = encode_sample(dataclasses.replace(record, video="x" * 200))
    write_shard(tmp_path / "shard-00000.tar", [sample])
    assert len(list(webdataset.WebDataset(str(tmp_path / "shard-00000.tar"), shardshuffle=False))) == 1


def test_a_sample_that_fails_leaves_no_file_behind(tmp_path, record):
    def samples():
        yield encode_sample(record)
        raise DataError("the second is bad")

    with pytest.raises(DataError, match="the second is bad"):
        write_shard(tmp_path / "out" / "shard-00000.tar", samples())
    assert list((tmp_path / "out").iterdir()) == []


def test_an_expression_that_names_an_object_without_masks_is_refused(record):
    bad = dataclasses.replace(record, expressions=(Expression("7", "who", ("9",)),))
    with pytest.raises(DataError, match="mevis/train/one.video: expression 7 names object 9, which has no masks"):
        encode_sample(bad)


def test_two_expressions_with_one_id_are_refused(record):
    bad = dataclasses.replace(record, expressions=(Expression("7", "a", ()), Expression("7", "b", ())))
    with pytest.raises(InputError, match="the expressions '7' and '7' would share a folder"):
        encode_sample(bad)


def test_masks_for_too_few_frames_are_refused(record):
    bad = dataclasses.replace(record, objects={"1": record.objects["1"][:4], "4": record.objects["4"]})
    with pytest.raises(DataError, match="object 1 has masks for 4 frames, the video has 5"):
        encode_sample(bad)


def test_a_frame_that_went_missing_is_named(record, tmp_path):
    (Path(tmp_path) / "frames" / "one.video" / "00010.jpg").unlink()
    with pytest.raises(DataError, match=r"00010.jpg: this frame is missing"):
        encode_sample(record)
