"""A training on a real SLURM of two nodes, preempted 5 times by a job of higher priority, beside an undisturbed one.

python benchmarks/cluster_preemptions.py [--preemptions 5] [--steps 24]

Needs Debian's slurm-wlm and munge. The final weights must be equal to the bit, MLflow must hold each step once.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parents[1]))

from glus.training import checkpoint
from glus.training.config import RunConfig
from glus.training.run_record import run_of_folder
from glus.training.tracking import find_runs
from tests.slurm.conftest import Cluster, start_cluster
from tests.slurm.world import World, make_world

GLUS = [sys.executable, "-P", "-m", "glus.launch.cli"]


def submit(cluster: Cluster, world: World, file: Path) -> str:
    words = ["submit", "train", str(file), "--nodes", "2", "--cluster", str(world.site)]
    told = subprocess.check_output([*GLUS, *words], env=cluster.environment, cwd=world.folder, text=True)
    return told.split("job ")[1].split(",")[0]


def newest(config: RunConfig) -> int:
    found = next(iter(checkpoint.newest_first(Path(config.out) / "checkpoints")), None)
    return checkpoint.step_of(found) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preemptions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        (folder / "slurm").mkdir()
        cluster = start_cluster(folder / "slurm", running)
        world = make_world(folder)
        words = ["prepare", str(world.prepare), f"out={folder}/shards"]
        subprocess.run([*GLUS, *words], check=True, capture_output=True)
        (file, whole), (other, moved) = (world.run(each, f"steps={asked.steps}") for each in ("whole", "moved"))
        cluster.wait(submit(cluster, world, file), "COMPLETED", 400)
        job, waits = submit(cluster, world, other), []
        log = Path(moved.out) / "jobs" / "001-train" / "log.txt"
        for number in range(asked.preemptions):
            begun = newest(moved)
            cluster.until(lambda step=begun: newest(moved) > step, "a step more", 200)  # type: ignore[misc]
            high = cluster.run("sbatch", "--parsable", "-p", "high", "-N", "2", "-o", "/dev/null", "--wrap", "true")
            asked_at = time.monotonic()
            cluster.wait(high.strip(), "COMPLETED", 120)
            cluster.wait(job, "RUNNING", 120, log)
            waits.append(time.monotonic() - asked_at)
            print(
                f"preemption {number + 1}: at step {newest(moved)}, running again after {waits[-1]:.0f} s", flush=True
            )
        cluster.wait(job, "COMPLETED", 400, log)
        names = checkpoint.name_of(asked.steps)
        one, two = (load_file(Path(run.out) / "checkpoints" / names / checkpoint.WEIGHTS) for run in (whole, moved))
        print(f"weights equal to the bit: {all(torch.equal(one[each], two[each]) for each in one)}")
        runs = [str(run_of_folder(Path(run.out))) for run in (whole, moved)]
        first, second = (found.history["total"] for found in find_runs(whole.tracking, runs))
        print(f"steps in MLflow: {len(second)} of {asked.steps}, the same values: {first == second}")


if __name__ == "__main__":
    main()
