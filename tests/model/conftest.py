"""The recorded reference outputs, and a tiny model."""

import os
from pathlib import Path

import pytest

from . import videolisa_reference
from .reference import CARRIED, Recording
from .videolisa_reference import VideoLisaRecording


@pytest.fixture(scope="session")
def recording(pytestconfig: pytest.Config) -> Recording:
    """The recording named by --reference-fixture, by default the one in tests/data/parity."""
    folder = Path(pytestconfig.getoption("--reference-fixture") or CARRIED)
    absent = [name for name in ("expected.json", "expected.npz") if not (folder / name).is_file()]
    if absent:
        pytest.fail(f"--reference-fixture {folder}: no {' and no '.join(absent)} there")
    return Recording.open(folder)


@pytest.fixture(scope="session")
def videolisa(pytestconfig: pytest.Config) -> VideoLisaRecording:
    """The recording named by --videolisa-fixture, by default the one in tests/data/parity_videolisa."""
    folder = Path(pytestconfig.getoption("--videolisa-fixture") or videolisa_reference.CARRIED).expanduser()
    absent = [name for name in ("expected.json", "expected.npz") if not (folder / name).is_file()]
    if absent:
        pytest.fail(f"--videolisa-fixture {folder}: no {' and no '.join(absent)} there")
    return VideoLisaRecording.open(folder)


@pytest.fixture
def shared_parity() -> Path:
    """The folder with the recorded model's own files; the test skips where it is absent."""
    shared = Path(os.environ.get("GLUS_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (shared / "parity").is_dir():
        pytest.skip(f"the recorded model is not at {shared}/parity (set GLUS_SHARED)")
    return shared / "parity"
