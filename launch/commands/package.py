"""`glus package`: an archive of masks for the server of a benchmark that keeps its ground truth."""

from dataclasses import dataclass
from pathlib import Path

from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.data_pipeline.shards.reader import open_splits
from glus.evaluation.results.server_archives import write_package


@dataclass(frozen=True)
class PackageConfig:
    """Which masks, of which split, and where the archive goes."""

    predictions: Path
    """Folder of DATASET/SPLIT/VIDEO/EXPRESSION/FRAME.png, or the OUT of a `glus evaluate` that holds predictions/."""
    shards: PathText
    """Folder with the shards of `glus prepare`, or its URL: they say which videos, expressions and frames are due."""
    split: str
    """mevis/valid or refer_youtube_vos/valid."""
    out: Path
    """The archive, such as build/mevis_valid.zip."""
    any_size: bool = False
    """Pack a split that has fewer videos than the server wants."""


def package(config: PackageConfig) -> None:
    """Check and pack. Raises EvaluationError or DataError, each with one clear message; nothing is half-written."""
    inner = config.predictions / "predictions"
    masks = inner if inner.is_dir() else config.predictions
    [split] = open_splits(config.shards, [config.split])
    made = write_package(split, masks, config.out, config.any_size)
    print(
        f"written: {plain(str(made.place))}: {made.videos} videos, {made.expressions} expressions, {made.files} masks, "
        f"{made.bytes / 1e6:.1f} MB"
    )
    print(f"SHA-256: {made.sha256}")
