"""`glus evaluate`: masks for every expression, their J, F and J&F, the text control, and a page that shows them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from glus.data_pipeline.reader import ShardedSplit, open_splits
from glus.evaluation import provenance
from glus.evaluation.errors import EvaluationError
from glus.evaluation.inference_config import InferenceConfig
from glus.evaluation.report import write_report
from glus.evaluation.scoring import ExpressionScore, has_targets, score_split
from glus.evaluation.summary import Figures, Summary, named_figures, summarise, write_scores
from glus.launch.predict import Prediction, PredictionBug, predict, processes_for
from glus.training import checkpoint
from glus.training.tracking import TrackingConfig, find_runs, log_figures

BUG = 1


@dataclass(frozen=True)
class EvaluateConfig:
    """Which checkpoint, on which splits, and where the results go."""

    checkpoint: Path
    """A run folder (its latest checkpoint) or one checkpoint folder."""
    shards: Path
    """Folder with the shards of `glus prepare`."""
    out: Path
    """Folder for predictions/, scores.json, scores.csv, report.html and overlays/."""
    splits: tuple[str, ...] = ()
    """Splits as DATASET/SPLIT; without any, every split there whose name begins with "valid" and that has masks."""
    processes: int = 0
    """Processes that predict and score; 0 takes one a GPU, and without GPU one a core."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How a video is gone through."""
    tracking: TrackingConfig | None = None
    """Where the run that made the checkpoint is recorded; null takes the place that the run itself names."""
    record: bool = True
    """Record the figures with the run that made the checkpoint."""
    report: bool = True
    """Write report.html and overlays/."""
    title: str = ""
    """Title of the page; empty takes the run's name and the step."""
    fresh: bool = False
    """Remove what an earlier evaluation predicted into `out`, and predict anew."""


def evaluate(config: EvaluateConfig) -> int:
    """Predict, score, write and record. What is predicted already is not predicted again.

    Returns the exit code: 0, or 1 where a process ended by a bug, whose traceback was printed. Raises TrainingError,
    DataError, EvaluationError or LaunchError, each with one clear message.
    """
    folder = checkpoint.resolve(config.checkpoint)
    run = checkpoint.read_run_config(folder)
    state = checkpoint.read_state(folder)
    splits = chosen_splits(config.shards, config.splits)
    processes = processes_for(config.processes, splits)
    tracking = config.tracking or run.tracking
    if config.record and state.tracking_run:
        find_runs(tracking, [state.tracking_run])  # hours of prediction end here or not at all
    made = provenance.claim(config.out, folder, config.inference, splits, config.fresh)
    masks = config.out / provenance.MASKS
    try:
        for done in predict(Prediction(folder, tuple(splits), masks, config.inference), processes):
            made = made.with_counts(done)
    except PredictionBug as bug:
        print(f"a process that predicts ended by a bug; the others were stopped:\n{bug}", file=sys.stderr)
        return BUG
    finally:
        provenance.record(config.out, made)
    scores = [score for split in splits for score in score_split(split, masks, workers=processes)]
    summary = summarise(scores)
    places = list(write_scores(scores, summary, config.out))
    if config.report:
        title = config.title or f"{run.name}, step {state.step}"
        places = [write_report(config.out, title, summary, scores, splits, masks)[0], *places]
    if config.record and state.tracking_run:
        log_figures(tracking, state.tracking_run, named_figures(summary), state.step)
    _tell(summary, scores, made, places)
    if not state.tracking_run:
        print("not recorded: the checkpoint names no tracked run")
    return 0


def chosen_splits(shards: Path, names: Sequence[str]) -> list[ShardedSplit]:
    """The splits named; without names those that begin with "valid" and have masks (the others are told).

    Raises DataError for a name that is not there, EvaluationError where nothing is left.
    """
    if names:
        return open_splits(shards, list(dict.fromkeys(names)))
    valid = [split for split in open_splits(shards) if split.split.startswith("valid")]
    scored = [split for split in valid if has_targets(split)]
    for split in valid:
        if split not in scored:
            print(f"left out: {split.dataset}/{split.split} hides its masks (name it in `splits` to predict it)")
    if not scored:
        raise EvaluationError(
            f"{shards} holds no valid split with masks: name splits to evaluate, such as splits=[mevis/train]"
        )
    return scored


def figures_table(summary: Summary) -> Table:
    """Benchmarks, then kinds of expression, then all: J, F, J&F, the text control and what it loses."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("benchmark")
    for name in ("expressions", "J", "F", "J&F", "text control", "drop"):
        table.add_column(name, justify="right")
    for benchmark in summary.benchmarks:
        table.add_row(benchmark.benchmark, *_cells(benchmark.figures))
    table.add_section()
    for kind, figures in summary.kinds.items():
        table.add_row(f"kind: {kind}", *_cells(figures))
    table.add_section()
    table.add_row("all expressions", *_cells(summary.overall), style="bold")
    return table


def _cells(figures: Figures) -> list[str]:
    values = (figures.J, figures.F, figures.JF, figures.control_JF, figures.drop)
    return [str(figures.expressions), *("–" if value is None else f"{value:z.1f}" for value in values)]


def _tell(
    summary: Summary, scores: Sequence[ExpressionScore], made: provenance.Provenance, places: Sequence[Path]
) -> None:
    Console().print(figures_table(summary))
    missing = sum(score.missing for score in scores)
    print(f"frames without [SEG]: {made.frames_without_seg} of {made.frames}; missing predictions: {missing}")
    for place in places:
        print(f"written: {place}")
