"""`glus evaluate`, the whole command, killed at random moments; then once to its end: the same figures?

    python benchmarks/scoring_kills.py RUN SHARDS OUT [--kills 20] [--splits mevis/train,mevis/valid_u] [--processes 2]

RUN is a run folder such as build/demo/run, SHARDS its shards. All processes of a run get SIGKILL. Printed are how far
each run came, whether the figures are those of a run that nobody killed, and whether a mask was ever written twice.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path


def command(options: argparse.Namespace, out: Path) -> list[str]:
    splits = ", ".join(options.splits.split(","))
    words = [f"checkpoint={options.run}", f"shards={options.shards}", f"out={out}", f"splits=[{splits}]"]
    words += [f"processes={options.processes}", "record=false", "report=false"]
    return [sys.executable, "-P", "-m", "glus.launch.cli", "evaluate", *words]


def masks(out: Path) -> dict[str, tuple[int, int]]:
    """Finished masks: name -> (inode, time)."""
    found = {}
    for place in (out / "predictions").rglob("*.png"):
        if not any(part.startswith(".") for part in place.relative_to(out).parts):
            stat = place.stat()
            found[str(place.relative_to(out))] = (stat.st_ino, stat.st_mtime_ns)
    return found


def run_to_the_end(options: argparse.Namespace, out: Path) -> float:
    start = time.monotonic()
    subprocess.run(command(options, out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def killed_run(options: argparse.Namespace, out: Path, after: float) -> None:
    process = subprocess.Popen(
        command(options, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def scores(out: Path) -> object:
    document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    return document["summary"], document["expressions"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--splits", default="mevis/train,mevis/valid_u")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = run_to_the_end(options, options.out / "whole")
    whole = masks(options.out / "whole")
    print(f"a run that nobody kills: {seconds:.0f} s, {len(whole)} masks", flush=True)
    chance, twice = random.Random(options.seed), 0
    out = options.out / "killed"
    for number in range(1, options.kills + 1):
        before = masks(out)
        # Late enough that something is at work, early enough that most runs do not end.
        after = chance.uniform(0.3, 1.0) * seconds
        killed_run(options, out, after)
        now = masks(out)
        twice += sum(now.get(name) != seen for name, seen in before.items())
        print(f"kill {number} after {after:.1f} s: {len(now)} of {len(whole)} masks", flush=True)
    before = masks(out)
    run_to_the_end(options, out)
    now = masks(out)
    twice += sum(now.get(name) != seen for name, seen in before.items())
    print(
        f"masks missing: {len(whole.keys() - now.keys())}, too many: {len(now.keys() - whole.keys())}, twice: {twice}"
    )
    print(f"figures the same: {scores(out) == scores(options.out / 'whole')}")


if __name__ == "__main__":
    main()
