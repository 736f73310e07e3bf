"""J and F against the official code's figures and against its definition written out in full."""

import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glus.evaluation.metrics import boundary_accuracy, boundary_radius, jf_per_frame, region_similarity

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
    """Shift and or, one offset of the disk at a time: nothing of a library in it."""
    height, width = boundary.shape
    padded = np.zeros((height + 2 * radius, width + 2 * radius), bool)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dx * dx + dy * dy <= radius * radius:
                padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width] |= boundary
    return padded[radius : radius + height, radius : radius + width]


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


SIZES = [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (3, 3), (17, 40), (120, 214), (240, 432), (480, 854)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_random_masks_score_as_the_written_out_definition_says(size):
    rng = np.random.Generator(np.random.Philox(key=size[0] * 10_000 + size[1]))
    count = 60 if max(size) < 300 else 6
    for _ in range(count):
        pred, target = random_mask(rng, *size), random_mask(rng, *size)
        void = random_mask(rng, *size) if rng.random() < 0.3 else np.zeros(size, bool)
        j, f = jf_per_frame(pred[None], target[None], void[None] if void.any() else None)
        assert abs(j[0] - plain_j(pred, target, void)) < 1e-12
        assert abs(f[0] - plain_f(pred, target, void)) < 1e-12


def test_a_full_hd_pair_scores_as_the_written_out_definition_says():
    canvas = np.zeros((1080, 1920), np.uint8)
    pred = cv2.ellipse(canvas, (1600, 300), (420, 380), 20.0, 0, 360, 1, -1).astype(bool)
    target = np.roll(pred, (7, -9), (0, 1))
    nothing = np.zeros_like(pred)
    assert abs(boundary_accuracy(pred, target) - plain_f(pred, target, nothing)) < 1e-12
    assert abs(region_similarity(pred, target) - plain_j(pred, target, nothing)) < 1e-12


def test_empty_against_empty_is_one_and_empty_against_something_is_zero():
    empty = np.zeros((20, 30), bool)
    dot = empty.copy()
    dot[5, 5] = True
    assert (region_similarity(empty, empty), boundary_accuracy(empty, empty)) == (1.0, 1.0)
    assert (region_similarity(empty, dot), boundary_accuracy(empty, dot)) == (0.0, 0.0)
    assert (region_similarity(dot, empty), boundary_accuracy(dot, empty)) == (0.0, 0.0)


def test_what_differs_only_in_void_pixels_is_perfect():
    target = np.zeros((20, 30), bool)
    target[5:10, 5:10] = True
    pred = target.copy()
    pred[12:15, 20:25] = True
    assert region_similarity(pred, target, void=pred ^ target) == 1.0
    assert boundary_accuracy(pred, target, void=pred ^ target) == 1.0


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
    for name, figures in official.items():
        video, number = name.rsplit("_", 1)
        places = sorted((truth / video).glob("*.png"))
        target = np.stack([np.asarray(Image.open(place)) for place in places])
        pred = np.stack([np.asarray(Image.open(scored / "osvos" / video / place.name)) for place in places])
        void = target == 255
        j, f = jf_per_frame(pred == int(number), target == int(number), void if void.any() else None)
        np.testing.assert_allclose(j, figures["J_all_frames"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(f, figures["F_all_frames"], rtol=0, atol=1e-12)
        compared += len(j)
    assert compared == 210
