"""Type checking sees through glus.*: an error against one of our own signatures is found, as `make types` runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROBE = """
from glus.training.tracking.delivery import Undelivered

count: {kind} = Undelivered(1, None).count
"""


@pytest.mark.parametrize(("kind", "passes"), [("int", True), ("str", False)])
def test_a_type_error_against_our_own_code_is_found(tmp_path: Path, kind: str, passes: bool) -> None:
    (tmp_path / "probe.py").write_text(PROBE.format(kind=kind), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "probe.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if passes:
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert 'has type "int", variable has type "str"' in done.stdout
