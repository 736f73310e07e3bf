"""`glus demo-videolisa` in a short form that learns nothing: every stage on real components, then the summary."""

import json
from pathlib import Path

import pytest

from glus.launch import cli

pytestmark = [pytest.mark.slow, pytest.mark.ranks, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]

SHORT = (
    "data_changes=[train_videos=2, valid_videos=1, train_images=3, valid_images=1, world.frames=4]",
    "encoder_changes=[training.steps=2]",
    "train_changes=[steps=1, ranks=1, global_batch_size=6]",
    "splits=[mevis/valid_u]",
)


def test_the_short_form_ends_with_j_and_f_by_kind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["demo-videolisa", f"out={tmp_path}/demo", f"glus={tmp_path}/none.json", *SHORT]
    assert cli.main(words) == 0
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["jf_by_kind"]) >= {"all", "motion", "look"} and "glus_jf_by_kind" not in summary
    assert set(summary["stage_seconds"]) == {"demo data", "prepare", "image encoder", "train", "evaluate"}
    asked = json.loads((tmp_path / "demo" / "eval" / "predictions.json").read_text(encoding="utf-8"))["inference"]
    assert asked["method"] == "videolisa"
    assert "VideoLISA" in capfd.readouterr().out
    # Finished stages are skipped, and the other method's scores are read where they are there.
    words[2] = f"glus={tmp_path}/demo/eval/scores.json"
    assert cli.main(words) == 0
    assert capfd.readouterr().out.count("done before") == 5
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text(encoding="utf-8"))
    assert summary["glus_jf_by_kind"] == summary["jf_by_kind"]
