"""Names and texts from outside reach no terminal as escape sequences or as rich's markup."""

import logging
from pathlib import Path

import pytest

from glus.launch import quiet
from glus.launch.cli import main
from glus.training.tracking.tracking import Tracker, TrackingConfig

pytestmark = pytest.mark.slow

HOSTILE = "[red]x[/] [/y] \x1b[2J\x9b31m\x07"


def test_runs_of_a_shared_server_are_compared_by_their_names_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name in ("plain", HOSTILE):
        with Tracker.start(TrackingConfig(uri=uri), name, {"rate": name}) as tracker:
            tracker.log_metrics({"loss": 1.0}, 1)
    assert main(["compare", "plain", HOSTILE, f"tracking.uri={uri}", f"out={tmp_path}/pages"]) == 0
    shown = capsys.readouterr()
    assert "[red]x[/] [/y]" in " ".join(shown.out.split())
    assert not set("\x1b\x9b\x07") & set(shown.out + shown.err)


def test_a_warning_with_a_hostile_name_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    quiet.quiet_libraries()
    assert logging.lastResort is not None
    record = logging.LogRecord("glus", logging.WARNING, "f", 1, "video %s is bad", (HOSTILE,), None)
    logging.lastResort.handle(record)
    assert capsys.readouterr().err == "video [red]x[/] [/y] \\x1b[2J\\x9b31m\\x07 is bad\n"
