"""The whole way on a real SLURM of two nodes, and a training that is killed and preempted on it.

The folder and the name of the runs hold what a shell would run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from glus.evaluation.predict.key_frames import KeyFrames
from glus.evaluation.results.scores_file import read_scores
from glus.launch.ranks.attempts import ATTEMPTS
from glus.training.checkpoints import checkpoint
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import RunRecord, find_runs
from glus.training.tracking.run_record import run_of_folder
from tests.running import listening, ranks_of
from tests.slurm.conftest import Cluster
from tests.slurm.world import CONFIGS, HOSTILE, HOSTILE_EXPRESSION, STEPS, World, make_world

#: Seconds that a chain of jobs may take in all: several times what it takes on two slow cores.
MOST = 1500
pytestmark = pytest.mark.timeout(2 * MOST)


def glus(cluster: Cluster, folder: Path, *words: str) -> str:
    """What `glus WORDS` prints, called in `folder`."""
    command = [sys.executable, "-P", "-m", "glus.launch.cli", *words]
    done = subprocess.run(
        command, cwd=folder, env=cluster.environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def submitted(told: str) -> dict[str, str]:
    """Name -> number of the jobs that `glus submit` tells."""
    pairs = (line.partition(": job ") for line in told.splitlines() if ": job " in line)
    return {name: rest.split(",")[0] for name, _, rest in pairs}


def recorded(config: RunConfig) -> RunRecord:
    [record] = find_runs(config.tracking, [str(run_of_folder(Path(config.out)))])
    return record


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(Path(config.out) / "checkpoints" / checkpoint.name_of(STEPS) / checkpoint.WEIGHTS)


@dataclass(frozen=True)
class Reproduced:
    """What `glus submit reproduce` left."""

    world: World
    config: RunConfig
    jobs: dict[str, str]


@pytest.fixture(scope="module")
def reproduced(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Reproduced:
    """The chain's commands start from one process; those of the disturbed training below start as anywhere."""
    world = make_world(tmp_path_factory.mktemp("world"), warm_python)
    file, config = world.run(HOSTILE)
    words = [
        "--selector",
        str(CONFIGS / "demo_selector.yaml"),
        f"selector_changes={json.dumps(world.selector_changes)}",
    ]
    words += ["--prepare", str(world.prepare), "--cluster", str(world.warm_site), "--nodes", "2"]
    words += ["--evaluate", str(CONFIGS / "demo_evaluate.yaml"), "evaluate_changes=[processes=1]"]
    began = time.monotonic()
    told = glus(cluster, world.folder, "submit", "reproduce", str(file), *words)
    jobs = submitted(told)
    for name, number in jobs.items():
        own = Path(config.out) / "selector" if name == "train-selector" else Path(config.out)
        [folder] = (own / "jobs").glob(f"*-{name}")
        # All jobs together have MOST seconds: one that hangs fails with the end of its log.
        cluster.wait(number, "COMPLETED", MOST - (time.monotonic() - began), folder)
        print(f"{name}: ended {time.monotonic() - began:.0f} s after the chain was submitted")
    return Reproduced(world, config, jobs)


def test_reproduce_ends_with_an_evaluation_from_the_selectors_key_frames(reproduced: Reproduced) -> None:
    out = Path(reproduced.config.out)
    scores = read_scores(out / "evaluation_kfs")
    keys = KeyFrames.read(out / "key_frames.json").frames
    assert {f"{each.video}_{each.expression}" for each in scores.expressions} == keys.keys()
    [log] = (out / "jobs").glob("*-gather-kfs/log.txt")
    assert f"key frames: {len(keys)} of {len(keys)} expressions have one" in log.read_text(encoding="utf-8")
    assert {each.split for each in read_scores(out / "labels").expressions} == {"train"}
    assert checkpoint.resolve(out / "selector").name == checkpoint.name_of(STEPS)


