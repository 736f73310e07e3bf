"""`glus evaluate`, killed 20 times at random moments, then run to its end: the same metrics?

    python benchmarks/scoring_kills.py [FOLDER] [--kills 20] [--videos 24] [--processes 2] [--seed 0]

FOLDER (else a temporary one) takes a small demo set, a tiny model of twelve steps and both evaluations. SIGKILL goes,
in turn, to the command alone, to one of its processes, and to all of them. Printed are how far each start came,
whether masks were written twice, are missing or too many, whether a process was left, and whether the metrics are the
same. Ends with 1 where anything is not as it should be. Some minutes: each start imports torch once a process.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from killed_command import VICTIMS, kill, options_of
from small_demo import write_small_demo

from glus.launch.config.configuration import load_config
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.train import train

SPLITS = ("mevis/train", "mevis/valid_u")
TINY_RUN = Path(__file__).parents[1] / "tests" / "tiny_run.yaml"
Masks = dict[str, tuple[int, int]]


@dataclass
class Found:
    """What went wrong over all kills, and which kills fell while masks were being made."""

    twice: list[str] = field(default_factory=list)
    left: int = 0
    at_work: int = 0


def make(folder: Path, videos: int) -> Path:
    """Shards of `videos` videos a split in FOLDER/shards, and a run that answers with [SEG]; returns the run."""
    write_small_demo(folder, (*SPLITS, "ref_davis17/train"), videos, frames=12)
    changes = ["steps=12", "optimizer.learning_rate=0.01", "model.loss.mask_bce=0", "model.loss.mask_dice=4"]
    places = [f"out={folder}/run", f"shards={folder}/shards", f"model.tokenizer={folder}/raw/tokenizer.model"]
    config = load_config(RunConfig, TINY_RUN, [*places, f"tracking.uri=sqlite:///{folder}/mlflow.db", *changes])
    train(config, Rank(0, 0, 1))
    return Path(config.out)


def command(folder: Path, out: Path, processes: int) -> list[str]:
    words = [f"checkpoint={folder}/run", f"shards={folder}/shards", f"out={out}", f"splits=[{', '.join(SPLITS)}]"]
    words += [f"processes={processes}", "record=false", "report=false"]
    return [sys.executable, "-P", "-m", "glus.launch.cli", "evaluate", *words]


def masks(out: Path) -> Masks:
    """Finished masks: name -> (inode, time)."""
    found = {}
    for place in (out / "predictions").rglob("*.png"):
        if not any(part.startswith(".") for part in place.relative_to(out).parts):
            stat = place.stat()
            found[str(place.relative_to(out))] = (stat.st_ino, stat.st_mtime_ns)
    return found


def start(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with open(log, "ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)


def asides(out: Path) -> set[Path]:
    """Folders of masks that are being written, and those that killed processes left."""
    return set((out / "predictions").glob("*/*/*/.*.part"))


def wait_for_work(process: "subprocess.Popen[bytes]", out: Path, before: set[Path]) -> None:
    """Return when a folder of masks is begun, or the process has ended."""
    while process.poll() is None and asides(out) <= before:
        time.sleep(0.01)


def run_to_the_end(words: list[str], out: Path) -> tuple[float, float, float]:
    """(seconds until the first mask is begun, until the scoring begins, in all)."""
    began = time.monotonic()
    process = start(words, out.with_suffix(".log"))
    wait_for_work(process, out, asides(out))
    first = last = time.monotonic() - began
    while process.poll() is None:
        if asides(out):
            last = time.monotonic() - began
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"glus evaluate ended with {process.returncode}: see {out.with_suffix('.log')}")
    return first, last, time.monotonic() - began


def killed_run(words: list[str], out: Path, after: float, at_work: bool, victim: str) -> int:
    """Kill what `victim` names `after` seconds from the start, or from the beginning of work.

    Returns how many processes did not end by themselves.
    """
    before = asides(out)
    process = start(words, out.with_suffix(".log"))
    if at_work:
        wait_for_work(process, out, before)
    early = f"glus evaluate ended before its kill: give more --videos (see {out.with_suffix('.log')})"
    return kill(process, after, victim, early)


def scores(out: Path) -> object:
    document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    return document["summary"], document["expressions"]


def kill_many(options: argparse.Namespace, folder: Path, first: float, work: float, undisturbed: int) -> Found:
    """Start and kill, every fourth time while the command begins, else while it works.

    What a kill finds half done is lost: in all they get longer than the work takes, and yet some is left for the end.
    """
    chance, found, out = random.Random(options.seed), Found(), folder / "killed"
    words = command(folder, out, options.processes)
    for number in range(1, options.kills + 1):
        before, at_work = masks(out), number % 4 != 0
        after = chance.uniform(0, 3 * work / options.kills if at_work else first)
        victim = VICTIMS[number % 3]
        found.left += killed_run(words, out, after, at_work, victim)
        now = masks(out)
        found.twice += [name for name, seen in before.items() if now.get(name) != seen]
        found.at_work += at_work
        where = "of its work" if at_work else "from its start"
        print(f"kill {number}, of {victim} {after:.2f} s {where}: {len(now)} of {undisturbed} masks", flush=True)
    return found


def main() -> int:
    options = options_of(__doc__)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        make(folder, options.videos)
        words = command(folder, folder / "undisturbed", options.processes)
        first, last, seconds = run_to_the_end(words, folder / "undisturbed")
        undisturbed = masks(folder / "undisturbed")
        print(
            f"nobody kills: {len(undisturbed)} masks from {first:.1f} to {last:.1f} s, {seconds:.1f} s in all",
            flush=True,
        )
        found = kill_many(options, folder, first, last - first, len(undisturbed))
        out = folder / "killed"
        before = masks(out)
        run_to_the_end(command(folder, out, options.processes), out)
        now = masks(out)
        twice = found.twice + [name for name, seen in before.items() if now.get(name) != seen]
        missing, many = undisturbed.keys() - now.keys(), now.keys() - undisturbed.keys()
        same = scores(out) == scores(folder / "undisturbed")
        left = len(undisturbed) - len(before)
        print(f"{options.kills} kills, {found.at_work} of them at work; {left} masks were left for the end")
        print(f"masks missing: {len(missing)}, too many: {len(many)}, written twice: {len(twice)}")
        print(f"processes left: {found.left}, unfinished folders: {len(asides(out))}; metrics the same: {same}")
        wrong = bool(missing or many or twice or asides(out) or found.left) or not same
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
