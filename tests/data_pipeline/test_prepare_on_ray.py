"""`glus prepare` on Ray: the same bytes with any number of workers, and whoever is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from benchmarks.data_kills import digests, killed_run, undisturbed, write_mevis
from glus.data_pipeline.prepare import OBJECT_STORE_BYTES, PrepareConfig, prepare
from glus.data_pipeline.reader import ShardedSplit
from tests.running import unused_ports

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
def four_cpus() -> Iterator[str]:
    """The address of a Ray with room for four workers, on however many cores."""
    # Ray gives its workers a low priority, which on a busy machine makes them very slow.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=OBJECT_STORE_BYTES,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_any_number_of_workers_writes_the_same_bytes(source, wanted, four_cpus, tmp_path):
    for workers in (1, 2, 4):
        out = tmp_path / f"{workers}"
        (manifest,) = prepare(PrepareConfig(["mevis:train"], source, str(out), videos_per_shard=2, workers=workers))
        assert manifest.counts.videos == VIDEOS and digests(out) == wanted


@pytest.mark.parametrize("port", [None, 99999])
def test_a_cluster_that_is_not_there_is_told_at_once_and_nothing_is_written(source, tmp_path, port):
    address = f"127.0.0.1:{port or unused_ports(1)[0]}"
    words = ["prepare", "datasets=[mevis:train]", f"root={source}", f"out={tmp_path}/out", f"ray_address={address}"]
    # A process of its own: this one has a Ray already.
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "glus.launch.cli", *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2 and not (tmp_path / "out").exists()
    assert ended.stderr.startswith(f"glus prepare: no Ray cluster at {address} (") and ended.stderr.count("\n") == 1


@pytest.mark.timeout(600)
def test_a_killed_worker_and_a_killed_driver_change_no_byte_and_lose_or_double_nothing(
    source, wanted, four_cpus, tmp_path
):
    told = killed_run(source, tmp_path / "out", four_cpus, kills=["worker", "driver"])
    assert (told["worker"], told["driver"]) == (1, 1) and told["starts"] >= 2
    assert digests(tmp_path / "out") == wanted
    videos = [entry.video for entry in ShardedSplit.open(tmp_path / "out" / "mevis" / "train").videos]
    assert videos == [f"video{number:04d}" for number in range(VIDEOS)]
