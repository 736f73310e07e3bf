"""Where J is lost: hand-made frames of each part, and parts that always add up."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.predictions import write_masks
from glus.evaluation.results.mean_metrics import LOST
from glus.evaluation.results.summary import named_metrics, summarise
from glus.evaluation.score.bitplanes import minus, pack
from glus.evaluation.score.error_parts import PARTS, error_parts
from glus.evaluation.score.jf import jf_per_frame
from glus.evaluation.score.scoring import score_splits

SIDE = 12
Mask = NDArray[np.bool_]


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    found = np.zeros((SIDE, SIDE), bool)
    found[top:bottom, left:right] = True
    return found


TARGET, RIVAL, NOTHING = box(1, 1, 5, 5), box(1, 7, 7, 11), box(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("pred", "target", "part", "found"),
    [
        (TARGET, TARGET, "", True),
        (NOTHING, NOTHING, "", False),
        (box(1, 1, 5, 4), TARGET, "mask", True),
        (box(1, 1, 6, 6), TARGET, "mask", True),
        (RIVAL, TARGET, "object", False),
        (box(1, 4, 7, 11), TARGET, "object", False),
        (box(9, 0, 12, 4), TARGET, "object", False),
        (TARGET | RIVAL, TARGET, "both", False),
        (TARGET | box(1, 7, 6, 10), TARGET, "both", True),
        (NOTHING, TARGET, "missed", False),
        (RIVAL, NOTHING, "imagined", False),
        (box(9, 0, 12, 4), NOTHING, "imagined", False),
    ],
    ids=["right", "rightly empty", "part of it", "too large", "the rival", "most of the rival", "background"]
    + ["both", "both, the target more", "empty", "the rival, target absent", "background, target absent"],
)
def test_hand_made_frames(pred: Mask, target: Mask, part: str, found: bool) -> None:
    region, _ = jf_per_frame(pred[None], target[None])
    parts = error_parts(pack(pred[None]), pack(target[None]), [pack(RIVAL[None])], region)
    assert ["", *PARTS][parts.part[0]] == part and bool(parts.found[0]) == found
    lost = parts.lost(region)
    assert 100 * region[0] + sum(lost.values()) == pytest.approx(100)
    assert sum(value > 0 for value in lost.values()) == bool(part)


def test_a_larger_rival_does_not_make_a_mask_of_both_the_wrong_object() -> None:
    target, rival = box(0, 0, 2, 2), box(4, 0, 12, 12)
    pred = target | rival
    region, _ = jf_per_frame(pred[None], target[None])
    assert error_parts(pack(pred[None]), pack(target[None]), [pack(rival[None])], region).part[0] == 3


def test_an_expression_without_prediction_has_missed_every_frame() -> None:
    target = np.stack([TARGET, NOTHING])
    parts = error_parts(None, pack(target), [], np.zeros(2))
    assert parts.lost(np.zeros(2)) == {name: 100.0 * (name == "missed") for name in PARTS}
    assert parts.object_accuracy == 0.0


def test_accuracy_counts_frames_with_the_target_alone() -> None:
    target, pred = np.stack([TARGET, TARGET, NOTHING]), np.stack([TARGET, RIVAL, NOTHING])
    region, _ = jf_per_frame(pred, target)
    assert error_parts(pack(pred), pack(target), [pack(np.stack([RIVAL] * 3))], region).object_accuracy == 50.0
    absent = np.stack([NOTHING] * 3)
    assert error_parts(pack(pred), pack(absent), [], np.zeros(3)).object_accuracy is None


def switches(*frames: Mask) -> float | None:
    """Of masks in a clip whose target and two rivals stay where they are."""
    pred, target, rivals = np.stack(frames), np.stack([TARGET] * len(frames)), (RIVAL, box(8, 1, 12, 5))
    region, _ = jf_per_frame(pred, target)
    packed = [pack(np.stack([each] * len(frames))) for each in rivals]
    return error_parts(pack(pred), pack(target), packed, region).switches


def test_switches_are_worked_out_by_hand() -> None:
    other = box(8, 1, 12, 5)
    assert switches(TARGET, TARGET, TARGET) == 0.0
    assert switches(TARGET, RIVAL, RIVAL, TARGET, TARGET) == 50.0
    assert switches(RIVAL, other, RIVAL) == 100.0, "between two rivals too"
    assert switches(TARGET | box(0, 0, 1, 12), TARGET) == 0.0, "what a poor mask is on is what it fits best"
    assert switches(TARGET | RIVAL, RIVAL) == 0.0, "of both, the larger part decides"


def test_frames_on_no_object_are_passed_over() -> None:
    background = box(8, 8, 12, 12)
    assert switches(TARGET, NOTHING, TARGET) == 0.0, "lost and found again"
    assert switches(TARGET, NOTHING, background, RIVAL) == 100.0, "lost and taken for another"
    assert switches(NOTHING, TARGET, NOTHING) is None and switches(NOTHING, background) is None
    assert error_parts(None, pack(np.stack([TARGET] * 3)), [], np.zeros(3)).switches is None


def test_an_absent_target_is_no_object_that_a_mask_is_on() -> None:
    pred, target = np.stack([TARGET, RIVAL, RIVAL]), np.stack([TARGET, NOTHING, NOTHING])
    parts = error_parts(pack(pred), pack(target), [pack(np.stack([RIVAL] * 3))], np.zeros(3))
    assert parts.on.tolist() == [0, 1, 1] and parts.switches == 50.0


masks = arrays(bool, (10, 6, 7))


@given(masks, masks, masks, masks)
def test_j_and_the_parts_add_up_for_every_frame(pred: Mask, target: Mask, first: Mask, second: Mask) -> None:
    region, _ = jf_per_frame(pred, target)
    rivals = [minus(pack(each), pack(target)) for each in (first, second)]
    parts = error_parts(pack(pred), pack(target), rivals, region)
    assert np.array_equal(parts.part == 0, region == 1)
    assert 100 * region.mean() + sum(parts.lost(region).values()) == pytest.approx(100)
    empty, absent = ~pred.any((1, 2)), ~target.any((1, 2))
    assert np.array_equal(parts.part == 4, empty & ~absent) and np.array_equal(parts.part == 5, ~empty & absent)


@given(masks, masks, st.integers(0, 9))
def test_minus_is_set_difference(first: Mask, second: Mask, emptied: int) -> None:
    first[emptied:] = False
    assert np.array_equal(minus(pack(first), pack(second)).area, (first & ~second).sum((1, 2)))


def test_parts_of_a_split_add_up_in_every_mean_and_reach_every_output(mevis: ShardedSplit, tmp_path) -> None:
    """Every expression gets the mask of the next one: the right object only where both name the same."""
    for video, entry in enumerate(mevis.videos):
        frames = range(len(entry.frame_names))
        for expression, following in pairwise([*entry.expressions, entry.expressions[0]]):
            write_masks(tmp_path, entry, expression, mevis.read_target(video, following, frames))
    scored = score_splits([mevis], tmp_path, progress=False)
    for score in scored.scores:
        assert score.J is not None
        assert score.J + sum(getattr(score, name) for name in LOST) == pytest.approx(100)
    overall = scored.summary.overall
    assert overall.J is not None and overall.lost_object is not None
    assert overall.J + sum(getattr(overall, name) for name in LOST) == pytest.approx(100)
    assert overall.lost_mask is not None and overall.lost_object > 20 > overall.lost_mask
    assert overall.object_accuracy is not None and overall.object_accuracy < 80
    named = named_metrics(summarise(scored.scores))
    assert named["eval/overall/lost_object"] == overall.lost_object
    assert {f"eval/mevis/valid_u/{name}" for name in ("object_accuracy", "switches", *LOST)} <= set(named)
    assert all((score.switches is None) == (not score.rivals) for score in scored.scores if score.object_accuracy)
    of_frames = sum((frames.lost == 2).sum() for frames in scored.frames)
    assert of_frames > 0 and all(((frames.lost == 0) == (frames.J == 100)).all() for frames in scored.frames)
