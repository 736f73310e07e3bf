"""The same `glus` command twice at once, into one `out`: one runs, the other is refused with the first one's process.

    python benchmarks/two_at_once.py [--tries 10] --out OUT [--check "data stats ..."] -- prepare out=OUT ...

OUT is removed before each try. --check is a command of `glus` that must end well after each try.
"""

import argparse
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Try:
    """One try: seconds until the second was refused, and until the first ended."""

    refused: float
    ended: float


def start(words: Sequence[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "glus.launch.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def two_at_once(words: Sequence[str], out: Path) -> Try:
    """Raises RuntimeError where not exactly one is refused, with host and process of the other."""
    if out.is_dir():
        shutil.rmtree(out)
    began = time.monotonic()
    both = [start(words), start(words)]
    ends: dict[int, float] = {}
    while len(ends) < 2:
        for place, process in enumerate(both):
            if place not in ends and process.poll() is not None:
                ends[place] = time.monotonic() - began
        time.sleep(0.02)
    said = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    if sorted(codes) != [0, 2]:
        raise RuntimeError(f"exit codes {codes}:\n{said[0]}\n{said[1]}")
    lost = codes.index(2)
    wanted = f"on {re.escape(socket.gethostname())}, process {both[1 - lost].pid}\\b"
    if not re.search(wanted, said[lost]):
        raise RuntimeError(f"refused without naming the other, process {both[1 - lost].pid}:\n{said[lost]}")
    return Try(ends[lost], ends[1 - lost])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", default="")
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args()
    tries = []
    for _ in range(asked.tries):
        tries.append(two_at_once(asked.words, asked.out))
        if asked.check:
            subprocess.run([sys.executable, "-P", "-m", "glus.launch.cli", *shlex.split(asked.check)], check=True)
    slowest = max(each.refused for each in tries)
    print(f"{len(tries)} tries: one of two refused each time, after {slowest:.1f} s at most; the other ended well")


if __name__ == "__main__":
    main()
