"""OUT/metrics.jsonl holds each step once, whatever a crash left, and brings to MLflow what a dead server missed."""

import json
import math
import shutil
from pathlib import Path

import pytest

from glus.common.errors import TrainingError
from glus.training.tracking.metrics_file import MetricsFile, Record
from glus.training.tracking.recorded_runs import find_runs
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import TrackingConfig


def written(file: Path, *steps: int) -> MetricsFile:
    metrics = MetricsFile(file, 0)
    for step in steps:
        metrics.append({"loss": step / 2, "rate": 0.1}, 1000 + step, step)
    return metrics


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    metrics = written(file, 1)
    metrics.append({"worst": math.inf, "low": -math.inf, "none": math.nan}, 5, 2)
    metrics.sync()
    assert [json.loads(line)["step"] for line in file.read_text(encoding="utf-8").splitlines()] == [1, 2]
    assert "NaN" not in file.read_text(encoding="utf-8").replace('"NaN"', "")
    records = MetricsFile(file, 2).records
    assert records[:4] == [
        ("loss", 0.5, 1001, 1), ("rate", 0.1, 1001, 1), ("worst", math.inf, 5, 2), ("low", -math.inf, 5, 2),
    ]  # fmt: skip
    assert math.isnan(records[4][1])


def test_steps_after_the_resumed_one_are_superseded(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    written(file, 1, 2, 3)
    again = MetricsFile(file, 1)
    assert file.read_bytes().count(b"\n") == 3, "reading changes nothing"
    again.begin()
    again.append({"loss": 9.0}, 2000, 2)
    assert [(record[0], record[3]) for record in MetricsFile(file, 5).records] == [
        ("loss", 1), ("rate", 1), ("loss", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rest",
    [b'{"step": 2, "timest', b'{"step": 2, "timestamp": 3, "loss": 1.0}', b"\0\0\0\n", b"[1]\n", b'{"step": 2}\n',
     b'{"step": 2, "timestamp": 3, "loss": "much"}\n', b'{"step": 2, "timestamp": 3, "J&F": 1.0}\n', b"\xff\n"],
)  # fmt: skip
def test_a_damaged_line_is_left_out(rest: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "metrics.jsonl"
    written(file, 1)
    intact = file.read_bytes()
    file.write_bytes(intact + rest)
    metrics = MetricsFile(file, 9)
    assert f"WARNING: {file}: 1 damaged lines are left out" in capsys.readouterr().out
    metrics.begin()
    assert file.read_bytes() == intact and [record[3] for record in metrics.records] == [1, 1]


def test_records_of_an_old_checkpoint_are_taken_in(tmp_path: Path) -> None:
    file, older = tmp_path / "metrics.jsonl", [("loss", 0.5, 1001, 1), ("norm", 7.0, 1001, 1)]
    written(file, 1)
    metrics = MetricsFile(file, 1, older)
    metrics.begin()
    everything = [("loss", 0.5, 1001, 1), ("rate", 0.1, 1001, 1), ("norm", 7.0, 1001, 1)]
    assert metrics.records == everything and MetricsFile(file, 1).records == everything


def test_a_disk_that_takes_nothing_is_one_message(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "none" / "metrics.jsonl", 0)
    with pytest.raises(TrainingError, match=r"metrics.jsonl cannot be written \(No such file.*free some room"):
        metrics.append({"loss": 1.0}, 1, 1)


def test_what_a_dead_server_missed_is_sent_once_by_the_next_start(
    fresh_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(fresh_database, tmp_path / "mlflow.db")
    config, file = TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db", "tests"), tmp_path / "metrics.jsonl"
    tracker = Tracker.start(config, "run", {}, metrics=MetricsFile(file, 0))
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker._delivery.close()

    def dead(batch: list[Record]) -> None:
        raise ConnectionError("away")

    lost = Tracker.start(config, "run", {}, run_id=tracker.run_id, metrics=MetricsFile(file, 1))
    monkeypatch.setattr(lost, "_send", dead)
    lost._delivery._send = dead  # type: ignore[assignment]
    for step in (2, 3):
        lost.log_metrics({"loss": 1.0 / step}, step)
    with pytest.raises(TrainingError, match=r"2 metric records of run .* did not reach MLflow.*metrics.jsonl has them"):
        lost.finish()
    # The next start resumes from step 2: step 3 is taken again.
    with Tracker.start(config, "run", {}, run_id=tracker.run_id, metrics=MetricsFile(file, 2)) as again:
        again.log_metrics({"loss": 0.25}, 3)
    [run] = find_runs(config, [tracker.run_id])
    assert run.history == {"loss": ((1, 1.0), (2, 0.5), (3, 0.25))}
    assert [record[1] for record in MetricsFile(file, 9).records] == [1.0, 0.5, 0.25]
