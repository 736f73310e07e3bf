"""A step that hangs: the stacks of all threads are written, and the process ends."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from glus.common.errors import TrainingError
from glus.training.stopping.watchdog import HUNG, Watchdog

pytestmark = pytest.mark.slow

HANGS = """
import sys, threading, time
from pathlib import Path
from glus.training.stopping import watchdog
watchdog.GRACE = 0.2
def step_that_hangs():
    {hang}
with watchdog.Watchdog(Path(sys.argv[1]), 3, 0.5 / 60) as dog:
    dog.beat()
    step_that_hangs()
"""


def test_a_step_that_hangs_is_ended_with_its_stack(tmp_path: Path) -> None:
    code = HANGS.format(hang="threading.Lock().acquire() and threading.Event().wait()")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == HUNG, done.stderr
    assert f"rank 3 did nothing for 0.5 s (hang_minutes): what each of its threads was at is in {tmp_path}/" in (
        done.stdout
    )
    stacks = (tmp_path / "stacks" / "rank-3.txt").read_text(encoding="utf-8")
    assert "step_that_hangs" in stacks and "_watch" in stacks


def test_a_run_that_moves_on_leaves_nothing(tmp_path: Path) -> None:
    with Watchdog(tmp_path, 0, 2 / 60) as dog:
        for _ in range(11):
            time.sleep(0.2)
            dog.beat()
    assert not (tmp_path / "stacks").exists()
    with Watchdog(tmp_path / "none", 0, 0) as dog:
        dog.beat()
    assert not (tmp_path / "none").exists()


def test_a_place_that_cannot_be_written_is_told() -> None:
    with pytest.raises(TrainingError, match="cannot be written .*: choose another `out`"):
        with Watchdog(Path("/dev/null"), 0, 1):
            pass
