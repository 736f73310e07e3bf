"""Evaluations that are runs of their own in MLflow: found by their tags, recorded once, below the training's run."""

import shutil
from pathlib import Path

import pytest

from glus.training.tracking.evaluation_record import record_apart
from glus.training.tracking.recorded_runs import find_runs, find_tagged_runs, recorded_file
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig

pytestmark = pytest.mark.slow


@pytest.fixture
def config(fresh_database: Path, tmp_path: Path) -> TrackingConfig:
    shutil.copy(fresh_database, tmp_path / "mlflow.db")
    return TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="tests")


def test_each_way_of_asking_is_a_run_and_recording_again_makes_no_other(config: TrackingConfig, tmp_path: Path) -> None:
    with Tracker.start(config, "trained", {}) as tracker:
        pass
    scores = tmp_path / "scores.json"
    tags = {"study": "s", "arm": "all"}
    for way, value in (("usual", 50.0), ("later", 40.0), ("usual", 51.0)):
        scores.write_text(str(value), encoding="utf-8")
        metrics = {"eval/overall/JF": value}
        record_apart(config, way, tags | {"evaluation": way}, metrics, 7, [scores], tracker.run_id)
    found = find_tagged_runs(config, tags)
    assert [(run.tags["evaluation"], run.metrics["eval/overall/JF"], run.status) for run in found] == [
        ("usual", 51.0, "FINISHED"),
        ("later", 40.0, "FINISHED"),
    ]
    file = recorded_file(config, found[0].run_id, "evaluation/scores.json", tmp_path)
    assert file is not None and file.read_text(encoding="utf-8") == "51.0"
    assert find_tagged_runs(config, tags | {"arm": "other"}) == []
    assert len(find_runs(config)) == 3 and all(run.history["eval/overall/JF"][0][0] == 7 for run in found)
