"""Every file that a command reads, broken in thousands of ways: exit code 2 with one line, or 0, never anything else.

No traceback, no more than 5 s of processor time, no more than 1 GB. More inputs, drawn from another seed:
GLUS_FUZZ=20000 GLUS_FUZZ_SEED=1 pytest -o timeout=7200 tests/fuzz
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

INPUTS = int(os.environ.get("GLUS_FUZZ", "2000"))
SEED = os.environ.get("GLUS_FUZZ_SEED", "0")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("group", "share"), [("data", 0.5), ("records", 0.5)])
def test_broken_files_end_a_command_in_one_line(group: str, share: float, tiny_demo: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    # -P: a bare `training` in the current folder would hide the one that sam2 brings.
    words = [
        sys.executable,
        "-P",
        "-c",
        "import sys; sys.path.append(sys.argv.pop(1)); import tests.fuzz.worker as w; w.main()",
    ]
    words += [str(root), group, str(round(INPUTS * share)), SEED, str(tiny_demo), str(tmp_path / "fuzz")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    record = tmp_path / "fuzz" / "failures.json"
    failures = json.loads(record.read_text()) if record.is_file() else []
    shown = "\n\n".join(f"{each['target']}, {each['file']}, {each['number']}:\n{each['text']}" for each in failures)
    assert not failures, f"{len(failures)} kinds of failures\n{shown}"
    current = tmp_path / "fuzz" / "current"
    last = current.read_bytes()[:300] if current.is_file() else b""
    assert done.returncode == 0, f"ended with {done.returncode} at {last!r}\n{done.stderr[-3000:]}"
    assert int((tmp_path / "fuzz" / "done").read_text()) >= 0.9 * round(INPUTS * share), done.stdout
