"""Benchmarks that wait for a GPU run here at small sizes, so that they work on the day when there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_gpu_day_runs_its_rows_and_tells_what_it_left_out(tmp_path: Path) -> None:
    run(str(BENCHMARKS / "gpu_day.py"), str(tmp_path), "--rows", "step 7B, stage 2", "--minutes", "4")
    found = json.loads((tmp_path / "results.json").read_text())
    step = found["rows"]["step 7B, stage 2"]
    assert step["code"] == 0 and step["step_seconds"] > 0 and step["trained"] > 0
    assert found["machine"]["device"] == "cpu"
    run(str(BENCHMARKS / "gpu_day.py"), str(tmp_path), "--rows", "inference", "--minutes", "0")
    skipped = json.loads((tmp_path / "results.json").read_text())["rows"]["inference 7B"]
    assert skipped == {"code": None, "skipped": "no time was left"}


@pytest.mark.slow
def test_the_step_of_inference_at_7b_runs_small() -> None:
    printed = run(str(BENCHMARKS / "inference_7b.py"), "--frames", "6", "--expressions", "2")
    [row] = json.loads(printed)["rows"]
    assert row["expressions"] == 2 and row["frame_seconds"] > 0
