"""`glus report EVALUATION EVALUATION`: evaluations side by side, their masks under one slider."""

from dataclasses import dataclass
from pathlib import Path

from glus.common.errors import LaunchError
from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.evaluation.pages.side_by_side import write_side_by_side
from glus.evaluation.results.scores_file import Scored, read_scores


@dataclass(frozen=True)
class ReportConfig:
    """Which evaluations, and where the page goes."""

    evaluations: tuple[Path, ...] = ()
    """Two folders or more that `glus evaluate` or `glus score` wrote. The others are compared with the first."""
    out: Path = Path("build/report")
    """Folder for side_by_side.html and overlays/."""
    shards: PathText = ""
    """Folder with the shards, or its URL; empty takes the one that the first evaluation names."""
    title: str = "Evaluations side by side"
    """Title of the page."""
    examples: int = 2
    """How many expressions of each split are shown of each kind (most gained, median, most lost)."""


def report(config: ReportConfig) -> None:
    """Write the page. Raises EvaluationError, DataError or LaunchError, each with one clear message."""
    if len(config.evaluations) < 2:
        raise LaunchError(
            f"{len(config.evaluations)} evaluations: name two folders that `glus evaluate` wrote, or more"
        )
    runs = [read_scores(folder) for folder in config.evaluations]
    page, *_ = write_side_by_side(config.out, config.title, runs, _splits(config, runs), config.examples)
    print(plain(f"written: {page}"))


def _splits(config: ReportConfig, runs: list[Scored]) -> list[ShardedSplit]:
    names = dict.fromkeys(f"{score.dataset}/{score.split}" for run in runs for score in run.expressions)
    return open_splits(config.shards or runs[0].shards, list(names))
