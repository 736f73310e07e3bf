"""Raw datasets to shards: by one job alone, and by Ray."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import webdataset

from glus.common.errors import DataError, InputError
from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.raw.annotated_split import AnnotatedSplit
from glus.data_pipeline.raw.masks import decode
from glus.data_pipeline.shards.finish import finish_split, refuse_bad
from glus.data_pipeline.shards.index import Manifest
from glus.data_pipeline.shards.prepare import OBJECT_STORE_BYTES, PrepareConfig, named_splits, plan_jobs, prepare
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.data_pipeline.shards.shard_job import JobReport, ShardJob, ShardMaker


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One Ray for all tests here: starting one takes seconds."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_STORE_BYTES)
    yield
    ray.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def config(raw, out, *names, **settings) -> PrepareConfig:
    return PrepareConfig(list(names), raw.root, str(out), **({"videos_per_shard": 1, "workers": 2} | settings))


def davis_job(raw, out, videos=("one.video", "two")) -> ShardJob:
    return ShardJob("ref_davis17", "train", raw.root, out / "ref_davis17" / "train", 0, tuple(videos))


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_six_datasets_prepared_by_ray_come_back_as_released(raw, tmp_path):
    names = ["mevis", "refer_youtube_vos", "ref_davis17", "revos", "reason_vos", "lv_vis:train"]
    manifests = prepare(config(raw, tmp_path / "two", *names))
    splits = open_splits(tmp_path / "two", [f"{m.dataset}/{m.split}" for m in manifests])
    assert len(splits) == 11 and [split.manifest for split in splits] == manifests
    for split in splits:
        split.verify()
        source = read_dataset(split.dataset, raw.root, split.split)
        for video, entry in enumerate(split.videos):
            record = source.record(entry.video)
            assert entry.expressions == record.expressions and entry.object_ids == tuple(record.objects)
            drawn = next(drawn for drawn in raw.videos if drawn.name == entry.video)
            assert tuple(split.read_jpegs(video, range(5))) == drawn.jpegs
            for object_id, codes in record.objects.items():
                masks = np.stack([decode(code, 32, 48) for code in codes])
                assert np.array_equal(split.read_masks(video, [object_id], range(5))[0], masks)
        shards = [split.storage.path(shard.name) for shard in split.manifest.shards]
        plain = list(webdataset.WebDataset(shards, shardshuffle=False))
        assert [json.loads(sample["video.json"])["video"] for sample in plain] == split_videos(split)
        assert tuple(plain[1][f"{index:05d}.jpg"] for index in range(5)) == raw.videos[1].jpegs
    # One worker, and one process without Ray, write the same bytes.
    prepare(config(raw, tmp_path / "one", "mevis:train", "ref_davis17:train", workers=1))
    for name in ("mevis/train", "ref_davis17/train"):
        assert contents(tmp_path / "one" / name) == contents(tmp_path / "two" / name)
    finish(read_dataset("revos", raw.root, "valid"), raw, tmp_path / "none")
    assert contents(tmp_path / "none" / "revos" / "valid") == contents(tmp_path / "two" / "revos" / "valid")


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_what_spoils_a_split_or_strict_forbids_is_said_by_the_driver(raw, tmp_path):
    (raw.root / "DAVIS17" / "train" / "JPEGImages" / "two" / "00003.jpg").write_bytes(b"\xff\xd8\xffcut")
    with pytest.raises(DataError, match=r"video two is bad, and strict allows none: .*00003\.jpg: a JPEG that ends"):
        prepare(config(raw, tmp_path / "out", "ref_davis17:train", strict=True, workers=1))
    (raw.root / "mevis" / "train" / "mask_dict.json").write_text('{"0": [}')
    with pytest.raises(DataError, match=r"mask_dict\.json: broken JSON at line 1, column 8") as caught:
        prepare(config(raw, tmp_path / "out", "mevis:train", workers=1))
    assert caught.value.file.endswith("mask_dict.json")
    with pytest.raises(DataError, match="without a manifest, so not finished|does not exist"):
        ShardedSplit.open(tmp_path / "out" / "mevis" / "train")


def split_videos(split: ShardedSplit) -> list[str]:
    return [entry.video for entry in split.videos]


def finish(split: AnnotatedSplit, raw, out, videos_per_shard=1) -> tuple[Manifest, list[JobReport]]:
    """Prepare a split in this process."""
    jobs = plan_jobs(split, raw.root, out / split.dataset / split.split, videos_per_shard)
    maker = ShardMaker()
    reports = [maker.make(job) for job in jobs]
    return finish_split(split, jobs), reports


def spoil(kind: str, video: Path) -> None:
    """Make one video of the raw data one that the operating system refuses to open."""
    frame = video / "00003.jpg"
    if kind == "dangling frame":
        frame.unlink()
        frame.symlink_to("nowhere.jpg")
    elif kind == "frame linked to itself":
        frame.unlink()
        frame.symlink_to(frame.name)
    elif kind == "dangling folder":
        shutil.rmtree(video)
        video.symlink_to("nowhere")
    elif kind == "folder linked to itself":
        shutil.rmtree(video)
        video.symlink_to(video.name)
    else:
        video.chmod(0)


KINDS = (
    "dangling frame",
    "frame linked to itself",
    "dangling folder",
    "folder linked to itself",
    "folder without rights",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_that_cannot_be_opened_goes_to_the_quarantine_and_the_run_goes_on(raw, tmp_path, kind):
    raw.root.chmod(0o755)
    spoil(kind, raw.root / "DAVIS17" / "train" / "JPEGImages" / "two")
    with as_nobody(raw.root) if kind == "folder without rights" else contextlib.nullcontext():
        split = read_dataset("ref_davis17", raw.root, "train")
        manifest, _ = finish(split, raw, raw.root / "out")
    assert [(bad.video, str(raw.root) in bad.reason) for bad in manifest.quarantine] == [("two", False)]
    assert manifest.counts.videos == len(split.videos()) - 1
    before = split.stamp("two")
    # Fixed, it has another stamp, so that its shard is written again.
    place = raw.root / "DAVIS17" / "train" / "JPEGImages" / "two"
    place.unlink() if place.is_symlink() else place.chmod(0o755)
    place.mkdir(exist_ok=True)
    for name, jpeg in zip(("00000", "00003", "00006", "00009", "00012"), raw.videos[1].jpegs, strict=True):
        (place / f"{name}.jpg").unlink(missing_ok=True)
        (place / f"{name}.jpg").write_bytes(jpeg)
    assert read_dataset("ref_davis17", raw.root, "train").stamp("two") != before
    assert finish(read_dataset("ref_davis17", raw.root, "train"), raw, raw.root / "out")[0].quarantine == ()


@contextlib.contextmanager
def as_nobody(root: Path) -> Iterator[None]:
    """Without root's rights, where the tests run as root: nothing is closed to root."""
    if os.geteuid() != 0:
        yield
        return
    (root / "out").mkdir(mode=0o777)
    (root / "out").chmod(0o777)
    opened = [each for each in root.parents if not each.stat().st_mode & 0o001]
    modes = [each.stat().st_mode for each in opened]
    for each in opened:
        each.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for each, mode in zip(opened, modes, strict=True):
            each.chmod(mode)


