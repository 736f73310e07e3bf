"""`ray job submit -- glus prepare ...` on a Ray of two nodes: a bad input, and a node that is killed."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.data_kills import digests, parts, undisturbed, write_mevis
from tests.running import listening, unused_ports

VIDEOS = 24
PROGRAMS = Path(sys.executable).parent

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]


class TwoNodes:
    """A Ray of two nodes in processes of its own (ray_nodes.py), with a job server. Loopback only, with a token."""

    def __init__(self, folder: Path) -> None:
        [port] = unused_ports(1)
        self.server = f"http://127.0.0.1:{port}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            # A job finds `glus` where its node does.
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "RAY_TMPDIR": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # Meant for laptops: Ray listens on loopback.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray gives its workers a low priority, which on a busy machine makes them very slow.
            "RAY_worker_niceness": "0",
        }
        self.process = self._start(sys.executable, "-P", str(Path(__file__).with_name("ray_nodes.py")), str(port))
        self.first = psutil.Process(self.process.pid)
        self.seen: set[psutil.Process] = set()

    def _start(self, *words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words, env=self.environment, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    def expect(self, word: str) -> None:
        """Wait until ray_nodes.py prints `word`."""
        assert self.process.stdout is not None
        said = list[str]()
        for line in self.process.stdout:
            said.append(line)
            if line.strip() == word:
                return
        raise AssertionError("".join(said))

    def kill_node(self) -> None:
        assert self.process.stdin is not None
        self.processes()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.expect("lost")

    def submit(self, job: str, *words: str) -> subprocess.Popen[str]:
        """`ray job submit` of a `glus prepare`. Prints the job's log and ends with it."""
        prepare = ["glus", "prepare", "datasets=[mevis:train]", "videos_per_shard=2", "workers=2", *words]
        ray = [str(PROGRAMS / "ray"), "job", "submit", "--address", self.server, "--submission-id", job]
        return self._start(*ray, "--", *prepare)

    def processes(self) -> set[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            self.seen |= {self.first, *self.first.children(recursive=True)}
        return self.seen

    def at_work(self) -> set[psutil.Process]:
        """The workers that make a shard now."""
        found = set[psutil.Process]()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if "ShardMaker.make" in " ".join(process.cmdline()):
                    found.add(process)
        return found

    def end(self) -> list[psutil.Process]:
        """End everything. Returns the processes that had to be killed."""
        self.processes()
        with suppress(subprocess.TimeoutExpired):
            self.process.communicate("", timeout=120)
        _, left = psutil.wait_procs(self.seen, timeout=20)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return left


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_mevis(root, VIDEOS)
    return root


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    # Not pytest's folder: paths of Ray's sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="glus-", dir="/tmp"))
    nodes = TwoNodes(folder)
    try:
        nodes.expect("ready")
        yield nodes
    finally:
        left = nodes.end()
        shutil.rmtree(folder, ignore_errors=True)
    assert left == []


def test_a_job_with_a_bad_video_fails_with_one_line_in_its_log(source: Path, nodes: TwoNodes, tmp_path: Path) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(source, root)
    (root / "mevis/train/JPEGImages/video0001/00002.jpg").write_bytes(b"")
    # Without ray_address it joins the Ray of its job.
    job = nodes.submit("bad", f"root={root}", f"out={out}")
    log = job.communicate()[0]
    assert job.returncode == 1 and "Job 'bad' failed" in log
    _, _, last = log.partition("Job entrypoint command failed with exit code 2")
    [line] = [line for line in last.splitlines() if "video0001" in line]
    assert line.startswith("glus prepare: mevis/train: ") and "00002" in line, line
    assert "Traceback" not in log and not (out / "mevis/train/manifest.json").exists()


def test_a_job_with_paths_that_are_not_full_fails_and_says_so(nodes: TwoNodes) -> None:
    job = nodes.submit("relative", "ray_address=auto", "root=raw", "out=build/shards")
    log = job.communicate()[0]
    assert job.returncode == 1 and "failed with exit code 2" in log
    assert "glus prepare: root=raw and out=build/shards: a Ray job starts in a folder of its own" in log


def test_a_job_goes_on_when_a_node_is_killed_and_writes_the_bytes_of_one_process(
    source: Path, nodes: TwoNodes, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = nodes.submit("lost", "ray_address=auto", f"root={source}", f"out={out}")
    # Stopped in the middle of its work, each worker with its node's process.
    stopped = dict[psutil.Process, psutil.Process]()
    while job.poll() is None and len(stopped) < 2:
        if parts(out):
            for worker in nodes.at_work() - stopped.keys():
                worker.suspend()
                stopped[worker] = worker.parent()
        time.sleep(0.02)
    addresses = listening(nodes.process.pid)
    nodes.kill_node()
    for worker, node in stopped.items():
        worker.resume() if node.is_running() else worker.kill()
    log = job.communicate()[0]
    assert job.returncode == 0 and "Job 'lost' succeeded" in log, log
    assert len(set(stopped.values())) == 2 and "mevis/train: a worker died; shard-" in log, log
    assert digests(out) == undisturbed(source, tmp_path / "alone", 2)
    assert addresses and {host.removeprefix("::ffff:") for host, _ in addresses} == {"127.0.0.1"}
