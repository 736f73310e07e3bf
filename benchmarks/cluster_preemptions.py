"""A training on a real SLURM of two nodes, preempted 5 times, compared with an undisturbed one.

python benchmarks/cluster_preemptions.py [--preemptions 5] [--steps 36]

At last one of its ranks is killed (-9), to see when it runs again. Needs Debian's slurm-wlm and munge. The final
weights must be equal to the bit, and MLflow must hold each step once, with the same values; else it ends with 1.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parents[1]))

from glus.launch.ranks.attempts import ATTEMPTS
from glus.training.checkpoints import checkpoint
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.run_record import run_of_folder
from tests.running import ranks_of
from tests.slurm.conftest import Cluster, start_cluster
from tests.slurm.world import World, make_world

GLUS = [sys.executable, "-P", "-m", "glus.launch.cli"]


def submit(cluster: Cluster, world: World, file: Path) -> str:
    words = ["submit", "train", str(file), "--nodes", "2", "--cluster", str(world.site)]
    printed = subprocess.check_output([*GLUS, *words], env=cluster.environment, cwd=world.folder, text=True)
    return printed.split("job ")[1].split(",")[0]


def newest(config: RunConfig) -> int:
    found = next(iter(checkpoint.newest_first(Path(config.out) / "checkpoints")), None)
    return checkpoint.step_of(found) if found else 0


def preempt(cluster: Cluster, job: str, run: RunConfig, log: Path) -> None:
    """Once it has gone on by a checkpoint, a job of higher priority takes its place; until it runs again."""
    begun = newest(run)
    cluster.until(lambda: newest(run) > begun, "a step more", 400, log)
    # So that few steps are enough: it waits for the other job. SLURM continues those that it stops.
    os.kill(ranks_of(run.out)[0], signal.SIGSTOP)
    high = cluster.run("sbatch", "--parsable", "-p", "high", "-N", "2", "-o", "/dev/null", "--wrap", "true")
    asked_at = time.monotonic()
    cluster.wait(high.strip(), "COMPLETED", 400, log)
    given = time.monotonic() - asked_at
    cluster.wait(job, "RUNNING", 400, log)
    message = (
        f"the other job had ended after {given:.0f} s, this one restarted after {time.monotonic() - asked_at:.0f} s"
    )
    print(f"preempted at step {newest(run)}: {message}", flush=True)


def kill(cluster: Cluster, run: RunConfig, log: Path) -> None:
    """Kill a rank; until its successors have written a checkpoint."""
    begun, attempts = newest(run), Path(run.out) / ATTEMPTS
    cluster.until(lambda: newest(run) > begun, "a step more", 400, log)
    before, ended = newest(run), len(json.loads(attempts.read_text(encoding="utf-8")))
    os.kill(ranks_of(run.out)[1], signal.SIGKILL)
    died = time.monotonic()
    cluster.until(lambda: len(json.loads(attempts.read_text(encoding="utf-8"))) > ended, "the attempt's end", 400, log)
    decided = time.monotonic() - died
    cluster.until(lambda: len(ranks_of(run.out)) == 2, "two ranks", 400, log)
    again = time.monotonic() - died
    cluster.until(lambda: newest(run) > before, "a checkpoint", 400, log)
    trained = time.monotonic() - died
    print(
        f"a rank killed at step {before}: the attempt had ended after {decided:.0f} s, both ranks ran again after "
        f"{again:.0f} s, step {newest(run)} was written after {trained:.0f} s",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preemptions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=36)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        (folder / "slurm").mkdir()
        cluster = start_cluster(folder / "slurm", running)
        world = make_world(folder)
        words = ["prepare", str(world.prepare), f"out={folder}/shards"]
        subprocess.run([*GLUS, *words], check=True, capture_output=True)
        (file, intact), (other, moved) = (world.run(each, f"steps={asked.steps}") for each in ("undisturbed", "moved"))
        began = time.monotonic()
        cluster.wait(submit(cluster, world, file), "COMPLETED", 600)
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        job = submit(cluster, world, other)
        log = Path(moved.out) / "jobs" / "001-train" / "log.txt"
        for _ in range(asked.preemptions):
            preempt(cluster, job, moved, log)
        kill(cluster, moved, log)
        cluster.wait(job, "COMPLETED", 600, log)
        names = checkpoint.name_of(asked.steps)
        one, two = (load_file(Path(run.out) / "checkpoints" / names / checkpoint.WEIGHTS) for run in (intact, moved))
        same = one.keys() == two.keys() and all(torch.equal(one[each], two[each]) for each in one)
        print(f"weights equal to the bit: {same}")
        runs = [str(run_of_folder(Path(run.out))) for run in (intact, moved)]
        first, second = (found.history["total"] for found in find_runs(intact.tracking, runs))
        print(f"steps in MLflow: {len(second)} of {asked.steps}, the same values: {first == second}")
        return 0 if same and first == second and len(second) == asked.steps else 1


if __name__ == "__main__":
    sys.exit(main())
