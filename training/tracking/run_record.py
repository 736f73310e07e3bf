"""One MLflow run for one training, however often it is stopped, killed and started again.

OUT/tracking.json              the MLflow run and its place, written at the first start
OUT/metrics.jsonl              all metrics; a start sends those that MLflow has not got
CHECKPOINT/unsent.json         in checkpoints of earlier versions: metrics that MLflow had not got
"""

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from glus.common.atomic import write_atomic
from glus.common.errors import InputError, TrainingError
from glus.common.files import is_there
from glus.common.json_file import read_as, read_object
from glus.common.terminal import one_line
from glus.common.urls import hide_secrets
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.training.checkpoints.checkpoint import RunState, read_state
from glus.training.run_config import RunConfig
from glus.training.tracking.metrics_file import NAME, MetricsFile, Record
from glus.training.tracking.mlflow_client import MissingRun
from glus.training.tracking.tracking import Tracker
from glus.training.tracking.tracking_place import (
    TrackingConfig,
    address,
    check_place,
    given_uri,
    sqlite_file,
    sqlite_uri,
)

FILE, UNSENT = "tracking.json", "unsent.json"
_CONTINUES = "continues"


def described(config: RunConfig, plan: SamplePlan) -> str:
    """What a run is, for its description in MLflow (Markdown)."""
    begin = [f"{part} {place}" for part, place in config.weights.named.items()]
    if config.init_from:
        begin = [f"the checkpoint {config.init_from}"]
    data = ", ".join(f"{split.dataset}/{split.split}" for split in plan.splits)
    return hide_secrets(
        f"{config.steps:,} steps of {config.global_batch_size} videos from {data}; starts from "
        f"{', '.join(begin) or 'freshly drawn weights'}. Folder: `{Path(config.out).resolve()}`"
    )


def start_tracking(config: RunConfig, plan: SamplePlan, resumed: Path | None) -> Tracker:
    """The run of the checkpoint `resumed`, or that of an earlier start with the same config, or a new one.

    Raises TrainingError where MLflow cannot be reached, or the run of the checkpoint is gone and
    `tracking.on_missing_run` does not ask for a new one.
    """
    state = read_state(resumed) if resumed else None
    out = Path(config.out)
    metrics = MetricsFile(out / NAME, state.step if state else 0, read_unsent(resumed) if resumed else ())
    note = _note(out)
    place = _located(config.tracking, out, note)
    run_id = _run_of(state, note, config)
    params, tags = asdict(config), {"kind": "training", "mlflow.note.content": described(config, plan)}
    tags = config.tracking.tags | tags
    ended = [str(each) for each in note.get(_CONTINUES, [])] if run_id == note.get("run") else []
    try:
        tracker = Tracker.start(place, config.name, params, tags, run_id=run_id, metrics=metrics)
    except MissingRun as error:
        if state is not None and config.tracking.on_missing_run == "refuse":
            raise TrainingError(
                f"{error}; the training goes on in that run. Bring it back or name its place (tracking.uri=...), or "
                "set tracking.on_missing_run=new to record into a new run, whose tag `continues` names it"
            ) from error
        print(one_line(f"WARNING: {error}; a new run is started, its tag `continues` names the old one"), flush=True)
        ended = [*ended, str(run_id)]
        tracker = Tracker.start(place, config.name, params, tags | {_CONTINUES: str(run_id)}, metrics=metrics)
    _write_note(out, config, place, tracker.run_id, ended)
    for split in plan.splits:
        expressions = sum(len(entry.expressions) for entry in split.videos)
        tracker.log_dataset(
            f"{split.dataset}/{split.split}",
            split.fingerprint,
            {"videos": len(split.videos), "expressions": expressions},
        )
    return tracker


def located(tracking: TrackingConfig, out: Path) -> TrackingConfig:
    """The place where the training in `out` is recorded, whatever folder the command was started in.

    OUT/tracking.json keeps it, relative to OUT: a SQLite file is found from another folder, and after the project was
    moved. Where `tracking` names another place than the training did, that is taken.
    """
    return _located(tracking, out, _note(out))


def _located(tracking: TrackingConfig, out: Path, note: dict[str, Any]) -> TrackingConfig:
    given = given_uri(tracking)
    if "uri" not in note or given not in ("", note["uri"]):
        return tracking
    if not note.get("file"):
        return replace(tracking, uri=note["uri"])
    own, noted = sqlite_file(note["uri"]), Path(os.path.normpath(out.resolve() / note["file"]))
    # An absolute name means that file as long as it is there; a relative one depends on the folder.
    order = [own, noted] if own.is_absolute() else [noted, own]
    return replace(tracking, uri=sqlite_uri(next((each for each in order if each.is_file()), own)))


def recorded_in(out: Path) -> TrackingConfig | None:
    """Return where the training in `out` is recorded, None where it does not say. Raises TrainingError."""
    note = _note(out)
    return _located(TrackingConfig("", note["experiment"]), out, note) if "experiment" in note else None


def run_of_folder(out: Path) -> str | None:
    """The MLflow run of the training in `out`, None where there is none. Raises TrainingError."""
    return _note(out).get("run")


def read_unsent(path: Path) -> list[Record]:
    """Metrics that a checkpoint of an earlier version holds. Raises TrainingError where they cannot be read."""
    if not is_there(path / UNSENT):
        return []
    remedy = "use another checkpoint"
    # A metric may be NaN.
    return read_as(path / UNSENT, list[Record], "file of metrics", raises=TrainingError, remedy=remedy, finite=False)


def _run_of(state: RunState | None, note: dict[str, Any], config: RunConfig) -> str | None:
    if state is not None:
        # A run that continued the checkpoint's, and was killed before it wrote one of its own.
        return note["run"] if state.tracking_run in note.get(_CONTINUES, []) else state.tracking_run or None
    return note["run"] if note and note["config"] == _digest(config) else None


def _note(out: Path) -> dict[str, Any]:
    """OUT/tracking.json, {} where there is none. Raises TrainingError."""
    file = out / FILE
    if not os.path.lexists(file):
        return {}
    note = read_object(file, "record of the MLflow run", remedy="remove it to record a new run", raises=TrainingError)
    for name in ("run", "config", "uri", "file", "experiment"):
        if name in note or name in ("run", "config"):
            note[name] = str(note.get(name, ""))
            if not note[name] and name in ("run", "config"):
                raise TrainingError(f"{file} names no {name}: remove it to record a new run")
    if not isinstance(note.get(_CONTINUES, []), list):
        raise TrainingError(f"{file}: continues is no list: remove it to record a new run")
    return note


def _write_note(out: Path, config: RunConfig, place: TrackingConfig, run_id: str, ended: list[str]) -> None:
    file = check_place(place)
    note = {
        "run": run_id,
        "config": _digest(config),
        "uri": address(config.tracking if file else place),
        "file": os.path.relpath(file.resolve(), out.resolve()) if file else "",
        "experiment": config.tracking.experiment,
        _CONTINUES: ended,
    }
    try:
        write_atomic(out / FILE, json.dumps(note).encode() + b"\n")
    except InputError as error:
        raise TrainingError(str(error)) from error


def _digest(config: RunConfig) -> str:
    # How a run is recorded makes no other run.
    plain = asdict(replace(config, tracking=replace(config.tracking, on_missing_run="refuse")))
    del plain["tracking"]["tags"]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
