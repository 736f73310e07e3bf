"""`glus demo-motion` in a short form that learns nothing: every stage on real components, then the summary."""

import json
from pathlib import Path

import pytest

from glus.demo.demo_motion import STAGES, TWIN_SPLIT
from glus.launch import cli

pytestmark = [pytest.mark.slow, pytest.mark.ranks, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]

SHORT = (
    "data_changes=[train_videos=2, valid_videos=1, twin_videos=1, world.frames=6, world.width=48, world.height=48]",
    "encoder_changes=[training.steps=2]",
    "train_changes=[steps=1, ranks=1, global_batch_size=4, engine.micro_batch_size=4]",
    f"splits=[{TWIN_SPLIT}]",
)


def test_the_short_form_ends_with_twins_and_j_and_f_by_kind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["demo-motion", f"out={tmp_path}/demo", *SHORT]
    assert cli.main(words) == 0
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text(encoding="utf-8"))
    evaluated = [stage.name for stage in STAGES if stage.evaluated]
    assert list(summary["object_accuracy_of_twins"]) == evaluated == list(summary["jf_by_kind"])
    assert all(0 <= value <= 100 for value in summary["object_accuracy_of_twins"].values())
    assert len(summary["stage_seconds"]) == 3 + len(STAGES) + len(evaluated)
    assert "twins, object accuracy" in capfd.readouterr().out
    assert cli.main(words) == 0
    assert capfd.readouterr().out.count("done before") == 3 + len(STAGES) + len(evaluated)
