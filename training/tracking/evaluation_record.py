"""Metrics of an evaluation, recorded with the MLflow run that made the checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from glus.training.tracking.artifact_place import artifacts_of, check_writable, write_artifacts
from glus.training.tracking.logged_models import METRIC, logged_model, mark_best
from glus.training.tracking.record_names import checked_name
from glus.training.tracking.tracking import client_of, metrics_of, mlflow_errors, run_of
from glus.training.tracking.tracking_place import TrackingConfig


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
) -> None:
    """Record the metrics of one checkpoint with the run that made it, which may have ended.

    Metrics go to the checkpoint's `step`, `files` to the artifacts below evaluation/CHECKPOINT, `tags` to the run's
    tags as "evaluation.CHECKPOINT.NAME": a later evaluation of another checkpoint leaves these as they are. They are
    linked to the checkpoint's LoggedModel; that of the highest overall J&F has the alias "best" (logged_models.py).
    """
    client = client_of(config)
    with mlflow_errors(config):
        model_id = logged_model(client, run_id, checkpoint, "", step)
        client.log_batch(run_id, metrics=metrics_of(metrics, step, model_id))
        if METRIC in metrics and not metrics.get("eval/partial"):
            mark_best(client, config.experiment, run_id, model_id, metrics[METRIC])
        for name, value in tags.items():
            client.set_tag(run_id, checked_name(f"evaluation.{checkpoint}.{name}"), value)
        write_artifacts(client, config, run_id, files, f"evaluation/{checkpoint}")
