"""Raw datasets to shards with Ray: one task a shard, as many in flight as there are workers.

The only file that imports ray. What is finished is kept: run again, it goes on where it stopped; the bytes written
depend neither on the number of workers nor on how often it was stopped.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glus.common.paths import PathText
from glus.common.progress import Progress
from glus.data_pipeline.check import check_splits
from glus.data_pipeline.datasets.annotated_split import AnnotatedSplit
from glus.data_pipeline.datasets.table import read_dataset, splits_there
from glus.data_pipeline.errors import DataError
from glus.data_pipeline.finish import finish_split, refuse_bad
from glus.data_pipeline.index import BadItem, Manifest
from glus.data_pipeline.shard_job import ShardJob, ShardMaker
from glus.data_pipeline.storage import Storage

#: Ray's shared memory: only small reports travel through it.
OBJECT_STORE_BYTES = 100 * 1024**2
#: How long a Ray cluster may take to answer at its address.
ANSWER_SECONDS = 10.0
#: How often a task is tried again on a fresh worker after one was killed.
RETRIES = 3


@dataclass
class PrepareConfig:
    """Settings of `glus prepare`.

    Args:
        datasets: names, each alone (every split that is there) or as NAME:SPLIT.
        root: folder of the raw datasets.
        out: folder of the shards, OUT/DATASET/SPLIT; or a URL that fsspec knows, such as s3://bucket/shards.
        videos_per_shard: videos a tar.
        workers: worker processes; none for one a CPU.
        ray_address: a running Ray cluster ("auto" or HOST:PORT); none starts Ray here.
        strict: refuse at the first bad video instead of leaving it out.
        max_bad_share: largest share of bad videos in a split that is not refused.
        decode: decode every frame, so that damage inside a JPEG is found now and not in training; many times slower.
        check: write nothing; compare published digests with the sources, and shards with their manifests.
    """

    datasets: list[str]
    root: Path
    out: PathText
    videos_per_shard: int = 32
    workers: int | None = None
    ray_address: PathText | None = None
    strict: bool = False
    max_bad_share: float = 0.01
    decode: bool = False
    check: bool = False


def prepare(config: PrepareConfig) -> list[Manifest]:
    """Write the shards of all splits asked for (or only check them) and return their manifests, in the order asked.

    Raises DataError on unknown names, unreadable splits, too many bad videos (or any, when strict), or a full disk.
    """
    if config.videos_per_shard < 1 or (config.workers is not None and config.workers < 1):
        raise DataError("videos_per_shard and workers must be at least 1")
    if not 0 <= config.max_bad_share <= 1:
        raise DataError(f"max_bad_share is a share from 0 to 1, not {config.max_bad_share}")
    root, out = Path(config.root).resolve(), Storage.at(config.out)
    names = named_splits(config.datasets, root)
    if config.check:
        return check_splits(names, root, out)
    splits = [read_dataset(name, root, split) for name, split in names]
    plans = [
        plan_jobs(split, root, out.below(split.dataset, split.split).place, config.videos_per_shard, config.decode)
        for split in splits
    ]
    with _ray_workers(config, max(len(jobs) for jobs in plans)) as workers:
        manifests = []
        for split, jobs in zip(splits, plans, strict=True):
            _run_jobs(jobs, workers, config)
            manifests.append(finish_split(split, jobs))
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
    split: AnnotatedSplit, root: Path, folder: Path | str, videos_per_shard: int, decode: bool = False
) -> list[ShardJob]:
    """The split's videos in the annotation's order, so many a shard."""
    videos = split.videos()
    parts = [tuple(videos[start : start + videos_per_shard]) for start in range(0, len(videos), videos_per_shard)]
    return [
        ShardJob(split.dataset, split.split, root, folder, number, part, decode) for number, part in enumerate(parts)
    ]


@contextmanager
def _ray_workers(config: PrepareConfig, most_jobs: int) -> Iterator[list[Any]]:
    """ShardMakers as Ray actors, on a Ray that is joined, or started here and then ended again."""
    # Ray reads this when it starts: nothing is to be sent anywhere.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        _start_ray(config)
    actors = []
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        maker = ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES)(ShardMaker)
        # More actors than CPUs would wait for one for ever.
        actors = [maker.remote() for _ in range(min(config.workers or cpus, cpus, most_jobs))]
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor, no_restart=True)
        if started_here:
            ray.shutdown()


def _start_ray(config: PrepareConfig) -> None:
    import ray

    if config.ray_address is None:
        ray.init(
            num_cpus=config.workers or os.cpu_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
        )
        return
    try:
        _ask_for_an_answer(config.ray_address)
        ray.init(address=config.ray_address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise DataError(
            f"no Ray cluster at {config.ray_address} ({error}): start one (ray start --head), or leave ray_address out"
        ) from error


def _ask_for_an_answer(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, OverflowError where the port is above 65535.

    Ray itself would wait for longer than five minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def _run_jobs(jobs: list[ShardJob], workers: list[Any], config: PrepareConfig) -> None:
    """Do all jobs of a split; each worker has one at a time, so memory stays bounded."""
    import ray
    from ray.util import ActorPool

    place = f"{jobs[0].dataset}/{jobs[0].split}"
    bad: list[BadItem] = []
    try:
        with Progress(
            total=sum(len(job.videos) for job in jobs), unit="video", desc=place, mininterval=1.0
        ) as progress:
            for report in ActorPool(workers).map_unordered(lambda worker, job: worker.make.remote(job), jobs):
                bad += report.quarantine
                if config.strict and bad:
                    raise DataError(f"{place}: video {bad[0].video} is bad, and strict allows none: {bad[0].reason}")
                progress.set_postfix(bad=len(bad), refresh=False)
                progress.update(report.videos)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DataError):
            raise error.cause from None
        raise
    except ray.exceptions.RayActorError as error:
        raise DataError(
            f"{place}: a worker died {RETRIES + 1} times, most likely for lack of memory; use fewer workers and run "
            "again: what is finished is kept"
        ) from error
    refuse_bad(bad, sum(len(job.videos) for job in jobs), place, config.max_bad_share)
