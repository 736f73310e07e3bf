"""What listens while a submitted training runs. srun and slurmd have ports of their own, which SLURM guards."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from glus.launch.slurm.sbatch import JOB
from glus.launch.slurm.submit import SubmitConfig, submit
from glus.training.run_config import RunConfig
from tests.running import listening, written
from tests.slurm.conftest import Cluster


def processes_of(file: Path, out: Path) -> list[int]:
    """The glus processes of a job: doctor, launcher, ranks."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[:1] == [sys.executable] and {str(file), str(out)} & set(words):
            found.append(process.pid)
    return found


@pytest.mark.timeout(900)
def test_a_job_of_one_machine_listens_on_loopback_alone(
    cluster: Cluster, tiny_run: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run(tmp_path / "run", "steps=1000", "checkpoint_every=1")
    # What jobs of several machines need must not open a port of one that is alone.
    outside = next((name for name in psutil.net_if_addrs() if name != "lo"), "lo")
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": outside}
    site = tmp_path / "site.yaml"
    site.write_text(json.dumps({"environment": environment, "forward": ["HOME", "PATH"]}), encoding="utf-8")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    submit(SubmitConfig("train", written(config, tmp_path), cluster=site))
    job, latest = tmp_path / "run" / "jobs" / "001-train", tmp_path / "run" / "checkpoints" / "latest"
    number = json.loads((job / JOB).read_text(encoding="utf-8"))["job"]
    seen: set[tuple[str, int]] = set()

    def trained() -> bool:
        for process in processes_of(job / "run.yaml", tmp_path / "run"):
            seen.update(listening(process))
        return latest.is_file()

    try:
        cluster.wait(number, "RUNNING", 60, job / "log.txt")
        cluster.until(trained, "a checkpoint", 600, job / "log.txt")
    finally:
        cluster.run("scancel", number)
        cluster.until(lambda: not processes_of(job / "run.yaml", tmp_path / "run"), "the end of its processes", 120)
    assert seen, "gloo listens"
    assert {address for address, _ in seen} == {"127.0.0.1"}
