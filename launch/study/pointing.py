"""`glus pointing CHECKPOINT`: what a pretraining checkpoint sees in held-out clips, before masks are trained."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glus.common.errors import LaunchError, TrainingError
from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.data_pipeline.shards.reader import open_splits
from glus.evaluation.results.pointing_file import named_pointing, shown, write_pointing
from glus.training.tracking.evaluation_record import check_recordable, log_evaluation
from glus.training.tracking.run_record import located

#: Part of an evaluation's artifacts that pointing.json lies in.
PART = "pointing"


@dataclass(frozen=True)
class PointingConfig:
    """Which checkpoints, on which clips."""

    checkpoint: Path
    """A run folder or one checkpoint folder of model.method=pretraining."""
    shards: PathText
    """Folder with the shards of `glus prepare`, or its URL."""
    out: Path
    """Folder for step-NNNNNN/pointing.json, one a checkpoint."""
    split: str = "demo_twins/valid"
    """The held-out split, as DATASET/SPLIT."""
    clips: int = 96
    """Clips of it, drawn by `seed`; each has one query frame and up to four expressions."""
    seed: int = 5
    """The same seed draws the same clips for every checkpoint."""
    checkpoints: Literal["latest", "all"] = "latest"
    """Of a run folder: its latest checkpoint, or all that are there."""
    record: bool = True
    """Record the metrics with the run that made the checkpoint."""


def pointing(config: PointingConfig) -> None:
    """Ask, write, print one JSON object a checkpoint, and record.

    Raises EvaluationError, DataError, TrainingError or LaunchError, each with one clear message.
    """
    from glus.evaluation.predict.pointing import point
    from glus.training.checkpoints import checkpoint

    if config.clips < 1:
        raise LaunchError(f"clips={config.clips}: give 1 or more")
    [split] = open_splits(config.shards, [config.split])
    folders = [checkpoint.resolve(config.checkpoint)]
    if config.checkpoints == "all":
        folders = checkpoint.newest_first(folders[0].parent)[::-1]
    for folder in folders:
        run, state = checkpoint.read_run_config(folder), checkpoint.read_state(folder)
        tracking = located(run.tracking, folder.resolve().parent.parent)
        recorded = config.record and bool(state.tracking_run)
        if recorded:
            check_recordable(tracking, state.tracking_run)
        found = point(folder, split, config.clips, config.seed)
        file = write_pointing(found, config.out / folder.name)
        print(json.dumps(shown(found), indent=1))
        print(plain(f"written: {file}"), flush=True)
        if not recorded:
            continue
        try:
            log_evaluation(
                tracking, state.tracking_run, named_pointing(found), found.step, folder.name, {}, [file], PART
            )
        except TrainingError as error:
            raise LaunchError(f"the metrics are in {file}, but not recorded: {error}") from error
