"""`glus prepare` on Ray: the same bytes with any number of workers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from benchmarks.data_kills import digests, undisturbed, write_mevis
from glus.data_pipeline.prepare import OBJECT_STORE_BYTES, PrepareConfig, prepare

VIDEOS = 24


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_mevis(root, VIDEOS)
    return root


@pytest.fixture(scope="module")
def wanted(source, tmp_path_factory) -> dict[str, str]:
    """Digests of what one process writes alone."""
    return undisturbed(source, tmp_path_factory.mktemp("alone"), 2)


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    """A Ray with room for four workers, on however many cores."""
    # Ray gives its workers a low priority, which on a busy machine makes them very slow.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=OBJECT_STORE_BYTES,
    )
    yield
    ray.shutdown()


@pytest.mark.timeout(600)  # on a busy machine Ray takes minutes to begin
@pytest.mark.usefixtures("four_cpus")
def test_any_number_of_workers_writes_the_same_bytes(source, wanted, tmp_path):
    for workers in (1, 2, 4):
        out = tmp_path / f"{workers}"
        (manifest,) = prepare(PrepareConfig(["mevis:train"], source, str(out), videos_per_shard=2, workers=workers))
        assert manifest.counts.videos == VIDEOS and digests(out) == wanted
