"""Record an evaluation with the MLflow run that made the checkpoint, and a LoggedModel for each checkpoint.

Of the checkpoints that were evaluated, the best has the alias "best".
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glus.training.tracking.artifact_place import artifacts_of, check_writable, write_artifacts
from glus.training.tracking.metrics_file import checked_name
from glus.training.tracking.mlflow_client import (
    all_runs,
    client_of,
    has_tags,
    metrics_of,
    mlflow_errors,
    opened,
    run_of,
)
from glus.training.tracking.tracking_place import TrackingConfig

#: The metric that decides, the alias of the best, and the tag that keeps the metric with a version.
_METRIC, _BEST, _TAG = "eval/overall/JF", "best", "figure"
_MOST_FOUND = 10
_KEY_FRAMES = "key_frames"
#: Artifacts of an evaluation that is a run of its own.
EVALUATION_FOLDER = "evaluation"
#: The tag that each evaluation leaves: its checkpoint, and its part.
_EVALUATED = re.compile(rf"evaluation\.(.+?)(?:\.({_KEY_FRAMES}))?\.checkpoint")


def check_recordable(config: TrackingConfig, run_id: str) -> None:
    """Raises TrainingError where `log_evaluation` could not record with a run, its artifacts included."""
    client = client_of(config)
    run = run_of(client, config, run_id)
    with mlflow_errors(config):
        place = artifacts_of(config, run)
        if place is None:
            client.list_artifacts(run_id)
            return
    check_writable(place, run_id)


def log_evaluation(
    config: TrackingConfig,
    run_id: str,
    metrics: Mapping[str, float],
    step: int,
    checkpoint: str,
    tags: Mapping[str, str],
    files: Sequence[Path],
    part: str = "",
) -> None:
    """Record the metrics of one checkpoint with the run that made it, which may have ended.

    Metrics go to the checkpoint's `step`, `files` to the artifacts below evaluation/CHECKPOINT, `tags` to the run's
    tags as "evaluation.CHECKPOINT.NAME", with `part` as "evaluation.CHECKPOINT.PART.NAME" and below
    evaluation/CHECKPOINT/PART: a later evaluation of another checkpoint leaves these as they are. They are
    linked to the checkpoint's LoggedModel; that of the highest overall J&F has the alias "best".
    """
    client, parts = client_of(config), [part] if part else []
    with mlflow_errors(config):
        model_id = logged_model(client, run_id, checkpoint, "", step)
        client.log_batch(run_id, metrics=metrics_of(metrics, step, model_id))
        if _METRIC in metrics and not metrics.get("eval/partial"):
            _mark_best(client, config.experiment, run_id, model_id, metrics[_METRIC])
        for name, value in tags.items():
            client.set_tag(run_id, checked_name(".".join(["evaluation", checkpoint, *parts, name])), value)
        write_artifacts(client, config, run_id, files, "/".join(["evaluation", checkpoint, *parts]))


def record_apart(
    config: TrackingConfig,
    name: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    step: int,
    files: Sequence[Path],
    parent: str = "",
) -> str:
    """Record an evaluation as a run of its own, found by its `tags`; one that is there is recorded into again.

    For several evaluations of one checkpoint that are asked in other ways. `files` go to its artifacts below
    EVALUATION_FOLDER; `parent` is the run that made the checkpoint. Returns the run's id. Raises TrainingError.
    """
    client, experiment = opened(config)
    everything = {checked_name(key): value for key, value in tags.items()} | {"kind": "evaluation"}
    with mlflow_errors(config):
        found = [run for run in all_runs(client, experiment) if has_tags(run, everything)]
        # MLflow's page shows a run below its parent.
        made = everything | ({"mlflow.parentRunId": parent} if parent else {})
        run = found[-1] if found else client.create_run(experiment, run_name=name, tags=made)
        run_id = str(run.info.run_id)
        client.log_batch(run_id, metrics=metrics_of(metrics, step))
        write_artifacts(client, config, run_id, files, EVALUATION_FOLDER)
        client.set_terminated(run_id, "FINISHED")
    return run_id


def evaluation_folders(tags: Mapping[str, str], step: int) -> dict[str, str]:
    """Return the artifact folders of a run's evaluation of the checkpoint of `step`, by part ("" and "key_frames").

    `tags` are the run's. A checkpoint of another name counts where it is the only one that was evaluated.
    """
    found = [match for key in tags if (match := _EVALUATED.fullmatch(key))]
    names = {match[1] for match in found}
    wanted = f"step-{step:06d}"
    name = wanted if wanted in names else next(iter(names)) if len(names) == 1 else ""
    parts = [match[2] or "" for match in found if match[1] == name]
    return {part: "/".join(["evaluation", name, *([part] if part else [])]) for part in parts}


def logged_model(client: Any, run_id: str, checkpoint: str, path: str, step: int) -> str:
    """Id of the LoggedModel of a run's checkpoint, which is made where there is none: calling twice makes one."""
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{run.info.run_name}-{checkpoint}")
    wanted = f"name = '{name}' AND source_run_id = '{run_id}'"
    for found in client.search_logged_models([experiment], filter_string=wanted, max_results=_MOST_FOUND):
        return str(found.model_id)
    tags = {"checkpoint": checkpoint, "path": path, "step": str(step)}
    made = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=tags, model_type="GLUS")
    client.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


def _mark_best(client: Any, experiment: str, run_id: str, model_id: str, value: float) -> None:
    """Give a model the alias "best" among those of the experiment, if its metric is above that of the best one."""
    if not math.isfinite(value):
        return
    name = re.sub(r"[/:]", "_", experiment)
    registered = client.search_registered_models(filter_string=f"name = '{name}'", max_results=1)
    holder = registered[0] if registered else client.create_registered_model(name)
    version = dict(holder.aliases).get(_BEST)
    if version is not None and float(client.get_model_version(name, version).tags[_TAG]) >= value:
        return
    # By its place: "models:/ID" would be looked for wherever MLflow is set to, not where this client is.
    place = client.get_logged_model(model_id).artifact_location
    tags = {_TAG: repr(value)}
    made = client.create_model_version(name, source=place, run_id=run_id, tags=tags, model_id=model_id)
    client.set_registered_model_alias(name, _BEST, made.version)
