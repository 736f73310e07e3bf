"""`glus select-frames`, killed 20 times at random moments, then run to its end: the same files?

    python benchmarks/selecting_kills.py [FOLDER] [--kills 20] [--videos 24] [--processes 2] [--seed 0]

FOLDER (else a temporary one) takes a small demo set, a selector as it begins and both selections. SIGKILL goes, in
turn, to the command alone, to one of its processes, and to all of them, every fourth time before the first video is
done. Printed are how many videos each kill found done, and whether a finished video was scored again. Ends with 1
where FILE.json or FILE.parquet is not the same to the byte, or anything else is not as it should be.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from killed_command import VICTIMS, kill, options_of
from small_demo import write_small_demo

sys.path.append(str(Path(__file__).parents[1]))

from tests.untrained import SELECTOR, write_checkpoint

GLUS = [sys.executable, "-P", "-m", "glus.launch.cli"]
SPLITS = ("mevis/train", "mevis/valid_u")


def make(folder: Path, videos: int) -> None:
    """Shards of `videos` videos a split in FOLDER/shards, and a selector in FOLDER/run."""
    write_small_demo(folder, SPLITS, videos, frames=40)
    write_checkpoint(folder, folder / "run", *SELECTOR)


def start(folder: Path, name: str, processes: int) -> "subprocess.Popen[bytes]":
    words = [
        f"checkpoint={folder}/run/checkpoints/step-000001",
        f"shards={folder}/shards",
        f"splits=[{', '.join(SPLITS)}]",
    ]
    words += [f"out={folder}/{name}/key_frames.json", f"processes={processes}"]
    with open(folder / f"{name}.log", "ab") as log:
        return subprocess.Popen([*GLUS, "select-frames", *words], stdout=log, stderr=log, start_new_session=True)


def done(folder: Path, name: str) -> dict[str, tuple[int, int]]:
    """Finished videos: file -> (inode, time)."""
    places = (folder / name / "key_frames.scores" / "scores").rglob("[!.]*.json")
    return {str(each): (each.stat().st_ino, each.stat().st_mtime_ns) for each in places}


def undisturbed(folder: Path, processes: int) -> tuple[float, float]:
    """(seconds until the first video is done, in all)."""
    began = time.monotonic()
    process = start(folder, "undisturbed", processes)
    while process.poll() is None and not done(folder, "undisturbed"):
        time.sleep(0.01)
    first = time.monotonic() - began
    if process.wait():
        sys.exit((folder / "undisturbed.log").read_text())
    return first, time.monotonic() - began


def kill_once(folder: Path, processes: int, after: float, at_work: bool, victim: str) -> int:
    """Kill `after` seconds from the start, or from the next finished video; returns how many processes did not end."""
    before = done(folder, "killed").keys()
    process = start(folder, "killed", processes)
    while at_work and process.poll() is None and done(folder, "killed").keys() == before:
        time.sleep(0.01)
    early = f"glus select-frames ended before its kill: give more --videos (see {folder}/killed.log)"
    return kill(process, after, victim, early)


def measure(folder: Path, options: argparse.Namespace) -> int:
    """Returns what the process is to end with."""
    make(folder, options.videos)
    first, seconds = undisturbed(folder, options.processes)
    videos = len(done(folder, "undisturbed"))
    print(f"nobody kills: {videos} videos from {first:.1f} to {seconds:.1f} s", flush=True)
    chance, again, left = random.Random(options.seed), 0, 0
    for number in range(1, options.kills + 1):
        before, at_work = done(folder, "killed"), number % 4 != 0
        # Half a share of the work each: the other half is done while a killed command ends.
        after = chance.uniform(0, (seconds - first) / (2 * options.kills) if at_work else first)
        victim = VICTIMS[number % 3]
        left += kill_once(folder, options.processes, after, at_work, victim)
        now = done(folder, "killed")
        again += sum(now.get(name) != seen for name, seen in before.items())
        print(f"kill {number}, of {victim}: {len(now)} of {videos} videos", flush=True)
    if start(folder, "killed", options.processes).wait():
        sys.exit((folder / "killed.log").read_text())
    files = [f"key_frames.{ending}" for ending in ("json", "parquet")]
    same = all(
        (folder / "killed" / name).read_bytes() == (folder / "undisturbed" / name).read_bytes() for name in files
    )
    print(f"{options.kills} kills: files the same: {same}; videos scored again: {again}; processes left: {left}")
    return int(not same or bool(again or left))


def main() -> int:
    options = options_of(__doc__)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        return measure(options.folder or Path(temporary), options)


if __name__ == "__main__":
    sys.exit(main())
