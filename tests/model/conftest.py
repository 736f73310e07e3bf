"""The recorded reference outputs, and a tiny model."""

from pathlib import Path

import pytest

from .reference import CARRIED, Recording


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reference-fixture",
        metavar="FOLDER",
        default=str(CARRIED),
        help="recorded outputs of the reference (expected.json, expected.npz) to hold the model against",
    )


@pytest.fixture(scope="session")
def recording(pytestconfig: pytest.Config) -> Recording:
    """The recording named by --reference-fixture, by default the one in tests/data/parity."""
    # The option is unknown where this folder was not named on the command line.
    folder = Path(pytestconfig.getoption("--reference-fixture", default=str(CARRIED)))
    absent = [name for name in ("expected.json", "expected.npz") if not (folder / name).is_file()]
    if absent:
        pytest.fail(f"--reference-fixture {folder}: no {' and no '.join(absent)} there")
    return Recording.open(folder)
