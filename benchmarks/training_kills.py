"""A training whose ranks are killed (-9, a random one, at a random moment) 20 times, compared with an undisturbed one.

python benchmarks/training_kills.py [FOLDER] [--kills 20] [--steps 200] [--seed 0] [--videolisa]

--videolisa trains a small VideoLISA on images and videos instead of a small GLUS.
With a FOLDER it can be interrupted: the same command goes on.

The moments are drawn between the ranks' birth and some steps after the first, about half of them before it. The final
weights must be equal to the bit, and MLflow must hold each step once, with the same values; else it ends with 1.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parents[1]))

from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.world import DemoWorldConfig
from glus.launch.config.configuration import load_config, to_yaml
from glus.training.checkpoints import checkpoint
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.run_record import run_of_folder
from tests.running import ranks_of
from tests.tiny_videolisa_run import IMAGES, VIDEOLISA

ROOT = Path(__file__).parents[1]
GLUS = [sys.executable, "-P", "-m", "glus.launch.cli"]


def make_shards(folder: Path) -> None:
    small = DemoWorldConfig(frames=4, width=64, height=48)
    images = {"train_images": 4, "valid_images": 1}
    write_demo_data(DemoDataConfig(folder / "raw", train_videos=2, valid_videos=1, world=small, **images))
    words = [
        "prepare",
        "datasets=[mevis, ref_davis17, refcoco:train, reason_seg:train]",
        f"root={folder}/raw",
        f"out={folder}/shards",
        "workers=1",
    ]
    subprocess.run([*GLUS, *words], check=True, capture_output=True)


def make_run(folder: Path, out: str, steps: int, videolisa: bool) -> RunConfig:
    """A tiny run on two ranks into FOLDER/OUT, a checkpoint after every second step."""
    places = [f"out={folder / out}", f"name={out}", f"shards={folder}/shards", "ranks=2", f"steps={steps}"]
    places += [f"model.tokenizer={folder}/raw/tokenizer.model", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    if videolisa:
        places += [*VIDEOLISA, *IMAGES]
    config = load_config(RunConfig, ROOT / "tests/tiny_run.yaml", [*places, "checkpoint_every=2", "log_every=1"])
    (folder / f"{out}.yaml").write_text(to_yaml(config), encoding="utf-8")
    return config


def begin(folder: Path, config: RunConfig) -> "subprocess.Popen[bytes]":
    with open(folder / f"{config.name}.log", "ab") as log:
        return subprocess.Popen([*GLUS, "train", str(folder / f"{config.name}.yaml")], stdout=log, stderr=log)


def newest_step(config: RunConfig) -> int:
    found = next(iter(checkpoint.newest_first(Path(config.out) / "checkpoints")), None)
    return checkpoint.step_of(found) if found else 0


def undisturbed(folder: Path, config: RunConfig) -> tuple[float, float]:
    """Train to the end; seconds from the ranks' birth to the first checkpoint, and from there to the end."""
    process = begin(folder, config)
    while not ranks_of(config.out) and process.poll() is None:
        time.sleep(0.05)
    born = time.monotonic()
    while not newest_step(config) and process.poll() is None:
        time.sleep(0.05)
    first = time.monotonic()
    if process.wait():
        raise SystemExit((folder / f"{config.name}.log").read_text())
    return first - born, time.monotonic() - first


@dataclass(frozen=True)
class Kill:
    """`after` seconds from its ranks' birth; the last ended `ended` later. `writing`: half a checkpoint lay there."""

    after: float
    ended: float
    step: int
    writing: bool


def kill_once(folder: Path, config: RunConfig, after: float, draw: random.Random) -> Kill | None:
    """Kill one rank of a training `after` seconds from its ranks' birth; None where the training had ended before."""
    process = begin(folder, config)
    while not ranks_of(config.out) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(after)
    ranks = ranks_of(config.out)
    if process.poll() is not None or not ranks:
        process.wait()
        return None
    os.kill(draw.choice([*ranks.values()]), signal.SIGKILL)
    killed = time.monotonic()
    code = process.wait(300)
    ended = time.monotonic() - killed
    assert code == 2 and not ranks_of(config.out), f"ended with {code}; ranks left: {ranks_of(config.out)}"
    half_written = list((Path(config.out) / "checkpoints").glob(".step-*.writing"))
    return Kill(after, ended, newest_step(config), bool(half_written))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--videolisa", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return measure(asked.folder or Path(name), asked.steps, asked.kills, asked.seed, asked.videolisa)


def measure(folder: Path, steps: int, count: int, seed: int, videolisa: bool) -> int:
    """Returns what the process is to end with."""
    done = folder / "kills.json"
    if not done.is_file():
        make_shards(folder)
    intact, killed = (make_run(folder, out, steps, videolisa) for out in ("undisturbed", "killed"))
    if not done.is_file():
        done.write_text(json.dumps([undisturbed(folder, intact), []]), encoding="utf-8")
    (starting, training), kills = json.loads(done.read_text(encoding="utf-8"))
    print(f"undisturbed: {starting:.1f} s to the first checkpoint, {training:.1f} s more", flush=True)
    # Of the training each kill takes a share that leaves some for the others.
    longest = min(starting, 2 * training / count)
    for number in range(len(kills), count):
        draw = random.Random(f"{seed} {number}")
        kill = kill_once(folder, killed, draw.uniform(starting - longest, starting + longest), draw)
        if kill is None:
            print("the training ended before all kills: ask for more --steps")
            return 1
        kills.append(asdict(kill))
        done.write_text(json.dumps([[starting, training], kills]), encoding="utf-8")
        print(
            f"kill {number + 1}: {kill.after:.1f} s after birth, all ended {kill.ended:.1f} s later, "
            f"step {kill.step}{', a checkpoint half written' if kill.writing else ''}",
            flush=True,
        )
    if begin(folder, killed).wait():
        raise SystemExit((folder / "killed.log").read_text())
    return report(intact, killed, [Kill(**kill) for kill in kills])


def report(intact: RunConfig, killed: RunConfig, kills: list[Kill]) -> int:
    """Print what the two runs ended with; 0 where it is the same."""
    places = [Path(run.out) / "checkpoints" / checkpoint.name_of(intact.steps) for run in (intact, killed)]
    one, other = (load_file(place / checkpoint.WEIGHTS) for place in places)
    same = one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)
    print(f"{len(kills)} kills; weights equal to the bit: {same}")
    names = [str(run_of_folder(Path(run.out))) for run in (intact, killed)]
    first, second = (find_runs(intact.tracking, [each])[0].history["total"] for each in names)
    print(f"steps in MLflow: {len(second)} of {intact.steps}, the same values: {first == second}")
    counted = (sum(kill.step > 0 for kill in kills), sum(kill.writing for kill in kills))
    print(f"kills that found a checkpoint: {counted[0]}, one half written: {counted[1]}")
    print(f"from a kill to the end of all ranks: {max(kill.ended for kill in kills):.1f} s at most")
    return 0 if same and first == second and len(second) == intact.steps else 1


if __name__ == "__main__":
    sys.exit(main())
