"""`glus evaluate`: masks for every expression, their J, F and J&F, the text control, and a page that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from glus.common.atomic import write_atomic
from glus.common.errors import LaunchError, TrainingError
from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.evaluation.pages.evaluation_page import PAGE
from glus.evaluation.pages.inline_report import inlined
from glus.evaluation.predict import provenance
from glus.evaluation.predict.asking import ASKING, wording_notes
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.key_frames import check_key_frames
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.predictions import check_entries, remove_unfinished
from glus.evaluation.predict.worklist import (
    EVALUATE,
    LIST,
    counted,
    exclusive_out,
    left,
    share,
    work_list,
    write_list,
)
from glus.evaluation.results.summary import from_key_frames, named_metrics
from glus.launch.commands.predict import Prediction
from glus.launch.commands.score import chosen_splits, score_and_write
from glus.launch.commands.work_processes import processes_of_rank, wait_for_all, work_through
from glus.model.released.release_sam2 import Hiera
from glus.training.devices import choose_device, gpu_count
from glus.training.distributed import Rank
from glus.training.tracking.evaluation_record import check_recordable, log_evaluation, record_apart
from glus.training.tracking.mlflow_client import check_reachable
from glus.training.tracking.tracking_place import TrackingConfig


@dataclass(frozen=True)
class EvaluateConfig:
    """Which checkpoint, on which splits, and where the results go."""

    checkpoint: Path
    """A run folder (its latest checkpoint), one checkpoint folder, or a GLUS or VideoLISA in the released layout: its
    folder, or its id on the Hugging Face hub (org/name, org/name@revision)."""
    shards: PathText
    """Folder with the shards of `glus prepare`, or its URL."""
    out: Path
    """Folder for predictions/, scores.json, scores.csv, frames.parquet, report.html and overlays/."""
    splits: tuple[str, ...] = ()
    """Splits as DATASET/SPLIT; without any, every split there whose name begins with "valid" and that has masks."""
    vision: Path | None = None
    """Folder or hub id of the CLIP vision tower, where a release comes without: openai/clip-vit-large-patch14
    (VideoLISA: -336). For a checkpoint of the hub it is found by itself."""
    hiera: Hiera | None = None
    """Of a released GLUS whose SAM 2 has none of the released sizes: what its weights do not show."""
    processes: int = 0
    """Processes that predict and score; 0 takes one a GPU, and without GPU one a core."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What is computed on; auto refuses the CPU where there should be GPUs and torch sees none (docs/gpu.md)."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How a video is gone through."""
    tracking: TrackingConfig | None = None
    """Where the run that made the checkpoint is recorded; null takes the place that the run itself names."""
    record: bool = True
    """Record the metrics with the run that made the checkpoint."""
    tags: dict[str, str] = field(default_factory=dict)
    """Record the metrics as a run of their own that has these tags, made where there is none, below the run that made
    the checkpoint: for a checkpoint that is asked in several ways."""
    report: bool = True
    """Write report.html and overlays/."""
    title: str = ""
    """Title of the page; empty takes the run's name and the step."""
    fresh: bool = False
    """Remove what an earlier evaluation predicted into `out`, and predict again."""
    score: bool = True
    """Score when everything is predicted; false only predicts, one part of many of a job array."""
    wait_minutes: float = 60
    """Of several ranks, the first waits for the others' masks: how long nothing new may come before it gives up."""


