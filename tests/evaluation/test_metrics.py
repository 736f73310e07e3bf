"""J and F against the official code's metrics and against its definition written out in full."""

import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.evaluation.score.bitplanes import pack
from glus.evaluation.score.jf import (
    accuracy,
    boundary_radius,
    iou,
    jf,
    jf_per_frame,
    robustness,
)

SHARED = Path(os.environ.get("GLUS_SHARED", Path(__file__).parents[2].parent / "shared"))


def plain_j(pred, target, void):
    inters = np.sum((pred & target) & ~void)
    union = np.sum((pred | target) & ~void)
    return 1.0 if union == 0 else inters / union


def plain_boundary(seg):
    e, s, se = np.zeros_like(seg), np.zeros_like(seg), np.zeros_like(seg)
    e[:, :-1] = seg[:, 1:]
    s[:-1, :] = seg[1:, :]
    se[:-1, :-1] = seg[1:, 1:]
    b = seg ^ e | seg ^ s | seg ^ se
    b[-1, :] = seg[-1, :] ^ e[-1, :]
    b[:, -1] = seg[:, -1] ^ s[:, -1]
    b[-1, -1] = 0
    return b


def plain_dilate(boundary, radius):
    """Shift and or, one offset of the disk at a time: nothing of a library in it. As the official code where that
    would take seconds a frame."""
    height, width = boundary.shape
    if height * width > 240 * 432:
        return official_dilate(boundary, radius)
    padded = np.zeros((height + 2 * radius, width + 2 * radius), bool)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dx * dx + dy * dy <= radius * radius:
                padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width] |= boundary
    return padded[radius : radius + height, radius : radius + width]


def official_dilate(boundary, radius):
    square = np.arange(-radius, radius + 1) ** 2
    disk = (square[:, None] + square[None, :] <= radius**2).astype(np.uint8)
    return cv2.dilate(boundary.astype(np.uint8), disk).astype(bool)


