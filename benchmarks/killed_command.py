"""A command with processes of its own, killed on purpose: for benchmarks of what a kill leaves."""

import argparse
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

#: In turn, whom SIGKILL goes to.
VICTIMS = ("the command", "a process of it", "all")
#: Seconds that what is left of a killed command has to end by itself.
TO_END = 120.0


def kill(process: "subprocess.Popen[bytes]", after: float, victim: str, early: str) -> int:
    """Kill what `victim` names of a command after `after` seconds.

    Returns how many processes did not end by themselves. Ends this program with the text `early` where the command
    ended before.
    """
    with suppress(subprocess.TimeoutExpired):
        process.wait(after)
        sys.exit(early)
    command, *others = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    working = [each for each in others if "spawn_main" in " ".join(each.cmdline())]
    chosen = {"the command": [command], "a process of it": working[:1] or [command], "all": [command, *others]}
    for each in chosen[victim]:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    process.wait(TO_END)
    _, left = psutil.wait_procs(others, TO_END)
    for each in left:
        each.kill()
    return len(left)


def options_of(description: str) -> argparse.Namespace:
    """The options that these benchmarks share, from the command line."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--videos", type=int, default=24, help="of each of two splits")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()
