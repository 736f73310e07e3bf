"""`glus prepare` on Ray: the same bytes with any number of workers, and whoever is killed."""

import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from benchmarks.data_kills import digests, killed_run, parts, ray_workers, undisturbed, write_mevis
from glus.common.errors import DataError, InputError
from glus.common.locks import exclusive
from glus.data_pipeline.shards.prepare import OBJECT_STORE_BYTES, PrepareConfig, prepare
from glus.data_pipeline.shards.ray_workers import STARTS
from glus.data_pipeline.shards.reader import ShardedSplit
from tests.running import unused_ports

pytestmark = pytest.mark.ray

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
@pytest.mark.parametrize(
    ("message", "starts"),
    [("The current node timed out during startup.", STARTS), ("No space is left for Ray's folder.", 1)],
)
def test_a_ray_that_does_not_start_is_one_line_after_other_tries_where_it_was_slow(
    message, starts, source, tmp_path, monkeypatch
):
    """A busy machine: Ray waits 30 s for its own processes, then raises a bare Exception."""
    tried = []

    def too_late(**options: object) -> None:
        tried.append(options)
        raise Exception(message)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_late)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # of the other tests here
    with pytest.raises(DataError, match=f"Ray cannot be started here: {message} Try again when less else runs"):
        prepare(PrepareConfig(("mevis:train",), source, tmp_path / "out"))
    assert len(tried) == starts
    assert not list(tmp_path.glob("out/**/*.tar"))


def test_a_killed_worker_and_a_killed_driver_change_no_byte_and_lose_or_double_nothing(
    source, wanted, four_cpus, tmp_path
):
    told = killed_run(source, tmp_path / "out", four_cpus, kills=["worker", "driver"])
    assert (told["worker"], told["driver"]) == (1, 1) and told["starts"] >= 2
    assert digests(tmp_path / "out") == wanted
    videos = [entry.video for entry in ShardedSplit.open(tmp_path / "out" / "mevis" / "train").videos]
    assert videos == [f"video{number:04d}" for number in range(VIDEOS)]


def start(root: Path, out: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """`glus prepare` of the small MeViS in a process of its own: this one has a Ray already."""
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "glus.launch.cli", "prepare", "datasets=[mevis:train]", f"root={root}"),
            *(f"out={out}", "videos_per_shard=2", *words),
        ],
        env=os.environ | {"RAY_worker_niceness": "0"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listening(process: psutil.Process) -> set[tuple[str, str]]:
    """(address, name of the process) of every socket at which a process or one that it started listens."""
    tree = [process, *process.children(recursive=True)]
    found = set()
    for each in tree:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in each.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN or connection.type.name == "SOCK_DGRAM":
                    found.add((connection.laddr.ip, each.name()))
    return found


@pytest.mark.timeout(600)
def test_its_own_ray_listens_on_loopback_only_whatever_tmpdir_and_ray_address_say(source, wanted, tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    address = f"127.0.0.1:{unused_ports(1)[0]}"
    driver = start(source, tmp_path / "out", {"TMPDIR": str(deep), "RAY_ADDRESS": address}, "workers=2")
    seen: set[tuple[str, str]] = set()
    with suppress(psutil.NoSuchProcess):
        while driver.poll() is None:
            seen |= listening(psutil.Process(driver.pid))
            time.sleep(0.2)
    told, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert {"gcs_server", "raylet"} <= {name for _, name in seen}
    assert any(name.startswith("ray::ShardMaker") for _, name in seen), seen
    outside = {each for each in seen if not loopback(each[0])}
    assert outside == set()
    assert digests(tmp_path / "out") == wanted and list(deep.iterdir()) == []
    assert f"RAY_ADDRESS={address} is not used" in told


def loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def test_a_second_run_into_the_same_split_is_refused_at_once_and_other_splits_are_not(source, tmp_path):
    with exclusive(tmp_path / "out" / "mevis" / "train", "glus prepare"):
        with pytest.raises(InputError, match=f"mevis/train is in use by glus prepare on .*, process {os.getpid()}"):
            prepare(PrepareConfig(["mevis:train"], source, str(tmp_path / "out")))
        with exclusive(tmp_path / "out" / "revos" / "train", "glus prepare"):
            pass
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(900)
def test_a_machine_that_is_lost_changes_no_byte_and_its_work_goes_to_the_others(source, wanted, tmp_path):
    # Two nodes, several node processes on one host, as `ray job submit` finds them: RAY_ADDRESS names the cluster.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        # What the command of a Ray job finds in its environment; ray_address=auto is what it then means.
        job = {"RAY_ADDRESS": cluster.address, "RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {}, "metadata": {}}'}
        driver = start(source, tmp_path / "out", job, "workers=2")
        at_work = held_at_work(driver, tmp_path / "out")
        cluster.remove_node(other, allow_graceful=False)
        for worker in at_work:
            with suppress(psutil.NoSuchProcess):
                worker.resume()
        _, errors = driver.communicate(timeout=600)
        assert driver.returncode == 0, errors
    finally:
        cluster.shutdown()
    assert "a worker died; shard-" in errors and digests(tmp_path / "out") == wanted


def held_at_work(driver: subprocess.Popen[str], out: Path) -> list[psutil.Process]:
    """Both workers, stopped while each makes a shard, once a first shard is finished."""
    held: list[psutil.Process] = []
    while driver.poll() is None:
        for worker in ray_workers() if parts(out) else ():
            if worker not in held and is_making(worker):
                worker.suspend()  # at once: alone, it may have made everything before the other one has begun
                if is_making(worker):
                    held.append(worker)
                else:
                    worker.resume()
        if len(held) == 2:
            return held
        time.sleep(0.02)
    raise AssertionError(f"both workers were never at work together: {driver.communicate()[1]}")


def is_making(worker: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "ShardMaker.make" in " ".join(worker.cmdline())
    return False


def test_a_ray_job_is_told_to_write_its_paths_in_full(source, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(DataError, match="write both in full"):
        prepare(PrepareConfig(["mevis:train"], source, "build/shards"))
