"""Pixels that nobody annotated count for nothing: from released label maps over shards to every metric."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from glus.data_pipeline.raw.mask_sources import IndexedPngs
from glus.data_pipeline.raw.masks import decode, encode
from glus.data_pipeline.raw.records import Expression, Rle, VideoRecord
from glus.data_pipeline.shards.index import VOID_KEY, json_bytes, manifest_to_json
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.predictions import write_masks
from glus.evaluation.score.bitplanes import pack
from glus.evaluation.score.jf import accuracy, boundary_radius, jf_per_frame
from glus.evaluation.score.merged import score_merged
from glus.evaluation.score.scoring import score_split

FRAMES, HEIGHT, WIDTH = 3, 48, 64
NAMES = [f"{frame:05d}" for frame in range(FRAMES)]


def label_maps() -> NDArray[np.uint8]:
    """Objects 1 and 2 that move, void beside and between them."""
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for frame in range(FRAMES):
        labels[frame, 8:22, 4 + frame : 20 + frame] = 1
        labels[frame, 8:22, 20 + frame : 27 + frame] = 255
        labels[frame, 28:42, 30 : 50 + frame] = 2
        labels[frame, 42:44] = 255
    return labels


def save(labels: NDArray[np.integer], folder: Path) -> Path:
    (folder / "a").mkdir(parents=True)
    for name, plane in zip(NAMES, labels, strict=True):
        picture = Image.fromarray(plane)
        if plane.dtype == np.uint8:
            picture.putpalette(bytes(range(256)) * 3)
        picture.save(folder / "a" / f"{name}.png")
    return folder


class GreyFrames:
    names = tuple(NAMES)

    def read_bytes(self, index: int) -> bytes:
        return bytes(cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes())

    def origin(self, index: int) -> str:
        return NAMES[index]


@pytest.fixture
def record(tmp_path: Path) -> VideoRecord:
    """As `glus prepare` reads it from released PNGs: four annotators for each of two objects."""
    masks = IndexedPngs(save(label_maps(), tmp_path / "raw")).read("a", NAMES, (HEIGHT, WIDTH), ["1", "2"])
    said = tuple(
        Expression(str(4 * place + annotator), f"thing {name} {annotator}", (name,))
        for place, name in enumerate("12")
        for annotator in range(4)
    )
    return VideoRecord("ref_davis17", "valid", "a", HEIGHT, WIDTH, GreyFrames(), masks.objects, said, masks.void)


@pytest.fixture
def split(record: VideoRecord, new_split: Callable[[Sequence[VideoRecord]], ShardedSplit]) -> ShardedSplit:
    return new_split([record])


def predict(split: ShardedSplit, root: Path, shown: Callable[[int], NDArray[np.bool_]]) -> Path:
    entry = split.videos[0]
    for expression in entry.expressions:
        write_masks(root, entry, expression, shown(int(expression.object_ids[0])))
    return root


def official(
    pred: NDArray[np.bool_], target: NDArray[np.bool_], void: NDArray[np.bool_]
) -> tuple[list[float], list[float]]:
    """`db_eval_iou` and `f_measure` of davis2017-evaluation, frame by frame."""
    region, contour = [], []
    radius = boundary_radius(HEIGHT, WIDTH)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    for segmented, annotated, nothing in zip(pred, target, void, strict=True):
        inters = np.sum((segmented & annotated) & np.logical_not(nothing))
        union = np.sum((segmented | annotated) & np.logical_not(nothing))
        region.append(1.0 if union == 0 else inters / union)
        boundaries = []
        for mask in (segmented, annotated):
            seg = mask * np.logical_not(nothing)
            e, s, se = seg.copy(), seg.copy(), seg.copy()
            e[:, :-1], s[:-1], se[:-1, :-1] = seg[:, 1:], seg[1:], seg[1:, 1:]
            edge = seg ^ e | seg ^ s | seg ^ se
            edge[-1], edge[:, -1], edge[-1, -1] = seg[-1] ^ e[-1], seg[:, -1] ^ s[:, -1], 0
            boundaries.append(edge)
        fg, gt = boundaries
        near_fg, near_gt = (cv2.dilate(each.astype(np.uint8), disk).astype(bool) for each in boundaries)
        precision, recall = (fg & near_gt).sum() / max(fg.sum(), 1), (gt & near_fg).sum() / max(gt.sum(), 1)
        contour.append(2 * precision * recall / max(precision + recall, 1e-12))
    return region, contour


def test_void_goes_from_label_maps_into_shards_and_back(split: ShardedSplit) -> None:
    void = split.read_void(0, range(FRAMES))
    assert void is not None and np.array_equal(void, label_maps() == 255)
    assert split.videos[0].object_ids == ("1", "2") and split.manifest.counts.objects == 2
    streamed = next(split.stream())
    assert list(streamed.masks) == ["1", "2"] and streamed.void is not None
    assert np.array_equal(decode(streamed.void[1], HEIGHT, WIDTH), label_maps()[1] == 255)


def test_a_prediction_over_void_is_perfect(split: ShardedSplit, tmp_path: Path) -> None:
    labels = label_maps()
    root = predict(split, tmp_path / "masks", lambda number: (labels == number) | (labels == 255))
    naive = jf_per_frame((labels == 1) | (labels == 255), labels == 1)
    assert naive[0].max() < 0.7 and naive[1].max() < 0.9
    for scores in (score_split(split, root, progress=False), score_merged(split, root)):
        assert [(score.J, score.F) for score in scores] == [(100.0, 100.0)] * 8


def test_every_metric_is_that_of_the_official_code(split: ShardedSplit, tmp_path: Path) -> None:
    labels = label_maps()
    root = predict(split, tmp_path / "masks", lambda number: np.roll(np.isin(labels, (number, 255)), 3, axis=2))
    for score in score_split(split, root, progress=False):
        target = labels == int(score.object_ids[0])
        pred = np.roll(target | (labels == 255), 3, axis=2)
        region, contour = official(pred, target, labels == 255)
        assert 10 < 100 * np.mean(region) < 99 and 100 * np.mean(contour) > 10
        assert (score.J, score.F) == pytest.approx((100 * np.mean(region), 100 * np.mean(contour)), abs=1e-9)
        other = 3 - int(score.object_ids[0])
        wrong = np.roll(np.isin(labels, (other, 255)), 3, axis=2)
        control = official(wrong, target, labels == 255)
        assert (score.control_J, score.control_F) == pytest.approx([100 * np.mean(each) for each in control], abs=1e-9)


def test_accuracy_is_a_share_of_the_pixels_that_count() -> None:
    pred, target = (np.zeros((1, 4, 5), bool) for _ in range(2))
    target[0, 0, :2] = True
    assert accuracy(pack(pred), pack(target), np.array([10])) == pytest.approx([0.8])
    assert accuracy(pack(pred), pack(target)) == pytest.approx([0.9])


def test_255_is_an_object_where_labels_have_16_bits(tmp_path: Path) -> None:
    labels = label_maps().astype(np.uint16)
    masks = IndexedPngs(save(labels, tmp_path)).read("a", NAMES, (HEIGHT, WIDTH), ["255"])
    assert list(masks.objects) == ["1", "2", "255"] and masks.void is None
    assert np.array_equal(decode(masks.objects["255"][2], HEIGHT, WIDTH), labels[2] == 255)


def test_an_object_255_in_8_bits_is_refused_by_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"a/00000\.png: 255 is void in a mask of 8 bits, .* an object 255 too"):
        IndexedPngs(save(label_maps(), tmp_path)).read("a", NAMES, (HEIGHT, WIDTH), ["1", "255"])


def test_an_empty_frame_of_void_alone_counts_as_nothing(
    record: VideoRecord, new_split: Callable[[Sequence[VideoRecord]], ShardedSplit], tmp_path: Path
) -> None:
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    unseen: dict[str, list[Rle | None]] = {"1": [None] * 3, "2": [None] * 3}
    split = new_split([replace(record, void=[encode(everywhere), None, None], objects=unseen)])
    root = predict(split, tmp_path / "masks", lambda _: np.stack([everywhere, everywhere, ~everywhere]))
    scores = score_split(split, root, progress=False)
    assert [(score.J, score.F) for score in scores] == [(pytest.approx(200 / 3), 100.0)] * 8


def test_shards_from_before_void_was_kept_are_opened_and_say_so(
    record: VideoRecord,
    new_split: Callable[[Sequence[VideoRecord]], ShardedSplit],
    caplog: pytest.LogCaptureFixture,
) -> None:
    split = new_split([replace(record, void=None)])
    folder = split.storage.local
    assert folder is not None and VOID_KEY.encode() not in (Path(folder) / "shard-00000.tar").read_bytes()
    old = replace(split.manifest, version=2)
    split.storage.write("manifest.json", json_bytes(manifest_to_json(old)))
    with caplog.at_level(logging.WARNING):
        opened = ShardedSplit.open(folder)
    assert opened.read_void(0, range(FRAMES)) is None and opened.fingerprint == old.fingerprint != split.fingerprint
    assert "shards of format version 2, which drop void pixels" in caplog.text
