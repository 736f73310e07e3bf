"""A disk that is soon full; a run as it was half way."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glus.training.run_config import RunConfig


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    yield place
    # Lazily: torch keeps the file that it could not write open until its writer is collected.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def half_way(trained: RunConfig, tmp_path: Path) -> RunConfig:
    """The run of four steps that a file's `trained` made, as it was after its second step."""
    out = tmp_path / "run"
    shutil.copytree(trained.out, out)
    shutil.rmtree(out / "checkpoints" / "step-000004")
    (out / "checkpoints" / "latest").write_text("step-000002", encoding="utf-8")
    return replace(trained, out=str(out))