def plain_f(pred, target, void):
    radius = math.ceil(0.008 * math.sqrt(pred.shape[0] ** 2 + pred.shape[1] ** 2))
    fg, gt = plain_boundary(pred & ~void), plain_boundary(target & ~void)
    n_fg, n_gt = fg.sum(), gt.sum()
    if n_fg == 0 and n_gt > 0:
        precision, recall = 1, 0
    elif n_fg > 0 and n_gt == 0:
        precision, recall = 0, 1
    elif n_fg == 0 and n_gt == 0:
        precision, recall = 1, 1
    else:
        precision = (fg & plain_dilate(gt, radius)).sum() / n_fg
        recall = (gt & plain_dilate(fg, radius)).sum() / n_gt
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def random_mask(rng, height, width):
    kind = rng.integers(7)
    mask = np.zeros((height, width), np.uint8)
    if kind == 1:
        mask[:] = 1
    elif kind == 2:
        mask[rng.integers(height), rng.integers(width)] = 1
    elif kind == 3:
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    elif kind == 4:  # touches two borders
        mask[: 1 + rng.integers(height), rng.integers(width) :] = 1
    elif kind >= 5:  # blobs, often cut by the border
        for _ in range(rng.integers(1, 4)):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            axes = (int(rng.integers(1, width // 2 + 2)), int(rng.integers(1, height // 2 + 2)))
            cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 1, -1)
    return mask.astype(bool)


#: Size -> pairs of masks: 1,000 in all.
PAIRS = {
    (1, 1): 100, (1, 2): 60, (2, 1): 60, (1, 300): 100, (300, 1): 100, (3, 3): 120, (17, 40): 160, (60, 107): 120,
    (120, 214): 100, (240, 432): 20, (480, 854): 40, (1080, 1920): 20,
}  # fmt: skip


def test_there_are_a_thousand_random_pairs():
    assert sum(PAIRS.values()) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("size", PAIRS, ids=str)
def test_random_masks_score_as_the_written_out_definition_says(size):
    """In clips of 1 to 20 frames: what is packed together must not mix."""
    rng = np.random.Generator(np.random.Philox(key=size[0] * 10_000 + size[1]))
    left = PAIRS[size]
    while left:
        frames = min(left, int(rng.integers(1, 21)) if max(size) < 400 else 3)
        left -= frames
        pred, target = (np.stack([random_mask(rng, *size) for _ in range(frames)]) for _ in range(2))
        void = np.zeros_like(pred)
        if rng.random() < 0.3:
            void = np.stack([random_mask(rng, *size) for _ in range(frames)])
        j, f = jf_per_frame(pred, target, void if void.any() else None)
        for t in range(frames):
            assert abs(j[t] - plain_j(pred[t], target[t], void[t])) < 1e-12
            assert abs(f[t] - plain_f(pred[t], target[t], void[t])) < 1e-12


def test_the_written_out_dilation_is_that_of_the_official_code():
    rng = np.random.Generator(np.random.Philox(key=5))
    boundary = rng.random((90, 110)) < 0.01
    for radius in (1, 2, 5, 8, 18):
        np.testing.assert_array_equal(plain_dilate(boundary, radius), official_dilate(boundary, radius))


def jf_of_frame(pred: np.ndarray, target: np.ndarray, void: np.ndarray | None = None) -> tuple[float, float]:
    region, boundary = jf_per_frame(pred[None], target[None], None if void is None else void[None])
    return float(region[0]), float(boundary[0])


def test_a_full_hd_pair_scores_as_the_written_out_definition_says():
    canvas = np.zeros((1080, 1920), np.uint8)
    pred = cv2.ellipse(canvas, (1600, 300), (420, 380), 20.0, 0, 360, 1, -1).astype(bool)
    target = np.roll(pred, (7, -9), (0, 1))
    nothing = np.zeros_like(pred)
    region, boundary = jf_of_frame(pred, target)
    assert abs(boundary - plain_f(pred, target, nothing)) < 1e-12
    assert abs(region - plain_j(pred, target, nothing)) < 1e-12


def test_accuracy_and_robustness_are_those_of_visa_on_binary_masks():
    rng = np.random.Generator(np.random.Philox(key=7))
    frames, size = 30, (40, 60)
    pred, target, other = (np.stack([random_mask(rng, *size) for _ in range(frames)]) for _ in range(3))
    foreground = target | other
    foreground[:3], target[:3] = False, False
    a = accuracy(pack(pred), pack(target))
    r = robustness(pack(pred), pack(target), pack(foreground))
    for t in range(frames):
        assert abs(a[t] - np.mean(pred[t] == target[t])) < 1e-12
        neg, pos = ((1 - target[t].astype(int)) * pred[t]).sum(), foreground[t].sum()
        assert abs(r[t] - max(1 - neg / (pos + 1e-6), 0.0)) < 1e-12
    assert 0.0 in r and r.max() > 0.9


def test_packed_masks_score_as_they_do_unpacked_and_know_their_areas():
    rng = np.random.Generator(np.random.Philox(key=8))
    pred, target = (np.stack([random_mask(rng, 30, 50) for _ in range(21)]) for _ in range(2))
    region, _ = jf(pack(pred), pack(target))
    np.testing.assert_array_equal(iou(pack(pred), pack(target)), region)
    np.testing.assert_array_equal(pack(pred).area, pred.sum(axis=(1, 2)))


def test_empty_against_empty_is_one_and_empty_against_something_is_zero():
    empty = np.zeros((20, 30), bool)
    dot = empty.copy()
    dot[5, 5] = True
    assert jf_of_frame(empty, empty) == (1.0, 1.0)
    assert jf_of_frame(empty, dot) == (0.0, 0.0)
    assert jf_of_frame(dot, empty) == (0.0, 0.0)


def test_what_differs_only_in_void_pixels_is_perfect():
    target = np.zeros((20, 30), bool)
    target[5:10, 5:10] = True
    pred = target.copy()
    pred[12:15, 20:25] = True
    assert jf_of_frame(pred, target, void=pred ^ target) == (1.0, 1.0)


def test_the_band_is_eight_pixels_wide_for_854_by_480():
    assert boundary_radius(480, 854) == 8
    assert boundary_radius(1, 1) == 1


def test_masks_of_unequal_shape_or_other_type_are_refused():
    mask = np.zeros((1, 4, 5), bool)
    with pytest.raises(ValueError, match="one shape"):
        jf_per_frame(mask, mask[:, :3])
    with pytest.raises(ValueError, match="one shape"):
        jf_per_frame(mask, mask, mask[:, :3])
    with pytest.raises(ValueError, match="must be bool"):
        jf_per_frame(mask.astype(np.uint8), mask)


def test_masks_of_osvos_score_as_the_official_code_scored_them():
    scored, truth = SHARED / "realdata/scored", SHARED / "realdata/DAVIS17/valid/Annotations"
    if not scored.is_dir():
        pytest.skip(f"official scores are not at {scored}")
    official = json.loads((scored / "official_scores.json").read_text())
    compared = 0
    for name, metrics in official.items():
        video, number = name.rsplit("_", 1)
        places = sorted((truth / video).glob("*.png"))
        target = np.stack([np.asarray(Image.open(place)) for place in places])
        pred = np.stack([np.asarray(Image.open(scored / "osvos" / video / place.name)) for place in places])
        void = target == 255
        j, f = jf_per_frame(pred == int(number), target == int(number), void if void.any() else None)
        np.testing.assert_allclose(j, metrics["J_all_frames"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(f, metrics["F_all_frames"], rtol=0, atol=1e-12)
        compared += len(j)
    assert compared == 210
