"""Small real splits: demo videos written as shards and opened again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Expression, VideoRecord
from glus.data_pipeline.shards.finish import write_split
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.tar import encode_sample, write_shard
from glus.demo.synthetic.world import DemoWorldConfig, demo_video, expressions_for
from glus.evaluation.predict.predictions import write_masks

KINDS = ("look", "motion", "relation", "reasoning")


@dataclass(frozen=True)
class JpegFrames:
    """Frames that are held in memory."""

    names: tuple[str, ...]
    contents: tuple[bytes, ...]

    def read_bytes(self, index: int) -> bytes:
        return self.contents[index]

    def origin(self, index: int) -> str:
        return f"frame {self.names[index]} in memory"


def demo_record(dataset: str, split: str, name: str, absent: int = 0, several: int = 1) -> VideoRecord:
    """One demo video as a dataset's reader would yield it; frame names step by 5, as released ones do."""
    video = demo_video(3, name, DemoWorldConfig(frames=6, width=96, height=64, min_objects=2, max_objects=3))
    jpegs = tuple(cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in video.frames)
    chosen = expressions_for(video, 3, KINDS, per_object=2, several=several, absent=absent)
    expressions = tuple(
        Expression(str(number), exp.text, tuple(map(str, exp.object_ids)), exp.kind, None if exp.object_ids else 2)
        for number, exp in enumerate(chosen)
    )
    objects = {str(number): [encode(mask) for mask in masks] for number, masks in video.masks.items()}
    names = tuple(f"{5 * index:05d}" for index in range(len(jpegs)))
    return VideoRecord(dataset, split, name, 64, 96, JpegFrames(names, jpegs), objects, expressions)


def as_split(folder: Path, records: Sequence[VideoRecord]) -> ShardedSplit:
    """The records as shards on disk."""
    folder.mkdir(parents=True)
    shard = write_shard(folder / "shard-00000.tar", [encode_sample(record) for record in records])
    write_split(folder, records[0].dataset, records[0].split, [shard])
    return ShardedSplit.open(folder)


@pytest.fixture(scope="session")
def mevis(tmp_path_factory: pytest.TempPathFactory) -> ShardedSplit:
    """Three demo videos under the name of MeViS valid_u."""
    folder = tmp_path_factory.mktemp("mevis") / "valid_u"
    return as_split(folder, [demo_record("mevis", "valid_u", f"demo-{number}") for number in range(3)])


@pytest.fixture(scope="session")
def revos(tmp_path_factory: pytest.TempPathFactory) -> ShardedSplit:
    """Two demo videos under the name of ReVOS valid: reasoning expressions are its type 1, one is without target."""
    records = []
    for number in range(2):
        record = demo_record("revos", "valid", f"demo-{number}", absent=1)
        typed = [
            exp if exp.type_id == 2 else replace(exp, type_id=int(exp.kind == "reasoning"))
            for exp in record.expressions
        ]
        records.append(replace(record, expressions=tuple(typed)))
    return as_split(tmp_path_factory.mktemp("revos") / "valid", records)


@pytest.fixture
def new_split(tmp_path: Path) -> Callable[[Sequence[VideoRecord]], ShardedSplit]:
    """Write records as a split of this test's own."""
    return lambda records: as_split(tmp_path / "shards" / records[0].dataset / records[0].split, records)


@pytest.fixture
def write_perfect() -> Callable[[ShardedSplit, Path], None]:
    """Write the ground truth of every expression as its prediction."""

    def write(split: ShardedSplit, root: Path) -> None:
        for video, entry in enumerate(split.videos):
            for expression in entry.expressions:
                write_masks(
                    root, entry, expression, split.read_target(video, expression, range(len(entry.frame_names)))
                )

    return write


@pytest.fixture
def write_everything() -> Callable[[ShardedSplit, Path], None]:
    """Write, for every expression, all objects of its video: what a model does that does not read the text."""

    def write(split: ShardedSplit, root: Path) -> None:
        for video, entry in enumerate(split.videos):
            masks = split.read_masks(video, entry.object_ids, range(len(entry.frame_names))).any(axis=0)
            for expression in entry.expressions:
                write_masks(root, entry, expression, np.ascontiguousarray(masks))

    return write


@pytest.fixture
def make_record() -> Callable[..., VideoRecord]:
    """A demo video as a record, to be changed before it is written."""
    return demo_record
