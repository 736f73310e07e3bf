"""Complete a split: count its bad videos, write index and manifest, remove leftovers."""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from glus.common.errors import DataError
from glus.common.files import sha256_of
from glus.data_pipeline.raw.records import RawSplit
from glus.data_pipeline.shards.index import (
    INDEX_NAME,
    MANIFEST_NAME,
    BadItem,
    Counts,
    IndexedVideo,
    Manifest,
    Note,
    ShardSummary,
    json_bytes,
    manifest_to_json,
)
from glus.data_pipeline.shards.index_table import IndexBuilder
from glus.data_pipeline.shards.shard_job import ShardJob, ShardPart, finished_part
from glus.data_pipeline.shards.storage import Storage

#: Names of the index in older versions of the format.
OLDER_INDEXES = {"index.json"}

_log = logging.getLogger(__name__)


def refuse_bad(bad: Sequence[BadItem], videos: int, place: str, max_bad_share: float) -> None:
    """Warn of bad videos. Raises DataError where they are more than the share of `videos`, or all of them."""
    if not bad:
        return
    shown = "\n".join(f"  {item.video}: {item.reason}" for item in bad[:3])
    more = f"\n  and {len(bad) - 3} more" if len(bad) > 3 else ""
    if len(bad) == videos or len(bad) > max_bad_share * videos:
        raise DataError(
            f"{place}: {len(bad)} of {videos} videos are bad, more than the allowed share of {max_bad_share}; "
            f"fix them or allow more:\n{shown}{more}",
            file=bad[0].file,
            video=bad[0].video,
            frame=bad[0].frame,
        )
    _log.warning("%s: %d of %d videos are bad and left out:\n%s%s", place, len(bad), videos, shown, more)


def finish_split(split: RawSplit, jobs: Sequence[ShardJob]) -> Manifest:
    """Join the parts to index and manifest, the manifest last, and remove what no longer belongs.

    Raises DataError where a job is not done, or where a part holds other videos than were planned for it.
    """
    storage, root = jobs[0].storage, jobs[0].root
    shards: list[ShardSummary] = []
    index, counts = IndexBuilder(), Counts(0, 0, 0, 0, 0)
    quarantine, notes = list[BadItem](), list[Note]()
    for job in jobs:
        part = finished_part(job)
        if part is None:
            raise DataError(f"{storage.path(job.name)}: is not finished, or changed since; run `glus prepare` again")
        _check_planned(job, part)
        if part.shard is not None:
            index.add(len(shards), part.videos)
            shards.append(part.shard)
        counts += Counts.of(video.entry for video in part.videos)
        quarantine += part.quarantine
        notes += part.notes
    content = index.to_bytes()
    manifest = Manifest(
        dataset=split.dataset,
        split=split.split,
        counts=counts,
        shards=tuple(shards),
        index_sha256=hashlib.sha256(content).hexdigest(),
        source={str(path.relative_to(root)): sha256_of(path) for path in split.files},
        quarantine=tuple(quarantine),
        notes=tuple(dict.fromkeys(notes)),
    )
    write_manifest(storage, manifest, content)
    _sweep(storage, {shard.name for shard in shards}, {job.part for job in jobs})
    return manifest


def _check_planned(job: ShardJob, part: ShardPart) -> None:
    """Refuse a part that another run with other settings put in the place of this one's."""
    bad = {item.video for item in part.quarantine}
    found = [video.entry.video for video in part.videos]
    if found != [video for video in job.videos if video not in bad] or not bad <= set(job.videos):
        raise DataError(
            f"{job.storage.path(job.part)}: holds other videos than this run planned for it, so another run wrote into "
            "the same folder; run `glus prepare` again"
        )


def write_split(
    folder: Path | str, dataset: str, split: str, shards: Sequence[tuple[ShardSummary, Sequence[IndexedVideo]]]
) -> Manifest:
    """Write index and manifest next to shards that `write_shard` wrote into `folder`. Raises DataError."""
    index, entries = IndexBuilder(), []
    for number, (_, videos) in enumerate(shards):
        index.add(number, videos)
        entries += [video.entry for video in videos]
    content, summaries = index.to_bytes(), tuple(shard for shard, _ in shards)
    manifest = Manifest(dataset, split, Counts.of(entries), summaries, hashlib.sha256(content).hexdigest(), {}, ())
    write_manifest(Storage.at(folder), manifest, content)
    return manifest


def write_manifest(storage: Storage, manifest: Manifest, index: bytes) -> None:
    """Write index and then manifest, which vouches for it and for shards that are on the disk. Raises DataError."""
    storage.make_durable(shard.name for shard in manifest.shards)
    storage.write(INDEX_NAME, index)
    storage.write(MANIFEST_NAME, json_bytes(manifest_to_json(manifest)))


def _sweep(storage: Storage, shards: set[str], parts: set[str]) -> None:
    """Remove shards and parts of an earlier plan, and what killed workers left behind."""
    found = [*storage.files(), *(f"parts/{name}" for name in storage.files("parts"))]
    for name in found:
        if re.fullmatch(r"shard-\d+\.tar|parts/shard-\d+\.json", name) and name not in shards | parts:
            storage.remove(name)
    for old in set(found) & OLDER_INDEXES:
        storage.remove(old)
    storage.remove_asides()