def test_reproduce_goes_through_to_j_and_f_in_mlflow(reproduced: Reproduced, cluster: Cluster) -> None:
    assert list(reproduced.jobs) == [
        *("prepare", "train", "predict", "gather", "predict-labels", "gather-labels", "train-selector"),
        *("score-frames", "select", "predict-kfs", "gather-kfs", "compare"),
    ]
    record = recorded(reproduced.config)
    assert (record.name, record.status) == (HOSTILE, "FINISHED")
    assert [step for step, _ in record.history["total"]] == list(range(1, STEPS + 1))
    assert {"eval/mevis/valid_u/JF", "eval/ref_davis17/valid/JF", "eval/overall/JF"} <= record.metrics.keys()
    assert "eval/key_frames/overall/JF" in record.metrics
    [log] = (Path(reproduced.config.out) / "jobs").glob("*-compare/log.txt")
    assert "J&F next to published results" in log.read_text(encoding="utf-8")
    # Nothing was run that came as a value; it arrived as it was, up to the figures.
    scores = read_scores(Path(reproduced.config.out) / "evaluation")
    assert HOSTILE_EXPRESSION in {each.text for each in scores.expressions}
    assert not list(reproduced.world.folder.rglob("pwned"))
    shown = glus(cluster, reproduced.world.folder, "jobs", reproduced.config.out)
    assert f"step {STEPS} of {STEPS}" in shown and record.run_id in shown and "completed" in shown


def test_a_run_that_is_killed_and_preempted_ends_as_an_undisturbed_one(
    reproduced: Reproduced, cluster: Cluster
) -> None:
    file, config = reproduced.world.run(f"disturbed {HOSTILE}")
    told = glus(
        cluster, reproduced.world.folder, "submit", "train", str(file), "--cluster", str(reproduced.world.site),
        "--nodes", "2",
    )  # fmt: skip
    job = submitted(told)["train"]
    checkpoints, [log] = Path(config.out) / "checkpoints", [Path(config.out) / "jobs" / "001-train" / "log.txt"]

    ends = time.monotonic() + MOST
    cluster.until((checkpoints / "step-000002").is_dir, "two steps", ends - time.monotonic(), log)
    # The store of the first launcher and gloo listen on the address by which SLURM knows the machines, nowhere else.
    launchers = {psutil.Process(rank).ppid() for rank in ranks_of(config.out).values()}
    assert len(launchers) == 2
    assert {address for launcher in launchers for address, _ in listening(launcher)} == {"127.0.0.1"}
    os.kill(ranks_of(config.out)[1], signal.SIGKILL)
    died = time.monotonic()
    cluster.until((Path(config.out) / ATTEMPTS).is_file, "the end of the attempt", ends - time.monotonic(), log)
    assert "rank 1 was killed by SIGKILL" in (Path(config.out) / ATTEMPTS).read_text(encoding="utf-8")
    cluster.until(lambda: len(ranks_of(config.out)) == 2, "ranks again", ends - time.monotonic(), log)
    print(f"ranks again {time.monotonic() - died:.1f} s after one of them had died")

    cluster.until((checkpoints / "step-000004").is_dir, "four steps", ends - time.monotonic(), log)
    # It must not come to its end before the other job comes. SLURM lets those go on that it tells to stop.
    os.kill(ranks_of(config.out)[0], signal.SIGSTOP)
    other = cluster.run("sbatch", "--parsable", "-p", "high", "-N", "2", "-o", "/dev/null", "--wrap", "true").strip()
    cluster.wait(other, "COMPLETED", ends - time.monotonic(), log)
    cluster.wait(job, "COMPLETED", ends - time.monotonic(), log)

    told = log.read_text(encoding="utf-8")
    assert f"job {job}, start 2: " in told and f" of {STEPS} by SIGTERM" in told
    assert all(torch.equal(weights(config)[name], each) for name, each in weights(reproduced.config).items())
    record, undisturbed = recorded(config), recorded(reproduced.config)
    assert record.status == "FINISHED"
    assert record.history["total"] == undisturbed.history["total"]
