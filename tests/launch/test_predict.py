"""Processes that predict end with the command that started them."""

import subprocess
import sys
from pathlib import Path

import psutil

#: Starts a process that would sleep for minutes, and says its number when it watches its parent.
PARENT = """
import multiprocessing, os, time
from glus.common.processes import end_with_parent

def child():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child, daemon=True)
    process.start()
    process.join()
"""


def test_a_process_ends_when_the_one_that_started_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        _, left = psutil.wait_procs([child], timeout=60)
        for each in left:
            each.kill()
    assert left == []