@pytest.mark.parametrize(("dataset", "folder"), [("mevis", "mevis"), ("refer_youtube_vos", "Refer-YouTube-VOS")])
def test_a_video_whose_name_no_file_can_have_goes_to_the_quarantine(raw, tmp_path, dataset, folder):
    path = next(path for path in (raw.root / folder).rglob("meta_expressions.json") if path.parent.name == "valid")
    content = json.loads(path.read_text())
    names = {"x" * 300, "two/"} | ({"../two", "\x1b[2J"} if dataset == "mevis" else set())
    content["videos"].update(dict.fromkeys(names, next(iter(content["videos"].values()))))
    path.write_text(json.dumps(content))
    manifest, _ = finish(read_dataset(dataset, raw.root, "valid"), raw, tmp_path / "out")
    assert {bad.video for bad in manifest.quarantine} == names and manifest.counts.videos == 2


def test_finishing_refuses_parts_that_hold_other_videos_than_were_planned(raw, tmp_path):
    split = read_dataset("ref_davis17", raw.root, "train")
    finish(split, raw, tmp_path / "out", videos_per_shard=1)
    folder = tmp_path / "out" / "ref_davis17" / "train"
    (folder / "manifest.json").unlink()
    # As if another run with smaller shards had written into the same folder: its first part is whole, but not ours.
    with pytest.raises(DataError, match=r"shard-00000\.json: holds other videos than this run planned"):
        finish_split(split, plan_jobs(split, raw.root, folder, 8))
    assert not (folder / "manifest.json").exists()


