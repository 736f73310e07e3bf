"""One MLflow run for one training, however often it is stopped, killed and started again.

OUT/tracking.json              the run, from its first moment: a run may be killed before its first checkpoint
CHECKPOINT/unsent.json         records that had not reached MLflow when the checkpoint was written
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from glus.common.json_file import read_as
from glus.data_pipeline.aside import write_bytes_aside
from glus.data_pipeline.errors import DataError
from glus.data_pipeline.sampling import SamplePlan
from glus.training.checkpoint import RunState, read_state
from glus.training.config import RunConfig
from glus.training.errors import TrainingError
from glus.training.tracking import Tracker, Unsent

FILE, UNSENT = "tracking.json", "unsent.json"


def start_tracking(config: RunConfig, plan: SamplePlan, resumed: Path | None) -> Tracker:
    """The run of the checkpoint `resumed`, or that of an earlier start with the same config, or a new one.

    Raises TrainingError where MLflow cannot be reached.
    """
    state = read_state(resumed) if resumed else None
    before = read_unsent(resumed) if resumed else []
    file = Path(config.out) / FILE
    run_id = _run_of(state, file, config)
    tracker = Tracker.start(
        config.tracking, config.name, asdict(config), {"kind": "training"}, run_id=run_id, unsent=before
    )
    try:
        note = {"run": tracker.run_id, "config": _digest(config)}
        write_bytes_aside(file, json.dumps(note).encode() + b"\n")
    except DataError as error:
        raise TrainingError(str(error)) from error
    for split in plan.splits:
        expressions = sum(len(entry.expressions) for entry in split.videos)
        tracker.log_dataset(
            f"{split.dataset}/{split.split}",
            split.fingerprint,
            {"videos": len(split.videos), "expressions": expressions},
        )
    return tracker


def run_of_folder(out: Path) -> str | None:
    """The MLflow run of the training in `out`, None where there is none. Raises TrainingError."""
    file = out / FILE
    return _read(file)["run"] if file.is_file() else None


def write_unsent(path: Path, tracker: Tracker | None) -> None:
    """Keep in a checkpoint what has not reached MLflow. Raises TrainingError on a full disk."""
    try:
        (path / UNSENT).write_text(json.dumps(tracker.unsent() if tracker else []), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path / UNSENT} cannot be written ({error.strerror}): free some room") from error


def read_unsent(path: Path) -> list[Unsent]:
    """What `write_unsent` kept. Raises TrainingError where it cannot be read."""
    remedy = "use another checkpoint"
    # A metric may be NaN.
    return read_as(path / UNSENT, list[Unsent], "file of metrics", raises=TrainingError, remedy=remedy, finite=False)


def _run_of(state: RunState | None, file: Path, config: RunConfig) -> str | None:
    if state is not None:
        return state.tracking_run or None
    if not file.is_file():
        return None
    note = _read(file)
    return note["run"] if note["config"] == _digest(config) else None


def _read(file: Path) -> dict[str, str]:
    remedy = "remove it to record a new run"
    note = read_as(file, dict[str, str], "record of a run", raises=TrainingError, remedy=remedy)
    for name in ("run", "config"):
        if name not in note:
            raise TrainingError(f"{file} names no {name}: {remedy}")
    return note


def _digest(config: RunConfig) -> str:
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True, default=str).encode()).hexdigest()
