"""A VideoRecord as one WebDataset sample, and tars of them whose bytes depend on their content only.

The only file that imports webdataset. Members of a sample, in this order: KEY.video.json, KEY.masks.json,
KEY.00000.jpg, KEY.00001.jpg, ... (the frames' original bytes).
"""

import hashlib
import sys
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from glus.common.errors import DataError
from glus.data_pipeline.raw.jpeg import decode_jpeg
from glus.data_pipeline.raw.masks import checked_all
from glus.data_pipeline.raw.records import Rle, VideoRecord, check_names
from glus.data_pipeline.shards.index import (
    VOID_KEY,
    IndexedVideo,
    ShardSummary,
    Span,
    VideoEntry,
    entry_to_json,
    json_bytes,
)
from glus.data_pipeline.shards.storage import Storage

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

    Raises DataError where a frame cannot be read, a mask is broken, or expressions name objects without masks;
    InputError where a name cannot be that of a file.
    """
    _check_record(record)
    place = f"{record.dataset}/{record.split}/{record.video}"
    masks = {
        key: checked_all(
            rles, record.height, record.width, (f"{place} object {key} frame {name}" for name in record.frames.names)
        )
        for key, rles in _planes(record).items()
    }
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


def _planes(record: VideoRecord) -> dict[str, list[Rle | None]]:
    """The codes of all objects, then those of void where the video has any."""
    return record.objects if record.void is None else {**record.objects, VOID_KEY: record.void}


def decode_frames(sample: Sample) -> None:
    """Decode every frame, so that damage inside a JPEG is found. Raises DataError for the first that is damaged."""
    entry = sample.entry
    picture = np.empty((entry.height, entry.width, 3), dtype=np.uint8)
    for name, (_, content) in zip(entry.frame_names, sample.members[2:], strict=True):
        try:
            decode_jpeg(content, picture)
        except ValueError as error:
            place = f"{entry.dataset}/{entry.split}/{entry.video}"
            raise DataError(
                f"{place}: frame {name} cannot be decoded ({error}); take this frame again",
                video=entry.video,
                frame=name,
            ) from error


def _check_record(record: VideoRecord) -> None:
    """Refuse what a reader of the shards could not make sense of."""
    place = f"{record.dataset}/{record.split}/{record.video}"
    if not record.frames.names:
        raise DataError(f"{place}: a video without frames")
    for object_id, rles in _planes(record).items():
        if len(rles) != len(record.frames.names):
            count = len(record.frames.names)
            raise DataError(f"{place}: object {object_id} has masks for {len(rles)} frames, the video has {count}")
    check_names(
        f"{record.dataset}/{record.split}", record.video, record.frames.names, record.expressions, record.objects
    )
    texts = [text for each in record.expressions for text in (each.text, each.kind)]
    for text in texts:
        if not text.isascii() and not text.encode("utf-8", "ignore").decode() == text:
            raise DataError(f"{place}: {text!r} holds half a character (a lone surrogate); take the annotation again")
    for expression in record.expressions:
        unknown = [object_id for object_id in expression.object_ids if object_id not in record.objects]
        if unknown:
            raise DataError(f"{place}: expression {expression.id} names object {unknown[0]}, which has no masks")


def _webdataset() -> Any:
    """Import webdataset without torch: it has substitutes, and each worker would take seconds for what none uses."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # as Python marks what cannot be imported
    try:
        import webdataset
    finally:
        if hidden:
            del sys.modules["torch"]
    return webdataset


def write_shard(place: str | Path, samples: Iterable[Sample]) -> tuple[ShardSummary, list[IndexedVideo]]:
    """Write samples to a tar at `place`, a path or URL, and read it back: headers for the index, bytes for the digest.

    Same samples give the same bytes: fixed order, time, owner and mode. Only one sample is held at a time.
    Raises DataError where the disk is full or what was written is not what is found.
    """
    webdataset = _webdataset()
    folder, _, name = str(place).rpartition("/")
    storage = Storage.at(folder)
    written: list[tuple[Sample, list[tuple[str, int]]]] = []
    with storage.written(name) as file:
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
                # Without its frames: only one sample's are held at a time.
                written.append((replace(sample, members=sample.members[:2]), sizes))
        file.flush()
        aside = Path(file.name)
        spans = tar_spans(aside)
        same = [(member, size) for member, (_, size) in spans] == [each for _, sizes in written for each in sizes]
        if not same or Storage.at(aside.parent).sha256(aside.name) != hashing.digest.hexdigest():
            raise DataError(f"{place}: what was written is not what is found there; check the disk and run again")
    if not storage.local and storage.sha256(name) != hashing.digest.hexdigest():
        raise DataError(f"{place}: what was sent is not what is found there; run again")
    summary = ShardSummary(name, hashing.size, hashing.digest.hexdigest())
    videos, start = [], 0
    for sample, sizes in written:
        metadata, masks, *frames = [span for _, span in spans[start : start + len(sizes)]]
        crc = zlib.crc32(sample.members[1][1])
        videos.append(IndexedVideo(sample.entry, name, sample.key, metadata, masks, tuple(frames), crc))
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
