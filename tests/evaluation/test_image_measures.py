"""gIoU and cIoU of image benchmarks, on masks small enough to count by hand."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Expression, VideoRecord
from glus.evaluation.predict.predictions import write_masks
from glus.evaluation.results.benchmarks import protocol_for
from glus.evaluation.results.directions import direction
from glus.evaluation.results.scores_file import read_scores, write_scores
from glus.evaluation.results.summary import named_metrics
from glus.evaluation.score.scoring import score_splits
from glus.launch.commands.metrics_table import metrics_table
from tests.evaluation.conftest import JpegFrames, as_split

HEIGHT, WIDTH = 10, 20


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def image(
    name: str,
    target: np.ndarray,
    kind: str = "",
    void: np.ndarray | None = None,
    dataset: str = "reason_seg",
    split: str = "val",
) -> VideoRecord:
    jpeg = bytes(cv2.imencode(".jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1])
    objects = {"1": [encode(target) if target.any() else None]}
    said = (Expression("0", f"what is {name}", ("1",), kind),)
    codes = None if void is None else [encode(void)]
    return VideoRecord(dataset, split, name, HEIGHT, WIDTH, JpegFrames((name,), (jpeg,)), objects, said, codes)


def scored(tmp_path: Path, records: list[VideoRecord], predicted: list[np.ndarray | None]):
    split = as_split(tmp_path / "shards", records)
    for entry, mask in zip(split.videos, predicted, strict=True):
        if mask is not None:
            write_masks(tmp_path / "masks", entry, entry.expressions[0], mask[None])
    return score_splits([split], tmp_path / "masks", progress=False)


def test_giou_is_the_mean_and_ciou_the_sum(tmp_path):
    # 20 of 40 pixels, and 10 of 100: IoU 20/40 and 10/100.
    records = [image("a", box(0, 0, 4, 10), "sentence"), image("b", box(0, 0, 10, 10), "phrase")]
    found = scored(tmp_path, records, [box(0, 0, 2, 10), box(0, 0, 1, 10)])
    assert [(s.intersection, s.union) for s in found.scores] == [(20, 40), (10, 100)]
    [benchmark] = found.summary.benchmarks
    assert benchmark.benchmark == "ReasonSeg val"
    assert benchmark.metrics.gIoU == pytest.approx(100 * (0.5 + 0.1) / 2)
    assert benchmark.metrics.cIoU == pytest.approx(100 * 30 / 140)
    named = named_metrics(found.summary)
    assert named["eval/reason_seg/val/gIoU"] == pytest.approx(30)
    assert named["eval/reason_seg/val/sentence/cIoU"] == pytest.approx(50)
    assert named["eval/reason_seg/val/phrase/gIoU"] == pytest.approx(10)
    assert all(direction(f"eval/reason_seg/val/{name}") == "higher" for name in ("gIoU", "cIoU"))


def test_an_empty_target_scores_1_with_an_empty_prediction_and_else_0(tmp_path):
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    records = [image("a", nothing), image("b", nothing), image("c", box(0, 0, 2, 10))]
    found = scored(tmp_path, records, [nothing, box(0, 0, 1, 10), box(0, 0, 2, 10)])
    metrics = found.summary.benchmarks[0].metrics
    assert [s.J for s in found.scores] == [100, 0, 100]
    assert metrics.gIoU == pytest.approx(200 / 3) and metrics.cIoU == pytest.approx(100 * 20 / 30)


def test_without_any_pixel_there_is_no_ciou(tmp_path):
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    metrics = scored(tmp_path, [image("a", nothing)], [nothing]).summary.benchmarks[0].metrics
    assert metrics.gIoU == 100 and metrics.cIoU is None


def test_an_expression_without_target_counts_in_grefcoco(tmp_path):
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    record = image("a", box(0, 0, 2, 10), dataset="grefcoco")
    none = replace(record, video="b", expressions=(Expression("0", "a zebra", (), type_id=2),))
    found = scored(tmp_path, [record, none], [box(0, 0, 1, 10), nothing])
    metrics = found.summary.benchmarks[0].metrics
    assert metrics.expressions == 2 and metrics.gIoU == pytest.approx(75) and metrics.cIoU == pytest.approx(50)


def test_void_pixels_leave_both_masks(tmp_path):
    # 10 of the target's 20 pixels are void, and so are 10 of the prediction's 30.
    record = image("a", box(0, 0, 2, 10), void=box(1, 0, 2, 10))
    found = scored(tmp_path, [record], [box(0, 0, 3, 10)])
    assert [(s.intersection, s.union) for s in found.scores] == [(10, 20)]
    assert found.summary.benchmarks[0].metrics.cIoU == pytest.approx(50)


def test_a_missing_prediction_scores_0_and_its_target_is_in_the_union(tmp_path):
    found = scored(tmp_path, [image("a", box(0, 0, 2, 10)), image("b", box(0, 0, 2, 10))], [box(0, 0, 2, 10), None])
    metrics = found.summary.benchmarks[0].metrics
    assert metrics.missing == 1 and metrics.gIoU == pytest.approx(50) and metrics.cIoU == pytest.approx(50)


def test_the_measures_are_kept_and_shown(tmp_path):
    found = scored(tmp_path, [image("a", box(0, 0, 4, 10), "sentence")], [box(0, 0, 2, 10)])
    out = tmp_path / "out"
    origin = {"predictions": "masks", "shards": "shards"}
    write_scores(found.scores, found.summary, out, origin=origin)
    assert read_scores(out).summary == found.summary
    cells = [str(each) for each in metrics_table(found.summary).columns[0].cells]
    assert "  gIoU 50.0, cIoU 50.0" in cells and any(each.startswith("  sentence: gIoU 50.0") for each in cells)


def test_every_split_of_the_refcoco_family_is_scored_alike_and_videos_have_no_such_measure(tmp_path):
    for dataset, split in (("refcoco", "val"), ("refcoco", "testA"), ("refcoco_plus", "testB"), ("refcocog", "test")):
        protocol = protocol_for(dataset, split)
        assert protocol.overlap and protocol.official and protocol.name.endswith(f" {split}")
    assert protocol_for("ade20k", "train").overlap and not protocol_for("ade20k", "train").official
    assert not protocol_for("mevis", "valid_u").overlap and not protocol_for("youtube_vos", "train").overlap
    records = [image("a", box(0, 0, 4, 10), dataset="refcoco", split="testA")]
    found = scored(tmp_path, records, [box(0, 0, 2, 10)])
    assert found.summary.benchmarks[0].benchmark == "refCOCO testA"


def test_videos_have_neither(mevis, tmp_path):
    for number, entry in enumerate(mevis.videos):
        for expression in entry.expressions:
            target = mevis.read_target(number, expression, range(len(entry.frame_names)))
            write_masks(tmp_path / "masks", entry, expression, np.ascontiguousarray(target))
    found = score_splits([mevis], tmp_path / "masks", progress=False)
    assert {(s.intersection, s.union) for s in found.scores} == {(None, None)}
    assert found.summary.overall.gIoU is None and found.summary.overall.cIoU is None
    assert not any("IoU" in name for name in named_metrics(found.summary))