def evaluate(config: EvaluateConfig) -> None:
    """Predict, score, write and record; skips expressions whose masks are on disk.

    Under torchrun or srun each rank predicts its share on its GPU; the first then waits for the others and scores.
    Raises TrainingError, DataError, EvaluationError or LaunchError, each with one clear message.
    """
    rank = Rank.from_environment()
    kind = choose_device(config.device, "device")
    rank.check_device(gpu_count(kind))
    inference = config.inference.on(kind)
    if rank.rank == 0 and kind == "cuda":
        print(f"precision: {inference.precision}")
    source = ModelSource.find(config.checkpoint, config.vision, config.hiera)
    if source.notes and rank.rank == 0:
        print(plain("\n".join(source.notes)))
    settings = ASKING[source.method].recorded(inference, source.sampling)
    splits = chosen_splits(config.shards, config.splits)
    if inference.key_frames is not None:
        accepted = inference.missing_key_frames == "first"
        named, expressions = check_key_frames(inference.key_frames, splits, accepted)
        others = "" if named == expressions else ", the others begin at the first frame"
        print(f"key frames: {named} of {expressions} expressions have one{others}")
    for note in wording_notes(source.method, splits):
        print(plain(note))
    check_entries(entry for split in splits for entry in split.videos)
    items = work_list(splits)
    processes = processes_of_rank(config.processes, config.fresh, rank, len(items), kind)
    tracking = _tracking(config, source, rank)
    with exclusive_out(config.out, rank.rank, rank.ranks, EVALUATE):
        masks = config.out / provenance.MASKS
        with provenance.removed_where_unused(config.out, provenance.PREDICTIONS, (LIST,), rank.ranks):
            made = provenance.claim(config.out, source, settings, splits, config.fresh)
            if rank.rank == 0:
                write_list(config.out, items, rank.ranks)
            mine = left(share(items, rank.rank, rank.ranks), splits, masks)
            work = Prediction(source, tuple(splits), config.out, inference, mine, rank.local, kind)
            work_through(work, processes)
        if rank.rank != 0 or not config.score:
            scorer = "rank 0 scores" if config.score else "the same with score=true scores"
            print(f"rank {rank.rank} of {rank.ranks}: {len(mine)} videos predicted; {scorer}")
            return
        wait_for_all(items, lambda those: left(those, splits, masks), config.wait_minutes, "masks")
        for entry in (entry for split in splits for entry in split.videos):
            remove_unfinished(masks, entry)
        count = counted(config.out, splits)
        made = made.with_counts(count)
        provenance.record(config.out, made)
        print(f"frames without [SEG]: {made.frames_without_seg} of {made.frames}")
        title = config.title or source.title
        summary, tables = score_and_write(
            splits, masks, config.shards, config.out, title, config.processes, config.report
        )
        costs = count.costs()
        for cost, value in costs.items():
            print(f"{cost.removeprefix('eval/').replace('_', ' ')}: {value:,.1f}")
        if tracking:
            _record(config, source, tracking, made, named_metrics(summary) | costs, summary.partial, tables)
    if not source.tracking_run and not config.tags:
        print("not recorded: no tracked run made this model")


def _tracking(config: EvaluateConfig, source: ModelSource, rank: Rank) -> TrackingConfig | None:
    """Where the metrics are to be recorded, None where they are not.

    Raises LaunchError where they could not be: hours of prediction end here or not at all.
    """
    tracking = config.tracking or source.tracking
    recorded = source.tracking_run or config.tags
    if tracking is None or not config.record or not recorded or rank.rank != 0:
        return None
    try:
        if config.tags:
            check_reachable(tracking)
        else:
            check_recordable(tracking, source.tracking_run)
    except TrainingError as error:
        raise LaunchError(f"{error}; record=false evaluates without recording") from error
    return tracking


def _record(
    config: EvaluateConfig,
    source: ModelSource,
    tracking: TrackingConfig,
    made: provenance.Provenance,
    metrics: dict[str, float],
    partial: bool,
    written: Sequence[Path],
) -> None:
    """Record the metrics with the run, last: they are printed and in OUT/scores.json. Raises LaunchError."""
    name = source.folder.name
    # Both evaluations of a checkpoint, from the first frame and from key frames, stay with its run.
    part = "key_frames" if config.inference.key_frames is not None and not config.tags else ""
    if part:
        metrics = from_key_frames(metrics)
    tags = {"checkpoint": name, "weights": made.weights[:12], "partial": str(partial)}
    try:
        with TemporaryDirectory(prefix="glus-report-") as scratch:
            files = [*written, *([_report_in_one_file(config.out, Path(scratch))] if config.report else [])]
            if config.tags:
                shown = config.title or f"{source.title}, {' '.join(config.tags.values())}"
                given = tags | config.tags
                record_apart(tracking, shown, given, metrics, source.step, files, source.tracking_run)
                return
            log_evaluation(tracking, source.tracking_run, metrics, source.step, name, tags, files, part)
    except TrainingError as error:
        raise LaunchError(
            f"the metrics are in {written[0]}, but not recorded: {error}; the same command again records them, and "
            "predicts nothing twice"
        ) from error


def _report_in_one_file(out: Path, scratch: Path) -> Path:
    """Write OUT's report with its pictures inside into `scratch`: MLflow's page shows no files next to it."""
    place = scratch / PAGE
    write_atomic(place, inlined(out / PAGE))
    return place
