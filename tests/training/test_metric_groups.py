"""Metrics in groups where MLflow's page sorts them, and by their plain names everywhere else."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from glus.training.tracking.metric_groups import plain_name, shown_name
from glus.training.tracking.metrics_file import NAME_PATTERN, MetricsFile
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig

GROUPS = ("JF/", "Loss/", "cost/", "train/")
PLAIN = {
    "total": "Loss/total",
    "words_of_tower": "Loss/words_of_tower",
    "eval/mevis/valid_u/JF": "JF/mevis:valid_u",
    "eval/key_frames/overall/JF": "JF/key_frames:overall",
    "eval/overall/JF_low": "eval/overall/JF_low",
    "system/node-0/cpu_percent": "system/node-0/cpu_percent",
    "mfu": "cost/mfu",
    "learning_rate": "train/learning_rate",
}


def test_jf_and_losses_come_first() -> None:
    assert {name: shown_name(name) for name in PLAIN} == PLAIN
    groups = [name.rpartition("/")[0] for name in sorted(PLAIN.values())]
    assert list(dict.fromkeys(groups)) == ["JF", "Loss", "cost", "eval/overall", "system/node-0", "train"]


names = st.from_regex(NAME_PATTERN, fullmatch=True) | st.builds("eval/{}/JF".format, st.text("ab:/._", min_size=1))


@given(names.filter(lambda name: not name.startswith(GROUPS)))
def test_every_name_comes_back_and_a_plain_one_stays(name: str) -> None:
    assert plain_name(shown_name(name)) == name == plain_name(name)
    assert NAME_PATTERN.fullmatch(shown_name(name))


def test_a_run_of_an_earlier_version_goes_on_under_the_names_that_it_had(fresh_database: Path, tmp_path: Path) -> None:
    """Its metrics have plain names in MLflow: what is recorded is not sent again, and is read as one curve."""
    from mlflow.tracking import MlflowClient

    (tmp_path / "mlflow.db").write_bytes(fresh_database.read_bytes())
    config = TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db", "tests")
    with Tracker.start(config, "old", {}) as tracker:
        pass
    client = MlflowClient(config.uri)
    for step in (1, 2):
        client.log_metric(tracker.run_id, "total", 1.0 / step, step=step)
    client.log_metric(tracker.run_id, "eval/overall/JF", 40.0, step=2)
    kept = MetricsFile(tmp_path / "metrics.jsonl", 2, [("total", 1.0, 1_000, 1), ("total", 0.5, 1_000, 2)])
    with Tracker.start(config, "old", {}, run_id=tracker.run_id, metrics=kept) as again:
        again.log_metrics({"total": 0.25}, 4)
    [run] = find_runs(config, ["old"])
    assert run.history == {"total": ((1, 1.0), (2, 0.5), (4, 0.25)), "eval/overall/JF": ((2, 40.0),)}
    shown = client.get_run(tracker.run_id).data.metrics
    assert shown == {"total": 0.5, "Loss/total": 0.25, "eval/overall/JF": 40.0}
    assert '"total": 0.25' in (tmp_path / "metrics.jsonl").read_text("utf-8")
