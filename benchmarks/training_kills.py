"""A training whose ranks are killed (-9, a random one, at a random moment) 20 times, beside one that nobody disturbs.

python benchmarks/training_kills.py [--kills 20] [--steps 60]

The final weights must be equal to the bit, and MLflow must hold each step once.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parents[1]))

from glus.data_pipeline.demo_data import DemoDataConfig, write_demo_data
from glus.data_pipeline.demo_world import DemoWorldConfig
from glus.launch.configuration import load_config, to_yaml
from glus.training import checkpoint
from glus.training.config import RunConfig
from glus.training.run_record import run_of_folder
from glus.training.tracking import find_runs

ROOT = Path(__file__).parents[1]
GLUS = [sys.executable, "-P", "-m", "glus.launch.cli"]


def make_run(folder: Path, out: str, steps: int) -> RunConfig:
    """A tiny run on two ranks into FOLDER/OUT, a checkpoint after every second step."""
    places = [f"out={folder / out}", f"name={out}", f"shards={folder}/shards", "ranks=2", f"steps={steps}"]
    places += [f"model.tokenizer={folder}/raw/tokenizer.model", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    config = load_config(RunConfig, ROOT / "tests/tiny_run.yaml", [*places, "checkpoint_every=2", "log_every=1"])
    (folder / f"{out}.yaml").write_text(to_yaml(config), encoding="utf-8")
    return config


def ranks_of(out: str) -> list[int]:
    """Processes of the ranks that train into `out`."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # no process, or one that ended while we looked
        if b"glus.launch.ranks" in words and f"{out}/config.yaml".encode() in words:
            found.append(int(place.name))
    return found


def begin(folder: Path, config: RunConfig) -> "subprocess.Popen[bytes]":
    with open(folder / f"{config.name}.log", "ab") as log:
        return subprocess.Popen([*GLUS, "train", str(folder / f"{config.name}.yaml")], stdout=log, stderr=log)


def kill_once(folder: Path, config: RunConfig, longest: float) -> float | None:
    """Kill one rank of a training within `longest` seconds of its ranks' birth; seconds until all had ended."""
    process = begin(folder, config)
    while not (ranks := ranks_of(config.out)) and process.poll() is None:
        time.sleep(0.1)
    time.sleep(random.uniform(0, longest))
    ranks = ranks_of(config.out) or ranks
    if process.poll() is not None:
        return None
    os.kill(random.choice(ranks), signal.SIGKILL)
    killed = time.monotonic()
    process.wait(120)
    assert not ranks_of(config.out), "a rank is left"
    return time.monotonic() - killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds within which a rank is killed")
    asked = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = DemoWorldConfig(frames=4, width=64, height=48)
        write_demo_data(DemoDataConfig(folder / "raw", train_videos=2, valid_videos=1, world=small))
        words = ["prepare", "datasets=[mevis, ref_davis17]", f"root={folder}/raw", f"out={folder}/shards", "workers=1"]
        subprocess.run([*GLUS, *words], check=True, capture_output=True)
        whole, killed = make_run(folder, "whole", asked.steps), make_run(folder, "killed", asked.steps)
        assert begin(folder, whole).wait() == 0, (folder / "whole.log").read_text()
        ends = []
        for number in range(asked.kills):
            took = kill_once(folder, killed, asked.longest)
            newest = next(iter(checkpoint.newest_first(Path(killed.out) / "checkpoints")), None)
            print(f"kill {number + 1}: ended after {took}, {newest and newest.name}", flush=True)
            if took is None:
                break
            ends.append(took)
        assert begin(folder, killed).wait() == 0, (folder / "killed.log").read_text()
        places = [Path(run.out) / "checkpoints" / checkpoint.name_of(asked.steps) for run in (whole, killed)]
        one, other = (load_file(place / checkpoint.WEIGHTS) for place in places)
        print(
            f"{len(ends)} kills; weights equal to the bit: {all(torch.equal(one[each], other[each]) for each in one)}"
        )
        names = [str(run_of_folder(Path(run.out))) for run in (whole, killed)]
        first, second = (find_runs(whole.tracking, [each])[0].history["total"] for each in names)
        print(f"steps in MLflow: {len(second)} of {asked.steps}, the same values: {first == second}")
        print(f"from a kill to the end of all ranks: {max(ends, default=0):.1f} s at most")


if __name__ == "__main__":
    main()
