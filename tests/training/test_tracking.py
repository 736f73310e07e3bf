"""Runs, metrics, artifacts and their errors on a real MLflow: SQLite files, and a server on loopback."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from glus.common.errors import TrainingError
from glus.training.tracking.evaluation_record import log_evaluation
from glus.training.tracking.metrics_file import MetricsFile
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.tracking import Tracker, flatten
from glus.training.tracking.tracking_place import TrackingConfig
from tests.training.mlflow_server import mlflow_server, serving

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass(frozen=True)
class Run:
    seed: int = 1
    out: Path = Path("build/run")
    optimizer: Optimizer = field(default_factory=Optimizer)


@pytest.fixture
def config(fresh_database: Path, tmp_path: Path) -> TrackingConfig:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    shutil.copy(fresh_database, folder / "mlflow.db")
    return TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="tests")


def test_mlflows_page_shows_a_training_with_its_command_and_commit(config: TrackingConfig) -> None:
    with Tracker.start(config, "a run", Run(), tags={"mlflow.note.content": "what it is"}) as tracker:
        pass
    client = MlflowClient(config.uri)
    run, experiment = client.get_run(tracker.run_id), client.get_experiment_by_name("tests")
    assert experiment is not None and experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    shown = {name: run.data.tags[f"mlflow.{name}"] for name in ("source.name", "source.type", "note.content")}
    assert shown == {"source.name": "glus train", "source.type": "LOCAL", "note.content": "what it is"}
    assert run.data.tags.get("mlflow.source.git.commit") == run.data.tags.get("code.commit")
    client.set_experiment_tag(experiment.experiment_id, "mlflow.experimentKind", "finetuning")
    with Tracker.start(config, "another", Run()):
        pass
    kept = client.get_experiment_by_name("tests")
    assert kept is not None and kept.tags["mlflow.experimentKind"] == "finetuning", "a choice of the user stays"


def test_an_experiment_of_an_earlier_version_becomes_one_of_trainings(config: TrackingConfig) -> None:
    MlflowClient(config.uri).create_experiment("tests")
    with Tracker.start(config, "a run", Run()):
        pass
    experiment = MlflowClient(config.uri).get_experiment_by_name("tests")
    assert experiment is not None and experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_run_is_read_back_as_it_was_recorded(config: TrackingConfig, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello", encoding="utf-8")
    with Tracker.start(config, "a run", Run(), tags={"control": "text"}) as tracker:
        for step in range(30):
            tracker.log_metrics({"loss": 30.0 - step, "lr": 1e-3}, step)
        tracker.log_text("seed: 1\n", "config.yaml")
        tracker.log_artifact(note, "notes")
        tracker.log_dataset("mevis/train", "f" * 64, {"videos": 12, "expressions": 40})
        tracker.set_tags({"best": "yes"})
    [run] = find_runs(config, ["a run"])
    assert run.run_id == tracker.run_id and run.status == "FINISHED"
    assert run.params["optimizer.learning_rate"] == "0.0003" and run.params["seed"] == "1"
    assert json.loads(run.params["optimizer.betas"]) == [0.9, 0.95]
    assert run.history["loss"] == tuple((step, 30.0 - step) for step in range(30))
    assert run.metrics["loss"] == 1.0
    assert run.tags["control"] == "text" and run.tags["best"] == "yes" and run.tags["code.version"]
    artifacts = {path.name for path in tmp_path.rglob("mlartifacts/**/*") if path.is_file()}
    assert artifacts == {"config.yaml", "note.txt"}


def test_data_is_linked_as_an_mlflow_dataset_input(config: TrackingConfig) -> None:
    from mlflow.tracking import MlflowClient

    with Tracker.start(config, "with data", {}) as tracker:
        tracker.log_dataset("mevis/train", "abc" * 20, {"videos": 12})
    [linked] = MlflowClient(config.uri).get_run(tracker.run_id).inputs.dataset_inputs
    assert linked.dataset.name == "mevis/train"
    assert json.loads(linked.dataset.source)["fingerprint"] == "abc" * 20
    assert json.loads(linked.dataset.profile) == {"videos": 12}


def test_a_restart_goes_on_in_the_same_run_and_tells_changed_parameters(config: TrackingConfig) -> None:
    with Tracker.start(config, "long", {"steps": 10}) as tracker:
        tracker.log_metrics({"loss": 2.0}, 0)
    with Tracker.start(config, "long", {"steps": 20, "seed": 3}, run_id=tracker.run_id) as again:
        again.log_metrics({"loss": 1.0}, 1)
    [run] = find_runs(config, ["long"])
    assert again.run_id == tracker.run_id
    assert run.history["loss"] == ((0, 2.0), (1, 1.0))
    assert run.params == {"steps": "10", "seed": "3"}
    assert run.tags["changed.steps"] == "20"


def test_a_run_that_breaks_is_recorded_as_failed_and_keeps_its_own_error(config: TrackingConfig) -> None:
    with pytest.raises(ZeroDivisionError), Tracker.start(config, "broken", {}):
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), Tracker.start(config, "stopped", {}):
        raise KeyboardInterrupt
    assert [run.status for run in find_runs(config, ["broken", "stopped"])] == ["FAILED", "KILLED"]


def test_figures_are_added_to_a_run_that_has_ended(config: TrackingConfig) -> None:
    with Tracker.start(config, "scored", {}) as tracker:
        pass
    log_evaluation(config, tracker.run_id, {"mevis/valid_u/j_and_f": 71.5}, 100, "step-000100", {}, [])
    log_evaluation(config, tracker.run_id, {"mevis/valid_u/j_and_f": 72.5}, 200, "step-000200", {}, [])
    [run] = find_runs(config, [tracker.run_id])
    assert run.metrics == {"mevis/valid_u/j_and_f": 72.5}
    assert run.history["mevis/valid_u/j_and_f"] == ((100, 71.5), (200, 72.5))
    assert run.status == "FINISHED"


def test_sending_a_batch_twice_records_it_once(config: TrackingConfig) -> None:
    from mlflow.entities import Metric

    with Tracker.start(config, "twice", {}) as tracker:
        batch = [Metric("loss", 1.0, 1000, step) for step in range(3)]
        tracker._send(batch)
        tracker._send(batch)
    [run] = find_runs(config, ["twice"])
    assert len(run.history["loss"]) == 3


def test_runs_come_in_the_order_asked_for(config: TrackingConfig) -> None:
    for name in ("one", "two"):
        with Tracker.start(config, name, {}):
            pass
    assert [run.name for run in find_runs(config, ["two", "one"])] == ["two", "one"]
    assert [run.name for run in find_runs(config)] == ["one", "two"]


def test_an_unknown_run_is_refused_with_the_names_there_are(config: TrackingConfig) -> None:
    with Tracker.start(config, "glus_s", {}):
        pass
    with pytest.raises(TrainingError, match="no run is named 'glus_a' in experiment 'tests'.*the runs are: glus_s"):
        find_runs(config, ["glus_a"])


def test_a_name_that_two_runs_have_is_refused_with_their_ids(config: TrackingConfig) -> None:
    ids = []
    for _ in range(2):
        with Tracker.start(config, "same", {}) as tracker:
            ids.append(tracker.run_id)
    with pytest.raises(TrainingError, match=f"2 runs are named 'same'.*{ids[0]}, {ids[1]}"):
        find_runs(config, ["same"])
    assert find_runs(config, [ids[1]])[0].run_id == ids[1]


def test_a_run_id_that_does_not_exist_is_refused(config: TrackingConfig) -> None:
    with pytest.raises(TrainingError, match="0123456789abcdef0123456789abcdef.*not found"):
        Tracker.start(config, "gone", {}, run_id="0123456789abcdef0123456789abcdef")


def test_a_metric_name_that_mlflow_refuses_is_told_at_once(config: TrackingConfig) -> None:
    with (
        pytest.raises(TrainingError, match="'J&F' cannot be the name of a metric"),
        Tracker.start(config, "bad", {}) as tracker,
    ):
        tracker.log_metrics({"J&F": 1.0}, 0)


def test_logging_a_step_takes_microseconds(config: TrackingConfig) -> None:
    with Tracker.start(config, "quick", {}) as tracker:
        start = time.perf_counter()
        for step in range(200):
            tracker.log_metrics({f"metric_{index}": float(step) for index in range(10)}, step)
        seconds_a_step = (time.perf_counter() - start) / 200
    assert seconds_a_step < 0.005
    assert len(find_runs(config, ["quick"])[0].history["metric_9"]) == 200


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:9", "no MLflow server can be reached at http://127.0.0.1:9"),
        ("http://me:secret@127.0.0.1:9", r"http://me:\*\*\*@127.0.0.1:9"),
        ("htp://host", "'htp://host' is no place for MLflow records; write sqlite:///FILE.db or"),
        ("mlflow.db", "'mlflow.db' is no place for MLflow records"),
        ("sqlite://", "names no file; write sqlite:///relative.db"),
        ("sqlite:////proc/none/mlflow.db", "MLflow at sqlite:////proc/none/mlflow.db: .*No such file"),
    ],
)
def test_a_wrong_uri_is_one_quick_message(uri: str, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(TrainingError, match=message):
        Tracker.start(TrackingConfig(uri=uri), "run", {})
    assert time.perf_counter() - start < 10


def test_a_server_that_is_not_mlflow_is_told(tmp_path: Path) -> None:
    with serving([sys.executable, "-m", "http.server", "--bind", "127.0.0.1"], tmp_path, health="/") as uri:
        with pytest.raises(TrainingError, match="answers, but not as an MLflow server does .status 404"):
            Tracker.start(TrackingConfig(uri=uri), "run", {})


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_text("not a database, but long enough to be looked at\n" * 100, encoding="utf-8")
    with pytest.raises(TrainingError, match="file is not a database"):
        Tracker.start(TrackingConfig(uri=f"sqlite:///{file}"), "run", {})


def test_reading_makes_no_database(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with pytest.raises(TrainingError, match="no such MLflow file"):
        find_runs(TrackingConfig(uri=f"sqlite:///{file}"), ["a"])
    assert not file.exists()


def test_the_first_run_in_a_new_file_is_silent(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom glus.training.tracking.tracking import Tracker\n"
        "from glus.training.tracking.tracking_place import TrackingConfig\n"
        "with Tracker.start(TrackingConfig(uri=sys.argv[1]), 'run', {'a': 1}) as tracker:\n"
        "    tracker.log_metrics({'loss': 1.0}, 0)\n"
    )
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    done = subprocess.run([sys.executable, "-c", code, uri], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.timeout(240)  # the server imports for seconds, on a busy machine for a minute
def test_a_server_by_its_address(tmp_path: Path, fresh_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # more processes that nobody needs here
    shutil.copy(fresh_database, tmp_path / "server.db")
    with mlflow_server(tmp_path, tmp_path / "server.db") as uri:
        config = TrackingConfig(uri=uri, experiment="served")
        with Tracker.start(config, "remote", {"seed": 1}) as tracker:
            tracker.log_metrics({"loss": 1.0}, 0)
            tracker.log_text("seed: 1\n", "config.yaml")
        [run] = find_runs(config, ["remote"])
        assert run.metrics == {"loss": 1.0} and run.status == "FINISHED"
        lost = Tracker.start(config, "lost", {})
    lost.log_metrics({"loss": 1.0, "lr": 2.0}, 0)
    with pytest.raises(TrainingError, match="2 metric records of run .* did not reach MLflow at http://127"):
        lost.finish()


def test_nested_parameters_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": [1, "x"]}, "d": None}) == {"a.b": "1", "a.c": '[1, "x"]', "d": "None"}
    assert flatten(Run())["out"] == "build/run"


def test_patterns_as_keys_become_one_parameter() -> None:
    assert flatten({"factors": {"a.*": 2.0}, "plain": {"x": 1}}) == {"factors": '{"a.*": 2.0}', "plain.x": "1"}


def test_each_checkpoint_is_a_logged_model_once_with_its_figures_and_the_best_has_the_alias(
    config: TrackingConfig, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    with Tracker.start(config, "kept", {}) as tracker:
        for step in (300, 600, 300):
            tracker.log_checkpoint(tmp_path / f"step-{step:06d}", step)
    for step, figure, partial in ((300, 41.0, 0), (600, 40.0, 0), (600, 99.0, 1)):
        figures = {"eval/overall/JF": figure, "eval/partial": partial}
        log_evaluation(config, tracker.run_id, figures, step, f"step-{step:06d}", {}, [])
    client = MlflowClient(config.uri)
    experiment = client.get_experiment_by_name(config.experiment).experiment_id
    models = client.search_logged_models([experiment])
    assert sorted(model.tags["checkpoint"] for model in models) == ["step-000300", "step-000600"]
    assert all(model.source_run_id == tracker.run_id for model in models)
    figures = {model.tags["checkpoint"]: {each.key: each.value for each in model.metrics} for model in models}
    assert figures["step-000300"]["JF/overall"] == 41.0
    version = client.get_model_version_by_alias(config.experiment, "best")
    best = client.get_model_version(config.experiment, version.version)
    [model] = [each for each in models if best.source == each.artifact_location]
    assert model.tags["checkpoint"] == "step-000300"
    [run] = find_runs(config, ["kept"])
    assert [value for _, value in run.history["eval/overall/JF"]] == [41.0, 40.0, 99.0]


def test_a_step_is_recorded_once_however_often_it_is_taken(tmp_path: Path) -> None:
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    with Tracker.start(config, "run", {"rate": 1, "workers": 0}) as tracker:
        for step in (1, 2, 3):
            tracker.log_metrics({"loss": 0.5 * step}, step)
    # Killed after step 3, resumed from the checkpoint of step 1; of its records one had not reached MLflow.
    kept = MetricsFile(tmp_path / "metrics.jsonl", 1, [("norm", 7.0, 1_000, 1), ("loss", 0.5, 1_000, 1)])
    with Tracker.start(config, "run", {"rate": 1, "workers": 4}, run_id=tracker.run_id, metrics=kept) as again:
        for step in (2, 3, 4):
            again.log_metrics({"loss": 0.5 * step}, step)
    [record] = find_runs(config)
    assert record.history == {"loss": ((1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)), "norm": ((1, 7.0),)}
    # With another learning rate the steps are others: both are shown.
    with Tracker.start(config, "run", {"rate": 2, "workers": 4}, run_id=tracker.run_id) as changed:
        changed.log_metrics({"loss": 0.4}, 4)
    assert find_runs(config)[0].history["loss"][-2:] == ((4, 2.0), (4, 0.4))
