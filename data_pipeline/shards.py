"""A VideoRecord as one WebDataset sample, and tars of them whose bytes depend on their content only.

The only file that imports webdataset. Members of a sample, in this order: KEY.video.json, KEY.masks.json,
KEY.00000.jpg, KEY.00001.jpg, ... (the frames' original bytes).
"""

import hashlib
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from glus.data_pipeline.aside import written_aside
from glus.data_pipeline.errors import DataError
from glus.data_pipeline.index import IndexedVideo, ShardSummary, Span, VideoEntry, entry_to_json, json_bytes
from glus.data_pipeline.masks import checked
from glus.data_pipeline.records import VideoRecord

#: Longest part of a key; a tar header holds 100 characters of the last part with its ending.
LONGEST_KEY_PART = 72


@dataclass(frozen=True)
class Sample:
    """One video ready to be written: its key, its entry, and (ending, bytes) of each member in order."""

    key: str
    entry: VideoEntry
    members: tuple[tuple[str, bytes], ...]


def sample_key(dataset: str, split: str, video: str) -> str:
    """ "dataset/split/video" without dots or slashes of its own; different videos have different keys.

    Characters other than letters, digits, "_", "-" and "~" become %XX; a part too long for a tar header keeps its
    beginning and ends in "%-" (which no %XX gives) and its SHA-256.
    """
    return "/".join(_key_part(part) for part in (dataset, split, video))


def _key_part(name: str) -> str:
    part = quote(name, safe="", errors="surrogatepass").replace(".", "%2E")
    if len(part) <= LONGEST_KEY_PART:
        return part
    return part[:30] + "%-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def encode_sample(record: VideoRecord) -> Sample:
    """Read every frame and check every mask of a record.

    Raises DataError where a frame cannot be read, a mask is broken, or expressions name objects without masks.
    """
    _check_record(record)
    place = f"{record.dataset}/{record.split}/{record.video}"
    masks = {}
    for object_id, rles in record.objects.items():
        codes = []
        for name, rle in zip(record.frames.names, rles, strict=True):
            where = f"{place} object {object_id} frame {name}"
            codes.append(None if rle is None else checked(rle, record.height, record.width, where))
        masks[object_id] = codes
    entry = VideoEntry(
        dataset=record.dataset,
        split=record.split,
        video=record.video,
        height=record.height,
        width=record.width,
        frame_names=record.frames.names,
        expressions=record.expressions,
        object_ids=tuple(record.objects),
    )
    frames = [(f"{index:05d}.jpg", record.frames.read_bytes(index)) for index in range(len(record.frames.names))]
    return Sample(
        key=sample_key(record.dataset, record.split, record.video),
        entry=entry,
        members=(("video.json", json_bytes(entry_to_json(entry))), ("masks.json", json_bytes(masks)), *frames),
    )


def _check_record(record: VideoRecord) -> None:
    """Refuse what a reader of the shards could not make sense of."""
    place = f"{record.dataset}/{record.split}/{record.video}"
    if not record.frames.names:
        raise DataError(f"{place}: a video without frames")
    for object_id, rles in record.objects.items():
        if len(rles) != len(record.frames.names):
            count = len(record.frames.names)
            raise DataError(f"{place}: object {object_id} has masks for {len(rles)} frames, the video has {count}")
    ids = [expression.id for expression in record.expressions]
    if len(set(ids)) != len(ids):
        raise DataError(f"{place}: two expressions have the id {max(ids, key=ids.count)}")
    for expression in record.expressions:
        unknown = [object_id for object_id in expression.object_ids if object_id not in record.objects]
        if unknown:
            raise DataError(f"{place}: expression {expression.id} names object {unknown[0]}, which has no masks")


def write_shard(path: Path, samples: Iterable[Sample]) -> tuple[ShardSummary, list[IndexedVideo]]:
    """Write samples to a tar at `path`, aside and then renamed, and read its headers back for the index.

    Same samples give the same bytes: fixed order, time, owner and mode. Only one sample is held at a time.
    Raises DataError where the disk is full or what was written is not what is found.
    """
    import webdataset  # here, because it loads torch, and shards that are kept need neither

    written: list[tuple[str, VideoEntry, list[tuple[str, int]]]] = []
    with written_aside(path) as file:
        hashing = _Hashing(file)
        with webdataset.TarWriter(
            hashing,
            user="glus",
            group="glus",
            mode=0o444,
            encoder=False,
            compress=False,
            mtime=0,
            format="USTAR_FORMAT",
        ) as tar:
            for sample in samples:
                # TarWriter sorts the members of one call by name; a call a member keeps our order.
                for ending, content in sample.members:
                    tar.write({"__key__": sample.key, ending: content})
                sizes = [(f"{sample.key}.{ending}", len(content)) for ending, content in sample.members]
                written.append((sample.key, sample.entry, sizes))
        file.flush()
        spans = tar_spans(Path(file.name))
        if [(name, size) for name, (_, size) in spans] != [member for _, _, sizes in written for member in sizes]:
            raise DataError(f"{path}: what was written is not what is found there; check the disk and run again")
    summary = ShardSummary(path.name, hashing.size, hashing.digest.hexdigest())
    videos, start = [], 0
    for key, entry, sizes in written:
        metadata, masks, *frames = [span for _, span in spans[start : start + len(sizes)]]
        videos.append(IndexedVideo(entry, path.name, key, metadata, masks, tuple(frames)))
        start += len(sizes)
    return summary, videos


def tar_spans(path: Path) -> list[tuple[str, Span]]:
    """Name, offset and size of each member of a tar, in order, from its headers."""
    with tarfile.open(path, "r:") as tar:
        return [(member.name, (member.offset_data, member.size)) for member in tar]


class _Hashing:
    """A file to write to that hashes what passes."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.size += len(content)
        return self._file.write(content)
