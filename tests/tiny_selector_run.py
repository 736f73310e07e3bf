"""Overrides that make the run of tests/tiny_run.yaml one of a small key frame selector, and its labels."""

from pathlib import Path

from glus.data_pipeline.shards.reader import open_splits
from tests.frame_labels import Label, ramp, write_labels

#: The tiny run's model without a segmenter; videos have 6 frames.
SELECTOR = (
    "model.method=selector",
    "model.loss.contrastive=0",
    "sampling.frame_choice=references",
    "sampling.context_frames=4",
    "sampling.least_context_frames=3",
    "sampling.query_frames=1",
    "sampling.expressions=3",
    "sampling.group_by_object=false",
    "sampling.prompts=selector_short",
)
#: What a run of configs/glus_s_kfs.yaml trains.
OWN_TABLE = "trainable=[]"


def with_labels(demo: Path, folder: Path, label: Label = ramp, weights: str = "") -> tuple[str, ...]:
    """SELECTOR with labels of the tiny demo's training splits, written into `folder`."""
    splits = open_splits(demo / "shards", ["mevis/train", "ref_davis17/train"])
    return (*SELECTOR, f"sampling.frame_scores={write_labels(folder, splits, label, weights)}")
