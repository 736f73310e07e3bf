"""`glus doctor`: each line is ok, or says what to do; in a job the machines meet."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glus.common.errors import LaunchError
from glus.launch import cli
from glus.launch.ranks.nodes import ALONE, RENDEZVOUS, Nodes
from glus.launch.slurm import doctor
from glus.launch.slurm.doctor import DoctorConfig, findings, planned_bytes
from glus.launch.slurm.doctor_network import meet
from glus.training.run_config import KeepConfig, RunConfig
from tests.running import unused_ports, written

pytestmark = pytest.mark.slow

TinyRun = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def tiny_run(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """As everywhere, with one MLflow file for all tests here: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    return lambda out, *changes: tiny_run(out, f"tracking.uri={uri}", *changes)


def test_a_run_that_can_begin_is_ok_line_by_line(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", str(written(tiny_run(tmp_path / "run"), tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    assert [line.split(":")[0] for line in lines] == [
        f"ok  {name}" for name in ("versions", "GPUs", "weights", "disk", "shards", "MLflow")
    ]
    assert list((tmp_path / "run").iterdir()) == []


def wrong(run: RunConfig) -> str:
    """The one thing that is wrong."""
    [found] = [each for each in findings(run, DoctorConfig(Path()), ALONE) if each.remedy]
    return f"{found.name}: {found.found}: {found.remedy}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shards={folder}/none", "shards: .*/none: this folder of shards does not exist; run `glus prepare` first"),
        ("tracking.uri=http://127.0.0.1:{port}", "MLflow: no MLflow server can be reached at http.*start the server"),
        ("model.tokenizer={folder}/none", "weights: no SentencePiece model at .*"),
        ("out=/dev/null/run", "disk: /dev/null/run cannot be written .*: choose another `out`"),
        ('trainable=["x.*"]', "weights: trainable: 'x.*' matches no parameter"),
        ("model.language.attention=flash_attention_2", "flash-attn: not installed, .*: run `make env-gpu`, or set"),
    ],
)
def test_what_is_lacking_is_told_with_what_to_do(change: str, message: str, tiny_run: TinyRun, tmp_path: Path) -> None:
    changes = [change.format(folder=tmp_path, port=unused_ports(1)[0])]
    if "flash" in change:
        changes.append("engine.precision=bf16")
    told = [
        f"{each.name}: {each.found}: {each.remedy}"
        for each in findings(tiny_run(tmp_path / "run", *changes), DoctorConfig(Path()), ALONE)
        if each.remedy
    ]
    assert any(re.match(message, line) for line in told), told


def test_a_damaged_shard_is_found(tiny_run: TinyRun, tiny_demo: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_demo / "shards", tmp_path / "shards")
    for file in tmp_path.glob("shards/mevis/train/*.tar"):
        content = bytearray(file.read_bytes())
        content[700] ^= 1
        file.write_bytes(content)
    told = wrong(replace(tiny_run(tmp_path / "run"), shards=f"{tmp_path}/shards"))
    assert told.startswith("shards: ") and "is not what was prepared: run `glus prepare` again" in told


def test_a_disk_without_room_for_the_checkpoints_is_told(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "run")
    more = planned_bytes(replace(run, keep=KeepConfig(last=5)))
    assert more == 2 * planned_bytes(replace(run, keep=KeepConfig(last=2)))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage._replace(free=10**6))
    assert "make room, or keep fewer (keep.last=3, keep.best=0)" in wrong(run)


MACHINE = """
import os, sys
from glus.launch.slurm.doctor_network import meet
from glus.launch.ranks.nodes import Nodes
found = meet(Nodes.from_environment(), 2**20, 60)
print(found.seconds > 0, found.skew < 1, found.same_code, found.backend)
"""


@pytest.mark.ranks
def test_the_machines_of_a_job_meet(warm_python: Path) -> None:
    job = {RENDEZVOUS: f"127.0.0.1:{unused_ports(1)[0]}", "SLURM_STEP_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    job["GLOO_SOCKET_IFNAME"] = "lo"
    machines = [
        subprocess.Popen(
            [warm_python, "-c", MACHINE],
            env={**os.environ, **job, "SLURM_NODEID": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    assert [machine.communicate(timeout=100)[0] for machine in machines] == ["True True True gloo\n"] * 2


def test_a_machine_that_does_not_come_is_told() -> None:
    nodes = Nodes(1, 2, f"127.0.0.1:{unused_ports(1)[0]}", "glus-7", "n2")
    with pytest.raises(LaunchError, match=r"the 2 machines did not meet at 127\.0\.0\.1:\d+ within 1 s .*: see which"):
        meet(nodes, 4, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({RENDEZVOUS: "n1:9"}, "GLUS_RENDEZVOUS is set, but not by a job: SLURM_NODEID="),
        (
            {RENDEZVOUS: "n1", "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "7"},
            "GLUS_RENDEZVOUS=n1: it must be HOST:PORT of the first machine",
        ),
    ],
)
def test_an_environment_that_fits_no_job_is_told(
    settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_NODEID", "SLURM_STEP_NUM_NODES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=message):
        Nodes.from_environment()
