"""One shard's work, on whatever machine: read its videos, write its tar, remember what went in.

Next to the tars, FOLDER/parts/shard-00000.json keeps what a finished shard needs in the index, with a stamp of its
source. A shard whose part has the same stamp is not written again. Readers do not need the parts.
"""

import hashlib
import itertools
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from glus.common.errors import DataError, UserError
from glus.common.json_file import parse_json, parsed_as
from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.raw.records import RawSplit
from glus.data_pipeline.shards.index import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    BadItem,
    IndexedVideo,
    Note,
    ShardSummary,
    index_from_json,
    index_to_json,
    json_bytes,
)
from glus.data_pipeline.shards.index_table import IndexBuilder
from glus.data_pipeline.shards.notes import collected
from glus.data_pipeline.shards.storage import Storage
from glus.data_pipeline.shards.tar import Sample, decode_frames, encode_sample, write_shard

#: Raised when the same source gives other bytes or notes than before: what an older version wrote is written again.
RECIPE = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardJob:
    """Videos of one shard, and the folder of the split that it belongs to: a path, or a URL that fsspec knows."""

    dataset: str
    split: str
    root: Path
    folder: Path | str
    number: int
    videos: tuple[str, ...]
    decode: bool = False

    @property
    def name(self) -> str:
        return f"shard-{self.number:05d}.tar"

    @property
    def part(self) -> str:
        return f"parts/shard-{self.number:05d}.json"

    @property
    def storage(self) -> Storage:
        return Storage.at(self.folder)


