"""Warnings raised while videos are read: in the manifest, and printed once."""

import dataclasses
import json
import logging
import shutil
import warnings
from pathlib import Path

from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.raw.annotated_split import AnnotatedSplit
from glus.data_pipeline.shards.finish import finish_split
from glus.data_pipeline.shards.index import Note
from glus.data_pipeline.shards.notes import MOST, collected, report_notes
from glus.data_pipeline.shards.prepare import plan_jobs
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.shard_job import ShardMaker


class Noticing:
    """The frames of a video whose reader notices, warns and logs."""

    def __init__(self, frames):
        self._frames, self.names, self.origin, self.notes = frames, frames.names, frames.origin, ("lost 3 frames",)

    def read_bytes(self, index):
        warnings.warn("corrupt EXIF", UserWarning, stacklevel=1)
        warnings.warn("old API", DeprecationWarning, stacklevel=1)
        logging.getLogger("some.library").warning("row %d is odd", 7)
        logging.getLogger("ray.worker").warning("of Ray itself")
        return self._frames.read_bytes(index)


class NoticingSplit(AnnotatedSplit):
    def record(self, video):
        record = super().record(video)
        return dataclasses.replace(record, frames=Noticing(record.frames)) if video == "two" else record


def test_notes_warnings_and_log_records_of_a_video_are_in_part_report_and_manifest(raw, tmp_path, caplog):
    plain = read_dataset("mevis", raw.root, "train")
    split = NoticingSplit(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)})
    jobs = plan_jobs(split, raw.root, tmp_path / "out", 8)
    maker = ShardMaker()
    maker._open = (("mevis", raw.root, "train"), split, ())
    [job] = jobs
    wanted = tuple(Note("two", text) for text in ("lost 3 frames", "corrupt EXIF", "row 7 is odd"))
    assert maker.make(job).notes == wanted
    # A shard that is kept reports them again.
    again = maker.make(job)
    assert again.kept and again.notes == wanted
    assert finish_split(split, jobs).notes == wanted
    with ShardedSplit.open(tmp_path / "out") as shards:
        assert shards.manifest.notes == wanted
    caplog.clear()
    report_notes("mevis/train", [*wanted, *wanted])
    [record] = caplog.records
    assert record.getMessage().count("row 7 is odd") == 1 and "3 warnings, kept in its manifest" in record.getMessage()


def test_a_damaged_packet_of_a_video_file_is_noted_in_the_manifest(raw, tmp_path):
    images = raw.root / "Refer-YouTube-VOS" / "valid" / "JPEGImages"
    shutil.rmtree(images / "two")
    shutil.copy(Path(__file__).parents[1] / "data" / "cases" / "mid_damaged.mp4", images / "two.mp4")
    path = raw.root / "Refer-YouTube-VOS" / "meta_expressions" / "valid" / "meta_expressions.json"
    content = json.loads(path.read_text())
    del content["videos"]["two"]["frames"]
    path.write_text(json.dumps(content))
    split = read_dataset("refer_youtube_vos", raw.root, "valid")
    jobs = plan_jobs(split, raw.root, tmp_path / "out", 8)
    ShardMaker().make(jobs[0])
    manifest = finish_split(split, jobs)
    assert manifest.quarantine == () and manifest.counts.videos == len(split.videos())
    notes = [note for note in manifest.notes if note.video == "two"]
    assert notes and all(str(raw.root) not in note.text for note in notes)


def test_a_manifest_of_before_has_no_notes(raw, tmp_path):
    split = read_dataset("mevis", raw.root, "train")
    jobs = plan_jobs(split, raw.root, tmp_path / "out", 8)
    ShardMaker().make(jobs[0])
    finish_split(split, jobs)
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_text())
    assert content.pop("notes") == []
    path.chmod(0o644)
    path.write_text(json.dumps(content))
    assert ShardedSplit.open(tmp_path / "out").manifest.notes == ()


def test_what_a_split_says_when_it_is_read_is_noted_once_for_all_its_shards(raw, tmp_path):
    path = raw.root / "Refer-YouTube-VOS" / "meta_expressions" / "valid" / "meta_expressions.json"
    content = json.loads(path.read_text())
    content["videos"]["elsewhere"] = next(iter(content["videos"].values()))
    content["videos"]["TWO"] = content["videos"]["two"]
    path.write_text(json.dumps(content))
    (path.parents[2] / "valid" / "JPEGImages" / "TWO").symlink_to("two")
    split = read_dataset("refer_youtube_vos", raw.root, "valid")
    jobs = plan_jobs(split, raw.root, tmp_path / "out", 1)
    maker = ShardMaker()
    for job in jobs:
        maker.make(job)
    texts = [note.text for note in finish_split(split, jobs).notes]
    assert len(jobs) > 1 and len(texts) == 2
    assert "taken for test videos" in texts[0] and "differ from another's only in case" in texts[1]


def test_no_video_fills_memory_with_warnings():
    with collected() as texts:
        for number in range(1000):
            warnings.warn(f"{number} " + "x" * 10_000, UserWarning, stacklevel=1)
    assert len(texts) == MOST + 1 and max(map(len, texts)) <= 500
