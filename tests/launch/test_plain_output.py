"""Names and texts from outside reach no terminal as escape sequences or as rich's markup."""

import logging
import shutil
from pathlib import Path

import pytest

from glus.launch import quiet
from glus.launch.cli import main
from glus.training.checkpoints.integrity import DIGESTS
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig
from tests.untrained import write_checkpoint

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


@pytest.mark.parametrize("command", ["segment", "evaluate", "export"])
def test_notes_on_a_checkpoint_with_a_hostile_name_are_plain(
    command: str, tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tiny_demo, tmp_path / "\x1b[2J run")
    shutil.rmtree(checkpoint / DIGESTS)
    words = {
        "segment": [f"{tmp_path}/no video", "the dog", f"weights={checkpoint}"],
        "evaluate": [f"checkpoint={checkpoint}", f"shards={tmp_path}/none"],
        "export": [f"checkpoint={checkpoint}"],
    }
    code = main([command, *words[command], f"out={tmp_path}/out"])
    shown = capsys.readouterr()
    assert code == (0 if command == "export" else 2)
    assert f"no {DIGESTS}/ there" in shown.out and "\x1b" not in shown.out + shown.err
