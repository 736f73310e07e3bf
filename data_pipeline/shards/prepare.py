"""Raw datasets to shards with Ray: one task a shard, as many in flight as there are workers.

What is finished is kept: run again, it goes on where it stopped; the bytes written
depend neither on the number of workers nor on how often it was stopped, nor on machines that are lost on the way.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from glus.common.errors import DataError
from glus.common.locks import LOCK, exclusive
from glus.common.paths import PathText
from glus.common.progress import Progress
from glus.data_pipeline.datasets.table import check_split, holds_images, read_dataset, splits_there
from glus.data_pipeline.raw.records import RawSplit
from glus.data_pipeline.shards.check import check_splits
from glus.data_pipeline.shards.finish import finish_split, refuse_bad
from glus.data_pipeline.shards.index import BadItem, Manifest, Note
from glus.data_pipeline.shards.notes import collected, report_notes
from glus.data_pipeline.shards.ray_workers import OBJECT_STORE_BYTES as OBJECT_STORE_BYTES
from glus.data_pipeline.shards.ray_workers import Workers, in_ray_job, running_ray, started_workers
from glus.data_pipeline.shards.shard_job import ShardJob
from glus.data_pipeline.shards.storage import Storage, is_full


@dataclass
class PrepareConfig:
    """Settings of `glus prepare`.

    Args:
        datasets: names, each alone (every split that is there) or as NAME:SPLIT.
        root: folder of the raw datasets.
        out: folder of the shards, OUT/DATASET/SPLIT; or a URL that fsspec knows, such as s3://bucket/shards.
        videos_per_shard: videos a tar.
        images_per_shard: images a tar, for datasets whose videos are single images.
        workers: worker processes; none for one a CPU.
        ray_address: a running Ray cluster ("auto" or HOST:PORT); none starts Ray here, for this run alone, and takes
            the cluster of a Ray job whose command this is.
        strict: refuse at the first bad video instead of leaving it out.
        max_bad_share: largest share of bad videos in a split that is not refused.
        decode: decode every frame, so that damage inside a JPEG is found now and not in training; many times slower.
        check: write nothing; compare published digests with the sources, and shards with their manifests.
    """

    datasets: list[str]
    root: Path
    out: PathText
    videos_per_shard: int = 32
    images_per_shard: int = 2048
    workers: int | None = None
    ray_address: PathText | None = None
    strict: bool = False
    max_bad_share: float = 0.01
    decode: bool = False
    check: bool = False


def prepare(config: PrepareConfig) -> list[Manifest]:
    """Write the shards of all splits asked for (or only check them) and return their manifests, in the order asked.

    Raises InputError where another `glus prepare` writes one of the splits; DataError on unknown names, unreadable
    splits, too many bad videos (or any, when strict), or a full disk.
    """
    if config.videos_per_shard < 1 or (config.workers is not None and config.workers < 1):
        raise DataError("videos_per_shard and workers must be at least 1")
    if config.images_per_shard < 1:
        raise DataError("images_per_shard must be at least 1")
    if not 0 <= config.max_bad_share <= 1:
        raise DataError(f"max_bad_share is a share from 0 to 1, not {config.max_bad_share}")
    if in_ray_job() and not (Path(config.root).is_absolute() and is_full(config.out)):
        raise DataError(
            f"root={config.root} and out={config.out}: a Ray job starts in a folder of its own, so write both in full"
        )
    root, out = Path(config.root).resolve(), Storage.at(config.out)
    names = named_splits(config.datasets, root)
    for name, split_name in names:
        check_split(name, split_name)
    if config.check:
        return check_splits(names, root, out)
    folders = [out.below(*name) for name in names]
    with ExitStack() as held:
        for folder in folders:
            # Of an object store each write is complete; that two runs wrote there is found when a split is finished.
            if folder.local:
                held.enter_context(exclusive(folder.local, "glus prepare"))
        with collected() as texts:
            splits = [read_dataset(name, root, split) for name, split in names]
        plans = [
            plan_jobs(split, root, folder.place, _videos_per_shard(split, config), config.decode)
            for split, folder in zip(splits, folders, strict=True)
        ]
        held.enter_context(running_ray(config.ray_address and str(config.ray_address), config.workers))
        # All machines must see what this one wrote.
        locks = [folder.local / LOCK for folder in folders if folder.local]
        seen = {str(lock): lock.read_bytes() for lock in locks if lock.is_file()}
        workers = held.enter_context(started_workers(config.workers, max(len(jobs) for jobs in plans), root, seen))
        manifests = []
        for split, jobs in zip(splits, plans, strict=True):
            notes = _run_jobs(jobs, workers, config)
            manifests.append(finish_split(split, jobs))
            # What was logged while the splits were read here is printed already.
            new = [note for note in (*manifests[-1].notes, *notes) if note.video or note.text not in texts]
            report_notes(f"{split.dataset}/{split.split}", new)
    return manifests


def named_splits(names: Sequence[str], root: Path) -> list[tuple[str, str]]:
    """(dataset, split) of each NAME or NAME:SPLIT, each once. Raises DataError where none are named or there."""
    if not names:
        raise DataError("no datasets named; name some, such as mevis or mevis:train")
    found: list[tuple[str, str]] = []
    for name in names:
        dataset, colon, split = name.partition(":")
        found += [(dataset, split)] if colon else [(dataset, there) for there in splits_there(dataset, root)]
    return list(dict.fromkeys(found))


def plan_jobs(
    split: RawSplit, root: Path, folder: Path | str, videos_per_shard: int, decode: bool = False
) -> list[ShardJob]:
    """The split's videos in the annotation's order, so many a shard."""
    videos = split.videos()
    parts = [tuple(videos[start : start + videos_per_shard]) for start in range(0, len(videos), videos_per_shard)]
    return [
        ShardJob(split.dataset, split.split, root, folder, number, part, decode) for number, part in enumerate(parts)
    ]


def _videos_per_shard(split: RawSplit, config: PrepareConfig) -> int:
    return config.images_per_shard if holds_images(split.dataset) else config.videos_per_shard


def _run_jobs(jobs: list[ShardJob], workers: Workers, config: PrepareConfig) -> list[Note]:
    """Do all jobs of a split. Returns what was noticed on the way."""
    place = f"{jobs[0].dataset}/{jobs[0].split}"
    bad, notes = list[BadItem](), list[Note]()
    with Progress(total=sum(len(job.videos) for job in jobs), unit="video", desc=place, mininterval=1.0) as progress:
        for report in workers.reports(jobs):
            bad += report.quarantine
            notes += report.notes
            if config.strict and bad:
                raise DataError(f"{place}: video {bad[0].video} is bad, and strict allows none: {bad[0].reason}")
            progress.set_postfix(bad=len(bad), refresh=False)
            progress.update(report.videos)
    refuse_bad(bad, sum(len(job.videos) for job in jobs), place, config.max_bad_share)
    return notes
