"""Records of earlier runs that are pipes, links to nothing or endless files: refused by name, never waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from glus.common.errors import UserError
from glus.demo.synthetic.demo_data import RECORD as DEMO_DATA
from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.launch.ranks.attempts import ATTEMPTS, DONE, decide
from glus.launch.stages import Stages
from glus.training.run_config import RunConfig
from glus.training.stopping.stopping import STOP, STOPPED, Cause, StopFlag, read_stopped
from glus.training.tracking.run_record import FILE, located


def pipe(place: Path) -> None:
    os.mkfifo(place)


def link_to_nothing(place: Path) -> None:
    place.symlink_to(place.parent / "gone")


def file_of_holes(place: Path) -> None:
    place.touch()
    os.truncate(place, 2**40)


ODD = [pipe, link_to_nothing, file_of_holes]


@pytest.fixture
def run(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> RunConfig:
    """A run whose folder is there."""
    config = tiny_run(tmp_path / "run", "steps=10")
    Path(config.out).mkdir()
    return config


@pytest.mark.timeout(20)
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        (STOPPED, lambda run: read_stopped(Path(run.out))),
        (ATTEMPTS, lambda run: decide(run, 1, 3)),
        (FILE, lambda run: located(run.tracking, Path(run.out))),
        ("stages.json", lambda run: Stages(Path(run.out), 1)),
        (DEMO_DATA, lambda run: write_demo_data(DemoDataConfig(Path(run.out)))),
    ],
    ids=["stopped", "attempts", "tracking", "stages", "demo data"],
)
def test_an_odd_record_is_refused_by_name(
    name: str, read: Callable[[RunConfig], object], odd: Callable[[Path], None], run: RunConfig
) -> None:
    odd(Path(run.out) / name)
    with pytest.raises(UserError, match=name):
        read(run)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_stop_file_stops_as_an_empty_one_does(odd: Callable[[Path], None], run: RunConfig) -> None:
    odd(Path(run.out) / STOP)
    with StopFlag().watching(Path(run.out)) as flag:
        assert flag.cause == Cause.STOP_FILE


def test_without_records_nothing_is_refused(run: RunConfig) -> None:
    assert read_stopped(Path(run.out)) is None and located(run.tracking, Path(run.out)) == run.tracking
    assert decide(run, 1, 3).code != DONE