@dataclass(frozen=True)
class ShardPart:
    """A finished shard. `shard` is None where none of its videos could be read: then there is no tar."""

    stamp: str
    shard: ShardSummary | None
    videos: tuple[IndexedVideo, ...]
    quarantine: tuple[BadItem, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class JobReport:
    """What a worker reports to the driver; `kept` where the shard was complete already.

    `notes` are those of the videos, and warnings that concern the job.
    """

    number: int
    videos: int
    kept: bool
    quarantine: tuple[BadItem, ...]
    notes: tuple[Note, ...] = ()


class ShardMaker:
    """Does jobs, one after the other. The split of the last job stays loaded, as the next is most often its own."""

    def __init__(self) -> None:
        self._open: tuple[tuple[str, Path, str], RawSplit, tuple[Note, ...]] | None = None

    def ready(self, root: Path, seen: Mapping[str, bytes]) -> None:
        """Check that this machine sees `root` and the driver's files: path -> content.

        Raises DataError where it does not: then they are not shared between the machines.
        """
        host = socket.gethostname()
        if not os.path.isdir(root):
            raise DataError(f"{root}: {host} has no such folder; name one that all machines share")
        for path, content in seen.items():
            try:
                found = Path(path).read_bytes()
            except OSError:
                found = b""
            if found != content:
                raise DataError(
                    f"{Path(path).parent}: {host} does not see in it what this machine wrote; name a folder that all "
                    "machines share, or a URL such as s3://bucket/shards"
                )

    def make(self, job: ShardJob) -> JobReport:
        """Write the shard of `job` and its part, unless they are complete and of the same source.

        Bad videos go to the part's quarantine, warnings to its notes.
        Raises DataError where the split cannot be read or the disk is full.
        """
        with collected() as texts:
            part, kept = self._part(job)
        known = {note.text for note in part.notes}
        notes = (*part.notes, *(Note("", text) for text in texts if text not in known))
        return JobReport(job.number, len(job.videos), kept, part.quarantine, notes)

    def _part(self, job: ShardJob) -> tuple[ShardPart, bool]:
        """The part of a job, and whether it was finished before."""
        source, notes = self._split(job)
        stamp = _stamp(job, source)
        part = finished_part(job)
        if part is not None and part.stamp == stamp and _still_complete(job, part):
            return part, True
        source.open_masks()
        # The manifest vouches for all shards; the first one to change withdraws it.
        job.storage.remove(MANIFEST_NAME)
        part = _written(job, source, stamp, notes)
        job.storage.write(job.part, json_bytes(_part_to_json(part)), durable=False)
        return part, False

    def _split(self, job: ShardJob) -> tuple[RawSplit, tuple[Note, ...]]:
        """The split of a job, and what was noticed when it was read."""
        key = (job.dataset, job.root, job.split)
        if self._open is None or self._open[0] != key:
            self._open = None  # frees the last split's masks before the next are read
            with collected() as texts:
                split = read_dataset(*key)
            self._open = (key, split, tuple(Note("", text) for text in texts))
        return self._open[1:]


def finished_part(job: ShardJob) -> ShardPart | None:
    """The part of a job that was done before; None where it or its tar is absent or incomplete."""
    storage = job.storage
    try:
        part = _part_from_json(storage.read(job.part))
    except FileNotFoundError:
        return None
    except (UserError, KeyError, TypeError, ValueError, OverflowError) as error:
        _log.warning("%s: damaged (%s); its shard is written again", storage.path(job.part), error)
        return None
    if part.shard is not None and storage.size(job.name) != part.shard.size:
        return None
    return part


def _still_complete(job: ShardJob, part: ShardPart) -> bool:
    """Whether a shard of the right size is the one that was written.

    What a manifest vouches for was on the disk. Without one the last run was cut off, perhaps by a power cut, after
    which files have their size but not always their content: then the shard is hashed.
    """
    if part.shard is None or job.storage.size(MANIFEST_NAME) is not None:
        return True
    return job.storage.sha256(job.name) == part.shard.sha256


def _written(job: ShardJob, source: RawSplit, stamp: str, of_split: Sequence[Note]) -> ShardPart:
    quarantine, notes = list[BadItem](), list(of_split)
    samples = _good_samples(job, source, quarantine, notes)
    first = next(samples, None)
    if first is None:
        return ShardPart(stamp, None, (), tuple(quarantine), tuple(notes))
    shard, videos = write_shard(job.storage.path(job.name), itertools.chain([first], samples))
    return ShardPart(stamp, shard, tuple(videos), tuple(quarantine), tuple(notes))


def _good_samples(job: ShardJob, source: RawSplit, quarantine: list[BadItem], notes: list[Note]) -> Iterator[Sample]:
    """Samples of the job's videos; the bad ones are added to `quarantine`, with paths below the dataset root.

    What was noticed of any is added to `notes`.
    """
    prefix = f"{job.root}/"
    for video in job.videos:
        sample: Sample | None = None
        own: tuple[str, ...] = ()
        with collected() as texts:
            try:
                record = source.record(video)
                sample, own = encode_sample(record), record.frames.notes
                if job.decode:
                    decode_frames(sample)
            except (UserError, OSError) as error:
                sample = None
                quarantine.append(_bad(video, error, prefix))
        notes += [Note(video, text.replace(prefix, "")) for text in dict.fromkeys((*own, *texts))]
        if sample is not None:
            yield sample


def _bad(video: str, error: UserError | OSError, prefix: str) -> BadItem:
    if isinstance(error, OSError):
        file = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        reason = f"{file or video}: cannot be read ({error.strerror or error})"
        error = DataError(reason, file=file)
    file = error.file.removeprefix(prefix) if error.file is not None else None
    return BadItem(video, str(error).replace(prefix, ""), file, error.frame)


def _stamp(job: ShardJob, source: RawSplit) -> str:
    content = [
        FORMAT_VERSION,
        RECIPE,
        job.dataset,
        job.split,
        job.decode,
        [[video, source.stamp(video)] for video in job.videos],
    ]
    return hashlib.sha256(json_bytes(content)).hexdigest()


def _part_to_json(part: ShardPart) -> dict[str, object]:
    return {
        "stamp": part.stamp,
        "shard": None if part.shard is None else asdict(part.shard),
        "videos": index_to_json(part.videos),
        "quarantine": [asdict(item) for item in part.quarantine],
        "notes": [asdict(note) for note in part.notes],
    }


def _part_from_json(content: bytes) -> ShardPart:
    fields = parse_json(content, "part")
    part = ShardPart(
        stamp=fields["stamp"],
        shard=parsed_as(fields["shard"], ShardSummary, "shard") if fields["shard"] is not None else None,
        videos=tuple(index_from_json(fields["videos"])),
        quarantine=parsed_as(fields["quarantine"], tuple[BadItem, ...], "quarantine"),
        # Parts of before have none; their stamps differ, so that their shards are written again.
        notes=parsed_as(fields.get("notes", []), tuple[Note, ...], "notes"),
    )
    # Refuses what no index can hold: values of other types, members that do not follow each other.
    IndexBuilder().add(0, part.videos)
    return part
