"""Metrics come first, their record second: after a move it follows the project, and one that fails hides nothing."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glus.launch import cli
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.tracking_place import TrackingConfig
from glus.training.train import train

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_a_moved_project_is_recorded_where_it_is_and_a_failed_record_hides_no_metric(
    tiny_run: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    config = tiny_run(old / "run", "steps=0")
    train(config, Rank(0, 0, 1))
    old.rename(new)
    words = ["evaluate", f"checkpoint={new}/run", f"shards={config.shards}", f"out={new}/eval", "processes=1"]
    words += ["report=false"]
    database, scores, done = new / "mlflow.db", new / "eval" / "scores.json", threading.Event()

    def lock_after_scoring() -> None:
        while not scores.is_file() and not done.is_set():
            time.sleep(0.001)
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        done.wait()
        other.close()

    thread = threading.Thread(target=lock_after_scoring)
    thread.start()
    try:
        capfd.readouterr()
        code = cli.main(words)
    finally:
        done.set()
        thread.join()
    told = capfd.readouterr()
    assert code == 2 and scores.is_file()
    assert "MeViS valid_u" in told.out and f"written: {scores}" in told.out
    error = [line for line in told.err.splitlines() if line.startswith("glus evaluate: ")]
    assert len(error) == 1 and f"the metrics are in {scores}, but not recorded" in error[0] and "locked" in error[0]

    assert cli.main(words) == 0
    assert not old.exists()
    [run] = find_runs(TrackingConfig(f"sqlite:///{database}", config.tracking.experiment))
    assert "eval/overall/JF" in run.metrics
    kept = new / "mlartifacts" / run.run_id / "artifacts" / "evaluation" / "step-000000"
    assert (kept / "scores.json").read_bytes() == scores.read_bytes()


def test_artifacts_that_cannot_be_written_are_found_before_anything_is_predicted(
    answering_run: Path, tiny_demo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    shutil.copytree(answering_run.parent, project)
    shutil.rmtree(project / "mlartifacts", ignore_errors=True)
    (project / "mlartifacts").write_text("in the way", encoding="utf-8")
    words = ["evaluate", f"checkpoint={project}/run", f"shards={tiny_demo}/shards", f"out={tmp_path}/eval"]
    uri = f"tracking.uri=sqlite:///{project}/mlflow.db"
    with sqlite3.connect(project / "mlflow.db") as database:
        moved = (str(answering_run.parent), str(project))
        database.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", moved)
    capfd.readouterr()
    assert cli.main([*words, uri, "processes=1"]) == 2
    told = capfd.readouterr().err
    assert "cannot be written" in told and "record=false" in told and not (tmp_path / "eval").exists()
