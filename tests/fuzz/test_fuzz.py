"""Every file that a command reads, broken in thousands of ways: exit code 2 with one line, or 0, never anything else.

No traceback, no more than 5 s of processor time, no more than 1 GB. More inputs, drawn from another seed:
GLUS_FUZZ=20000 GLUS_FUZZ_SEED=1 pytest -o timeout=7200 tests/fuzz
"""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

INPUTS = int(os.environ.get("GLUS_FUZZ", "2000"))
SEED = os.environ.get("GLUS_FUZZ_SEED", "0")


GROUPS = ("data", "records")


@pytest.mark.timeout(max(900, INPUTS))
def test_broken_files_end_a_command_in_one_line(tiny_demo: Path, tmp_path: Path, warm_python: Path) -> None:
    share = round(INPUTS / len(GROUPS))
    # Both at once: each takes about a minute of one core.
    with ExitStack() as opened:
        started = [_started(warm_python, group, share, tiny_demo, tmp_path, opened) for group in GROUPS]
        codes = [process.wait() for process in started]
    for group, code in zip(GROUPS, codes, strict=True):
        folder, log = tmp_path / group, (tmp_path / f"{group}.log").read_text(errors="replace")
        record = folder / "failures.json"
        failures = json.loads(record.read_text()) if record.is_file() else []
        shown = "\n\n".join(f"{each['target']}, {each['file']}, {each['number']}:\n{each['text']}" for each in failures)
        assert not failures, f"{len(failures)} kinds of failures\n{shown}"
        last = (folder / "current").read_bytes()[:300] if (folder / "current").is_file() else b""
        assert code == 0, f"{group} ended with {code} at {last!r}\n{log[-3000:]}"
        assert int((folder / "done").read_text()) >= 0.9 * share, log


def _started(
    python: Path, group: str, share: int, demo: Path, place: Path, opened: ExitStack
) -> subprocess.Popen[bytes]:
    # -P: a bare `training` in the current folder would hide the one that sam2 brings.
    code = "import sys; sys.path.append(sys.argv.pop(1)); import tests.fuzz.worker as worker; sys.exit(worker.main())"
    words = [str(python), "-P", "-c", code, str(Path(__file__).parents[2]), group, str(share), SEED, str(demo)]
    log = os.open(place / f"{group}.log", os.O_WRONLY | os.O_CREAT)
    opened.callback(os.close, log)
    process = opened.enter_context(subprocess.Popen([*words, str(place / group)], stdout=log, stderr=log))
    opened.callback(process.kill)
    return process
