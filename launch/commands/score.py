"""`glus score`: metrics of masks that exist already. Nothing here needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glus.common.cores import usable_cores
from glus.common.errors import EvaluationError, LaunchError
from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.data_pipeline.shards.storage import Storage
from glus.evaluation.pages.evaluation_page import write_report
from glus.evaluation.predict.predictions import model_of, split_folder
from glus.evaluation.results.frame_scores import write_frame_scores
from glus.evaluation.results.scores_file import write_scores
from glus.evaluation.results.summary import Summary
from glus.evaluation.score.scoring import has_targets, score_splits
from glus.launch.commands.metrics_table import print_metrics


@dataclass(frozen=True)
class ScoreConfig:
    """Which masks, against which splits, and where the metrics go."""

    predictions: Path
    """Folder of DATASET/SPLIT/VIDEO/EXPRESSION/FRAME.png, or the OUT of a `glus evaluate` that holds predictions/."""
    shards: PathText
    """Folder with the shards of `glus prepare`, or its URL."""
    out: Path
    """Folder for scores.json, scores.csv, videos.csv, frames.parquet, report.html and overlays/."""
    splits: tuple[str, ...] = ()
    """Splits as DATASET/SPLIT; without any, those that the predictions are for."""
    workers: int = 0
    """Processes that score; 0 takes one a core."""
    report: bool = True
    """Write report.html and overlays/."""
    title: str = ""
    """Title of the page; empty takes the name of the folder of predictions."""


def score(config: ScoreConfig) -> None:
    """Score, write, and print the metrics.

    Raises DataError, EvaluationError or LaunchError, each with one clear message.
    """
    if config.workers < 0:
        raise LaunchError(f"workers={config.workers}: give 1 or more, or 0 for one a core")
    masks = _masks_of(config.predictions)
    splits = _splits(config, masks)
    title = config.title or config.predictions.resolve().name
    score_and_write(splits, masks, config.shards, config.out, title, config.workers, config.report)


def score_and_write(
    splits: Sequence[ShardedSplit], masks: Path, shards: str, out: Path, title: str, workers: int, report: bool
) -> tuple[Summary, tuple[Path, ...]]:
    """Score the masks, write the tables and the page into `out`, print the metrics; return the summary and the tables.

    `workers` processes score, 0 takes one a core. Raises DataError or EvaluationError.
    """
    found = score_splits(splits, masks, min(workers or usable_cores(), max(len(split.videos) for split in splits)))
    origin = {"title": title, "predictions": str(masks.resolve()), "shards": str(Storage.at(shards))}
    origin |= {f"{split.dataset}/{split.split}": split.fingerprint for split in splits} | model_of(masks)
    tables = (
        *write_scores(found.scores, found.summary, out, found.merged, origin),
        write_frame_scores(found.frames, out),
    )
    pages = [write_report(out, title, found.summary, found.scores, splits, masks)[0]] if report else []
    print_metrics(found.summary, [each.name for each in found.scores if each.missing], [*pages, *tables])
    return found.summary, tables


def chosen_splits(shards: str, names: Sequence[str]) -> list[ShardedSplit]:
    """Return the splits named; without names those that begin with "valid" and have masks, and print the others.

    Raises DataError for an unknown name, EvaluationError where nothing is left.
    """
    if names:
        return open_splits(shards, list(dict.fromkeys(names)))
    valid = [split for split in open_splits(shards) if split.split.startswith("valid")]
    scored = [split for split in valid if has_targets(split)]
    for split in valid:
        if split not in scored:
            name = plain(f"{split.dataset}/{split.split}")
            print(f"left out: {name} hides its masks (name it in `splits` to predict it)")
    if not scored:
        raise EvaluationError(
            f"{shards} holds no valid split with masks: name splits to evaluate, such as splits=[mevis/train]"
        )
    return scored


def _masks_of(predictions: Path) -> Path:
    """The folder above DATASET. Raises LaunchError where there is no folder."""
    if not predictions.is_dir():
        raise LaunchError(f"{predictions} is no folder: name the one above DATASET/SPLIT/VIDEO/EXPRESSION/FRAME.png")
    inner = predictions / "predictions"
    return inner if inner.is_dir() else predictions


def _splits(config: ScoreConfig, masks: Path) -> list[ShardedSplit]:
    if config.splits:
        return chosen_splits(config.shards, config.splits)
    there = [s for s in open_splits(config.shards) if split_folder(masks, s.dataset, s.split).is_dir()]
    if not there:
        raise LaunchError(
            f"{masks} holds no DATASET/SPLIT that {config.shards} has: give the folder above DATASET, or say `splits`"
        )
    return there
