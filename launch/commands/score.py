"""`glus score`: figures of masks that are already there. Nothing here needs torch."""

from dataclasses import dataclass
from pathlib import Path

from glus.common.cores import usable_cores
from glus.common.errors import LaunchError
from glus.common.paths import PathText
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.data_pipeline.shards.storage import Storage
from glus.evaluation.pages.evaluation_page import write_report
from glus.evaluation.predict.predictions import split_folder
from glus.evaluation.results.scores_file import write_scores
from glus.evaluation.score.scored_splits import score_splits
from glus.launch.commands.metrics_table import tell_figures
from glus.launch.commands.splits import chosen_splits


@dataclass(frozen=True)
class ScoreConfig:
    """Which masks, against which splits, and where the figures go."""

    predictions: Path
    """Folder of DATASET/SPLIT/VIDEO/EXPRESSION/FRAME.png, or the OUT of a `glus evaluate` that holds predictions/."""
    shards: PathText
    """Folder with the shards of `glus prepare`, or its URL."""
    out: Path
    """Folder for scores.json, scores.csv, videos.csv, report.html and overlays/."""
    splits: tuple[str, ...] = ()
    """Splits as DATASET/SPLIT; without any, those that the predictions are for."""
    workers: int = 0
    """Processes that score; 0 takes one a core."""
    report: bool = True
    """Write report.html and overlays/."""
    title: str = ""
    """Title of the page; empty takes the name of the folder of predictions."""


def score(config: ScoreConfig) -> None:
    """Score, write, and print the figures.

    Raises DataError, EvaluationError or LaunchError, each with one clear message.
    """
    if config.workers < 0:
        raise LaunchError(f"workers={config.workers}: give 1 or more, or 0 for one a core")
    masks = _masks_of(config.predictions)
    splits = _splits(config, masks)
    workers = min(config.workers or usable_cores(), max(len(split.videos) for split in splits))
    found = score_splits(splits, masks, workers)
    title = config.title or config.predictions.resolve().name
    origin = {"title": title, "predictions": str(masks.resolve()), "shards": str(Storage.at(config.shards))}
    places = list(write_scores(found.scores, found.summary, config.out, found.merged, origin))
    if config.report:
        places = [write_report(config.out, title, found.summary, found.scores, splits, masks)[0], *places]
    tell_figures(found.summary, [each.name for each in found.scores if each.missing], places)


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
