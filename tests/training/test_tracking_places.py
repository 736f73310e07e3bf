"""Where a run is recorded, after moves, from another folder, at the same time as others, and when it is gone."""

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from glus.common.errors import TrainingError
from glus.training.run_config import RunConfig
from glus.training.tracking.artifact_place import artifact_folder, check_writable
from glus.training.tracking.evaluation_record import check_recordable, log_evaluation
from glus.training.tracking.mlflow_client import MissingRun, check_reachable, reach
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.run_record import FILE, located, recorded_in, start_tracking
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig, address, check_place, check_sqlite, sqlite_uri

pytestmark = pytest.mark.slow

START = """
import sys, time
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig
import mlflow.tracking
while time.time() < float(sys.argv[2]):
    time.sleep(0.01)
with Tracker.start(TrackingConfig(sys.argv[1], "together"), sys.argv[3], {"seed": 1}) as tracker:
    tracker.log_metrics({"loss": 1.0}, 0)
"""


@pytest.fixture
def project(fresh_database: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(fresh_database, folder / "mlflow.db")
    return folder


@pytest.mark.timeout(400)  # MLflow makes its tables once, for seconds, on a busy machine for a minute
def test_three_that_begin_at_once_on_a_new_file_are_all_recorded(tmp_path: Path, warm_python: Path) -> None:
    subprocess.run([warm_python, "-c", ""], check=True)  # from here on it starts at once
    uri, when = f"sqlite:///{tmp_path}/new/mlflow.db", time.time() + 3
    started = [
        subprocess.Popen([warm_python, "-c", START, uri, str(when), f"run{number}"], stderr=subprocess.PIPE)
        for number in range(3)
    ]
    errors = [each.communicate(timeout=380)[1].decode() for each in started]
    assert [each.returncode for each in started] == [0, 0, 0], errors
    runs = find_runs(TrackingConfig(uri, "together"))
    assert sorted(run.name for run in runs) == ["run0", "run1", "run2"]
    assert all(run.metrics == {"loss": 1.0} and run.status == "FINISHED" for run in runs)


def test_a_locked_file_is_one_message_after_a_bounded_wait(project: Path) -> None:
    file = project / "mlflow.db"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    with pytest.raises(TrainingError, match=rf"{file} is locked by another program, for more than 1 s.*fuser -v"):
        check_sqlite(file, write=True, wait_s=1)
    with pytest.raises(TrainingError, match=r"mlflow.db is locked by another program, for more than 15 s"):
        reach(TrackingConfig(f"sqlite:///{file}"))
    assert time.monotonic() - start < 60
    other.execute("ROLLBACK")
    other.close()
    check_sqlite(file, write=True, wait_s=1)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(TrainingError, match="no regular file"):
        check_sqlite(tmp_path / "mlflow.db", write=True)


def test_a_moved_project_keeps_its_artifacts_with_it(project: Path) -> None:
    config = TrackingConfig(f"sqlite:///{project}/mlflow.db", "tests")
    with Tracker.start(config, "a run", {}) as tracker:
        tracker.log_text("a", "notes/a.txt")
    run = tracker.run_id
    new = project.with_name("moved")
    project.rename(new)
    config = TrackingConfig(f"sqlite:///{new}/mlflow.db", "tests")
    scores = new / "scores.json"
    scores.write_text("{}", encoding="utf-8")
    check_recordable(config, run)
    assert not project.exists()
    log_evaluation(config, run, {"eval/overall/JF": 50.0}, 3, "step-000003", {"a": "b"}, [scores])
    log_evaluation(
        config, run, {"eval/key_frames/overall/JF": 51.0}, 3, "step-000003", {"a": "c"}, [scores], "key_frames"
    )
    assert not project.exists()
    kept = {str(file.relative_to(new / "mlartifacts")) for file in new.rglob("mlartifacts/**/*") if file.is_file()}
    assert kept == {
        f"{run}/artifacts/notes/a.txt",
        f"{run}/artifacts/evaluation/step-000003/scores.json",
        f"{run}/artifacts/evaluation/step-000003/key_frames/scores.json",
    }
    [found] = find_runs(config, [run])
    assert found.metrics == {"eval/overall/JF": 50.0, "eval/key_frames/overall/JF": 51.0}
    tags = {name: value for name, value in found.tags.items() if name.startswith("evaluation.")}
    assert tags == {"evaluation.step-000003.a": "b", "evaluation.step-000003.key_frames.a": "c"}
    # A run that begins after the move, too.
    with Tracker.start(config, "another", {}) as tracker:
        tracker.log_text("b", "b.txt")
    assert (new / "mlartifacts" / tracker.run_id / "artifacts" / "b.txt").read_text() == "b"
    assert not project.exists()


def test_a_copied_project_writes_into_the_copy_and_a_moved_file_alone_to_where_the_artifacts_are(
    tmp_path: Path,
) -> None:
    old, new, run = tmp_path / "old", tmp_path / "new", "a" * 32
    own = old / "mlartifacts" / run / "artifacts"
    own.mkdir(parents=True)
    new.mkdir()
    assert artifact_folder(new / "mlflow.db", own.as_uri(), run) == own
    (new / "mlartifacts" / run).mkdir(parents=True)
    assert artifact_folder(new / "mlflow.db", own.as_uri(), run) == new / "mlartifacts" / run / "artifacts"
    assert artifact_folder(old / "mlflow.db", own.as_uri(), run) == own
    assert artifact_folder(None, "mlflow-artifacts:/1/a/artifacts", run) is None
    assert artifact_folder(None, "s3://bucket/1/a/artifacts", run) is None


def test_a_place_of_artifacts_that_is_gone_is_refused_and_not_made_again(tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "below" / "run" / "artifacts"
    with pytest.raises(TrainingError, match=r"artifacts of run x belong into .*is not there: was it moved"):
        check_writable(gone, "x")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"cannot be written"):
        check_writable(tmp_path / "file" / "run" / "artifacts", "x")
    assert not (tmp_path / "gone").exists()


def noted(out: Path, **fields: object) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text(json.dumps({"run": "r", "config": "c", **fields}), encoding="utf-8")
    return out


def test_a_relative_file_is_found_from_another_folder_and_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    old = tmp_path / "old"
    out = noted(old / "build" / "run", uri="sqlite:///build/mlflow.db", file="../mlflow.db", experiment="e")
    (old / "build" / "mlflow.db").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = TrackingConfig("sqlite:///build/mlflow.db", "e")
    assert check_place(located(config, out)) == old / "build" / "mlflow.db"
    old.rename(tmp_path / "new")
    out = tmp_path / "new" / "build" / "run"
    assert check_place(located(config, out)) == tmp_path / "new" / "build" / "mlflow.db"
    assert recorded_in(out) == TrackingConfig(sqlite_uri(tmp_path / "new" / "build" / "mlflow.db"), "e")
    # Another place is what the user says.
    other = TrackingConfig("http://127.0.0.1:9", "e")
    assert located(other, out) == other
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:8")
    assert address(located(TrackingConfig("", "e"), out)) == "http://127.0.0.1:8"
    assert recorded_in(elsewhere) is None


def test_mlflows_variable_names_the_place_where_the_config_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000/a")
    assert address(TrackingConfig()) == "http://host:5000/a"
    assert address(TrackingConfig("sqlite:///a.db")) == "sqlite:///a.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert address(TrackingConfig()) == "sqlite:///build/mlflow.db"


def checkpoint(folder: Path, run: str) -> Path:
    state = {"step": 2, "seed": 0, "data_fingerprint": "f", "tracking_run": run, "code_version": "{}", "ranks": 1}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(state | {"format": 1}), encoding="utf-8")
    (folder / "unsent.json").write_text(json.dumps([["loss", 0.5, 1000, 2]]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("gone", ["run", "deleted", "file"])
def test_a_missing_run_is_refused_with_the_setting_that_begins_a_new_one(
    gone: str, project: Path, tmp_path: Path, tiny_run: Callable[..., RunConfig]
) -> None:
    from mlflow.tracking import MlflowClient

    file, out = project / "mlflow.db", tmp_path / "run"  # `tiny_run` puts a database next to it
    old = "0123456789abcdef0123456789abcdef"
    place = f"tracking.uri=sqlite:///{file}"
    if gone == "deleted":
        with Tracker.start(TrackingConfig(f"sqlite:///{file}", "tests"), "old", {}) as tracker:
            old = tracker.run_id
        MlflowClient(f"sqlite:///{file}").delete_run(old)
    if gone == "file":
        file.rename(project / "kept.db")
    plan, resumed = SimpleNamespace(splits=[]), checkpoint(project / "step-000002", old)
    asked = "the training goes on in that run.*tracking.on_missing_run=new"
    with pytest.raises(TrainingError, match=asked):
        start_tracking(tiny_run(out, place), plan, resumed)
    assert not out.exists() and file.exists() == (gone != "file")
    if gone == "file":
        shutil.copy(project / "kept.db", file)  # with its tables, which take seconds to make
    config = tiny_run(out, place, "tracking.on_missing_run=new")
    with start_tracking(config, plan, resumed) as first:
        pass
    [run] = find_runs(config.tracking, [first.run_id])
    assert run.tags["continues"] == old and run.history["loss"] == ((2, 0.5),)
    recorded = MlflowClient(f"sqlite:///{file}").get_run(first.run_id).data.tags
    assert recorded["mlflow.note.content"].startswith("4 steps of 4 videos from ")
    # Killed before its next checkpoint, the training goes on in the new run, whatever the setting is by then.
    for settings in (config, tiny_run(out, place)):
        with start_tracking(settings, plan, resumed) as again:
            assert again.run_id == first.run_id


def test_a_missing_file_is_a_missing_run_and_is_not_made(tmp_path: Path) -> None:
    config = TrackingConfig(f"sqlite:///{tmp_path}/none/mlflow.db")
    with pytest.raises(MissingRun, match="no such MLflow file"):
        Tracker.start(config, "run", {}, run_id="0" * 32)
    check_reachable(config)
    assert not list(tmp_path.iterdir())
