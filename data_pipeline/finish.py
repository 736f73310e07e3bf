"""A split's finished shards made whole: bad videos judged, index and manifest written, leftovers removed."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from glus.data_pipeline.aside import ASIDE_PREFIX, write_bytes_aside
from glus.data_pipeline.datasets.annotated_split import AnnotatedSplit
from glus.data_pipeline.errors import DataError
from glus.data_pipeline.index import (
    FORMAT_VERSION,
    INDEX_NAME,
    MANIFEST_NAME,
    BadItem,
    Counts,
    IndexedVideo,
    Manifest,
    ShardSummary,
    index_to_json,
    json_bytes,
    manifest_to_json,
)
from glus.data_pipeline.shard_job import ShardJob, finished_part

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
            f"mend them or allow more:\n{shown}{more}",
            file=bad[0].file,
            video=bad[0].video,
            frame=bad[0].frame,
        )
    _log.warning("%s: %d of %d videos are bad and left out:\n%s%s", place, len(bad), videos, shown, more)


def finish_split(split: AnnotatedSplit, jobs: Sequence[ShardJob]) -> Manifest:
    """Join the parts to index and manifest, the manifest last, and remove what no longer belongs.

    Raises DataError where a job is not done.
    """
    folder, root = jobs[0].folder, jobs[0].root
    shards: list[ShardSummary] = []
    videos: list[IndexedVideo] = []
    quarantine: list[BadItem] = []
    for job in jobs:
        part = finished_part(job)
        if part is None:
            raise DataError(f"{folder / job.name}: is not finished, or changed since; run `glus prepare` again")
        shards += [] if part.shard is None else [part.shard]
        videos += part.videos
        quarantine += part.quarantine
    index = json_bytes({"version": FORMAT_VERSION, "videos": index_to_json(videos)})
    manifest = Manifest(
        dataset=split.dataset,
        split=split.split,
        counts=Counts.of(video.entry for video in videos),
        shards=tuple(shards),
        index_sha256=hashlib.sha256(index).hexdigest(),
        source={str(path.relative_to(root)): _sha256(path) for path in split.files},
        quarantine=tuple(quarantine),
    )
    write_bytes_aside(folder / INDEX_NAME, index)
    write_bytes_aside(folder / MANIFEST_NAME, json_bytes(manifest_to_json(manifest)))
    _sweep(folder, {shard.name for shard in shards}, {f"shard-{job.number:05d}.json" for job in jobs})
    return manifest


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path, shards: set[str], parts: set[str]) -> None:
    """Remove shards and parts of an earlier plan, and what killed workers left behind."""
    for path in [*folder.glob("shard-*.tar"), *(folder / "parts").glob("shard-*.json")]:
        if path.name not in shards | parts:
            path.unlink()
    for path in folder.rglob(f"{ASIDE_PREFIX}*"):
        path.unlink()