def test_a_second_run_writes_only_what_changed_or_went_missing(raw, tmp_path):
    split = read_dataset("ref_davis17", raw.root, "train")
    manifest, _ = finish(split, raw, tmp_path / "out")
    folder = tmp_path / "out" / "ref_davis17" / "train"
    before = contents(folder)
    # As if killed: one shard and the manifest are not there yet, a half-written file is.
    (folder / "shard-00001.tar").unlink()
    (folder / "manifest.json").unlink()
    (folder / ".aside-1-shard-00001.tar").write_bytes(b"half")
    again, reports = finish(split, raw, tmp_path / "out")
    assert again == manifest and contents(folder) == before and [report.kept for report in reports] == [True, False]
    # A changed frame changes its shard alone.
    frame = raw.root / "DAVIS17" / "train" / "JPEGImages" / "two" / "00003.jpg"
    frame.write_bytes(raw.videos[1].jpegs[0])
    changed, reports = finish(split, raw, tmp_path / "out")
    assert changed.shards[0] == manifest.shards[0] and changed.shards[1] != manifest.shards[1]
    assert changed.fingerprint != manifest.fingerprint and [report.kept for report in reports] == [True, False]
    # Fewer, larger shards leave nothing of the old ones behind.
    finish(split, raw, tmp_path / "out", videos_per_shard=8)
    names = {"shard-00000.tar", "index.arrow", "manifest.json", "parts/shard-00000.json"}
    assert set(contents(folder)) == names


def test_bad_videos_are_left_out_and_listed_with_their_reason(raw, tmp_path, caplog):
    (raw.root / "DAVIS17" / "train" / "JPEGImages" / "two" / "00003.jpg").write_bytes(b"\xff\xd8\xffcut")
    manifest, reports = finish(read_dataset("ref_davis17", raw.root, "train"), raw, tmp_path / "out")
    assert (manifest.counts.videos, manifest.counts.frames, manifest.counts.expressions) == (1, 5, 3)
    (item,) = manifest.quarantine
    assert item.video == "two" and item.file == "DAVIS17/train/JPEGImages/two/00003.jpg"
    assert item.reason == f"{item.file}: a JPEG that ends too early (6 bytes); take this frame again"
    assert split_videos(ShardedSplit.open(tmp_path / "out" / "ref_davis17" / "train")) == ["one.video"]
    bad = [item for report in reports for item in report.quarantine]
    refuse_bad(bad, 2, "ref_davis17/train", 0.5)
    assert "1 of 2 videos are bad and left out" in caplog.text
    with pytest.raises(DataError, match=r"1 of 2 videos are bad, more than the allowed share of 0.01(.|\n)*00003\.jpg"):
        refuse_bad(bad, 2, "ref_davis17/train", 0.01)
    with pytest.raises(DataError, match="1 of 1 videos are bad"):
        refuse_bad(bad, 1, "ref_davis17/train", 1.0)


def test_the_real_cut_of_ref_davis17_survives_the_way_there_and_back(real_data, tmp_path):
    source = read_dataset("ref_davis17", real_data, "valid")
    jobs = plan_jobs(source, real_data, tmp_path / "valid", 32)
    ShardMaker().make(jobs[0])
    manifest = finish_split(source, jobs)
    assert (manifest.counts.videos, manifest.counts.objects, manifest.counts.frames) == (2, 3, 130)
    with ShardedSplit.open(tmp_path / "valid") as split:
        for video, entry in enumerate(split.videos):
            folder = real_data / "DAVIS17" / "valid" / "JPEGImages" / entry.video
            for index, content in enumerate(split.read_jpegs(video, range(len(entry.frame_names)))):
                assert content == (folder / f"{entry.frame_names[index]}.jpg").read_bytes()


