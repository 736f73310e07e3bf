"""Shards on a disk and on an object store: the same bytes, the same way to read them, errors in one line."""

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer

from glus.common.errors import DataError
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.data_pipeline.shards.shard_job import ShardMaker
from glus.data_pipeline.shards.storage import Storage

from .tiny_splits import PARITY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store() -> Iterator[None]:
    """An S3 server on loopback with a bucket, told of by the environment as on a real machine."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "anybody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("s3://bucket")
        yield
    server.stop()


def prepare_here(raw, out: str, videos_per_shard: int = 1) -> list[bool]:
    """Prepare MeViS train in this process; which of its shards were kept as they were."""
    split = read_dataset("mevis", raw.root, "train")
    jobs = plan_jobs(split, raw.root, Storage.at(out).below("mevis", "train").place, videos_per_shard)
    maker = ShardMaker()
    kept = [maker.make(job).kept for job in jobs]
    finish_split(split, jobs)
    return kept


@pytest.mark.usefixtures("store")
def test_an_object_store_holds_the_same_bytes_as_a_disk_and_is_resumed_alike(raw, tmp_path):
    out = "s3://bucket/resumed"
    assert prepare_here(raw, str(tmp_path / "disk")) == prepare_here(raw, out) == [False, False]
    here, there = Storage.at(tmp_path / "disk" / "mevis" / "train"), Storage.at(f"{out}/mevis/train")
    assert here.files() == there.files() == ["index.arrow", "manifest.json", "shard-00000.tar", "shard-00001.tar"]
    for name in [*here.files(), "parts/shard-00001.json"]:
        assert here.read(name) == there.read(name)
    assert prepare_here(raw, out) == [True, True]
    there.remove("shard-00000.tar")
    with pytest.raises(DataError, match=r"^s3://bucket/resumed/mevis/train/shard-00000\.tar: this shard is missing"):
        ShardedSplit.open(f"{out}/mevis/train")
    assert prepare_here(raw, out) == [False, True]
    assert there.read("shard-00000.tar") == here.read("shard-00000.tar")
    # Larger shards leave nothing of the smaller ones behind.
    prepare_here(raw, out, videos_per_shard=5)
    assert [*there.files(), *there.files("parts")] == [
        *("index.arrow", "manifest.json", "shard-00000.tar", "shard-00000.json")
    ]


@pytest.mark.usefixtures("store")
def test_batches_from_an_object_store_are_those_from_a_disk(raw, tmp_path):
    read = {}
    for place in (str(tmp_path / "shards"), "s3://bucket/batches"):
        prepare_here(raw, place)
        plan = SamplePlan(open_splits(place), SamplingConfig(mixture={"mevis/train": 1.0}), 0, 2)
        read[place] = list(Loader(plan, Tokenizer(PARITY), rank=0, ranks=1, size=1, start=0, stop=3, workers=2))
    for ours, theirs in zip(*read.values(), strict=True):
        assert torch.equal(ours.frames[0], theirs.frames[0]) and torch.equal(ours.ids, theirs.ids)
        assert ours.masks[0].painted().any() and torch.equal(ours.masks[0].painted(), theirs.masks[0].painted())


@pytest.mark.usefixtures("store")
def test_frames_and_masks_are_read_from_an_object_store_at_random_and_front_to_back(raw):
    prepare_here(raw, "s3://bucket/read", videos_per_shard=2)
    (split,) = open_splits("s3://bucket/read", ["mevis/train"])
    split.verify()
    streamed = list(split.stream())
    for number, (drawn, passed) in enumerate(zip(raw.videos, streamed, strict=True)):
        assert list(split.read_jpegs(number, [4, 0, 2])) == [drawn.jpegs[index] for index in (4, 0, 2)]
        assert passed.number == number and passed.jpegs == drawn.jpegs
        assert list(passed.masks) == list(split.videos[number].object_ids)
        masks = split.read_masks(number, split.videos[number].object_ids, range(5))
        assert np.array_equal(masks, np.stack(list(drawn.masks.values())))
    sent = pickle.loads(pickle.dumps(split))  # noqa: S301  our own bytes: this is how another process gets it
    assert list(sent.read_jpegs(1, [3])) == [raw.videos[1].jpegs[3]] and sent.fingerprint == split.fingerprint
    plan = SamplePlan([split], SamplingConfig(mixture={"mevis/train": 1.0}), 0, 4)
    assert len(plan.global_batch(0)) == 4


@pytest.mark.usefixtures("store")
def test_what_is_not_on_the_store_is_told_in_one_line(raw):
    with pytest.raises(DataError, match=r"^s3://bucket/nothing: this folder of shards does not exist"):
        open_splits("s3://bucket/nothing")
    with pytest.raises(DataError, match=r"^s3://nobucket/x/mevis/train/.*: cannot be written \(.*credentials"):
        prepare_here(raw, "s3://nobucket/x")


def test_an_unknown_kind_of_address_is_told(raw):
    with pytest.raises(DataError, match=r"^nofs://x"):
        open_splits("nofs://x/y")


def test_a_store_that_cannot_be_reached_is_told(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        with pytest.raises(DataError, match=r"^s3://elsewhere/x: cannot be listed \(.*check the address"):
            open_splits("s3://elsewhere/x")
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_path_and_a_file_url_are_the_same_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    assert Storage.at(f"file://{tmp_path}") == Storage.at(tmp_path) == Storage.at(Storage.at(tmp_path))
    storage = Storage.at(tmp_path).below("a")
    assert storage.local == tmp_path / "a" and storage.size("x") == 5 and storage.size("y") is None
    assert b"".join(storage.blocks("x")) == b"12345"
    assert Storage.at(tmp_path).folders() == ["a"] and Storage.at(tmp_path / "no").files() == []
    assert Storage.at(Path("s3://bucket/a")) == Storage.at("s3://bucket/a")
    assert Storage.at("s3://bucket/a/").place == "s3://bucket/a" and Storage.at("s3://bucket/a").local is None


def test_streaming_finds_a_shard_that_was_changed_or_cut(raw, tmp_path):
    prepare_here(raw, str(tmp_path), videos_per_shard=2)
    split = ShardedSplit.open(tmp_path / "mevis" / "train")
    assert [video.number for video in split.stream(["shard-00000.tar"])] == [0, 1]
    assert list(split.stream(["shard-00007.tar"])) == []
    path = Path(split.storage.path("shard-00000.tar"))
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-00000\.tar: SHA-256 .* the shard was damaged or replaced"):
        list(split.stream())
    path.write_bytes(content[:2000])
    with pytest.raises(DataError, match=r"shard-00000\.tar: ends before byte"):
        list(split.stream())