def test_a_split_with_an_unfinished_shard_gets_no_manifest(raw, tmp_path):
    split = read_dataset("ref_davis17", raw.root, "train")
    jobs = plan_jobs(split, raw.root, tmp_path / "out", 1)
    ShardMaker().make(jobs[0])
    with pytest.raises(DataError, match=r"shard-00001\.tar: is not finished"):
        finish_split(split, jobs)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_job_on_a_full_disk_says_so_and_leaves_nothing_half_written(raw, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can be mounted by root only")
    try:
        with pytest.raises(InputError, match=r"shard-00000\.tar: cannot be written \(No space left on device\)"):
            ShardMaker().make(davis_job(raw, disk))
        assert contents(disk) == {}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_job_withdraws_the_manifest_before_it_changes_a_shard(raw, tmp_path):
    job = davis_job(raw, tmp_path / "out")
    job.folder.mkdir(parents=True)
    (job.folder / "manifest.json").write_text("{}")
    assert not ShardMaker().make(job).kept
    assert not (job.folder / "manifest.json").exists()
    (job.folder / "manifest.json").write_text("{}")
    assert ShardMaker().make(job).kept
    assert (job.folder / "manifest.json").exists()


def test_a_damaged_part_means_the_shard_is_written_again(raw, tmp_path, caplog):
    job = davis_job(raw, tmp_path / "out")
    ShardMaker().make(job)
    before = contents(tmp_path / "out")
    (job.folder / "parts" / "shard-00000.json").write_text("{")
    assert not ShardMaker().make(job).kept
    assert contents(tmp_path / "out") == before and "damaged" in caplog.text


def test_a_shard_without_any_good_video_is_no_tar(raw, tmp_path):
    shutil.rmtree(raw.root / "DAVIS17" / "train" / "JPEGImages" / "two")
    job = davis_job(raw, tmp_path / "out", ["two"])
    report = ShardMaker().make(job)
    assert [item.video for item in report.quarantine] == ["two"]
    assert list(contents(tmp_path / "out")) == ["ref_davis17/train/parts/shard-00000.json"]
    assert ShardMaker().make(job).kept


def test_videos_are_planned_in_the_annotations_order(raw, tmp_path):
    split = read_dataset("mevis", raw.root, "train")
    jobs = plan_jobs(split, raw.root, tmp_path, 1)
    assert [(job.name, job.videos) for job in jobs] == [
        ("shard-00000.tar", ("one.video",)),
        ("shard-00001.tar", ("two",)),
    ]


def test_a_name_alone_means_every_split_that_is_there(raw):
    shutil.rmtree(raw.root / "mevis" / "valid")
    assert named_splits(["mevis", "mevis:train"], raw.root) == [("mevis", "train"), ("mevis", "valid_u")]
    with pytest.raises(DataError, match="no datasets named"):
        named_splits([], raw.root)
    with pytest.raises(
        DataError, match="no dataset 'davis'; did you mean 'mevis'|no dataset 'davis'; did you mean 'ref"
    ):
        named_splits(["davis"], raw.root)


@pytest.mark.parametrize("settings", [{"videos_per_shard": 0}, {"workers": 0}])
def test_settings_below_one_are_refused(raw, tmp_path, settings):
    with pytest.raises(DataError, match="must be at least 1"):
        prepare(config(raw, tmp_path, "mevis", **settings))


def test_after_a_power_cut_a_shard_of_the_right_size_is_compared_by_its_content(raw, tmp_path):
    split = read_dataset("ref_davis17", raw.root, "train")
    finish(split, raw, tmp_path / "out")
    folder = tmp_path / "out" / "ref_davis17" / "train"
    before = contents(folder)
    # The name was on the disk, the content was not yet, nor was there a manifest.
    shard = folder / "shard-00000.tar"
    shard.chmod(0o644)
    shard.write_bytes(bytes(shard.stat().st_size))
    (folder / "manifest.json").unlink()
    _, reports = finish(split, raw, tmp_path / "out")
    assert [report.kept for report in reports] == [False, True] and contents(folder) == before


def test_with_decode_damage_inside_a_frame_is_found_while_preparing(raw, tmp_path):
    frame = raw.root / "DAVIS17" / "train" / "JPEGImages" / "two" / "00003.jpg"
    content = bytearray(frame.read_bytes())
    content[-60:-2] = bytes(58)
    frame.write_bytes(content)
    split = read_dataset("ref_davis17", raw.root, "train")
    jobs = plan_jobs(split, raw.root, tmp_path / "out", 2, decode=True)
    (item,) = ShardMaker().make(jobs[0]).quarantine
    assert (item.video, item.frame) == ("two", "00003") and "cannot be decoded" in item.reason
    # Without it the frame goes in as it is, and is refused when it is read.
    finish(split, raw, tmp_path / "out")
    (undecoded,) = open_splits(tmp_path / "out", ["ref_davis17/train"])
    with pytest.raises(DataError, match=r"video two frame 00003 cannot be decoded"):
        undecoded.read_frames(1, range(5))


def test_check_compares_shards_and_sources_with_what_is_known_of_them(raw, tmp_path, capsys, monkeypatch):
    split = read_dataset("revos", raw.root, "train")
    finish(split, raw, tmp_path / "out")
    checked = config(raw, tmp_path / "out", "revos:train", check=True)
    with pytest.raises(DataError, match=r"mask_dict\.json: SHA-256 .*published e9b431066149.*download it again"):
        prepare(checked)
    digests = {f"ReVOS/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in split.files}
    monkeypatch.setattr("glus.data_pipeline.shards.check.PUBLISHED", digests)
    assert [manifest.counts.videos for manifest in prepare(checked)] == [2]
    told = capsys.readouterr().out
    assert "ReVOS/mask_dict.json: as published" in told and "revos/train: 2 shards as the manifest says" in told
    shard = tmp_path / "out" / "revos" / "train" / "shard-00001.tar"
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"1 things(.|\n)*shard-00001\.tar: SHA-256"):
        prepare(checked)
    annotation = raw.root / "ReVOS" / "meta_expressions_train_.json"
    annotation.write_text(annotation.read_text() + " ")
    with pytest.raises(DataError, match=r"meta_expressions_train_\.json: changed since revos/train was prepared"):
        prepare(checked)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(raw, tmp_path, share):
    with pytest.raises(DataError, match="max_bad_share is a share from 0 to 1"):
        prepare(config(raw, tmp_path, "mevis", max_bad_share=share))
