"""The key frame selector's samples: references, the target among them, labels, and what is left out or refused."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import DataError
from glus.common.seeds import numpy_generator
from glus.data_pipeline.batches.batch import Batch, describe
from glus.data_pipeline.batches.buffers import Buffers
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer
from glus.data_pipeline.sampling.frame_labels import read_labels
from glus.data_pipeline.sampling.references import draw_count
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig, _draw_frames
from glus.data_pipeline.shards.reader import ShardedSplit
from tests.frame_labels import ramp, write_labels

from .tiny_splits import PARITY, write_splits

CONFIG = SamplingConfig(
    mixture={"mevis/train": 1.0, "refer_youtube_vos/train": 1.0},
    frame_choice="references",
    context_frames=5,
    least_context_frames=3,
    query_frames=1,
    expressions=3,
    group_by_object=False,
    prompts="selector",
)
SLOTS = 6


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[ShardedSplit]:
    return write_splits(tmp_path_factory.mktemp("shards"))


def plan_of(splits: Sequence[ShardedSplit], folder: Path, slots: int = SLOTS, **changes: object) -> SamplePlan:
    return SamplePlan(splits, replace(CONFIG, frame_scores=str(folder), **changes), seed=3, slots=slots)


@pytest.fixture(scope="module")
def plan(splits: list[ShardedSplit], tmp_path_factory: pytest.TempPathFactory) -> SamplePlan:
    return plan_of(splits, write_labels(tmp_path_factory.mktemp("scores"), splits))


@given(frames=st.integers(12, 400), seed=st.integers(0, 2**32), step=st.integers(0, 2**20), data=st.data())
def test_one_reference_lies_in_each_equal_part_and_one_of_them_is_the_target(frames, seed, step, data):
    most = data.draw(st.integers(1, 12))
    least = data.draw(st.integers(0, most))
    config = replace(CONFIG, context_frames=most, least_context_frames=least)
    count = draw_count(seed, step, least, most)
    assert (least or most) <= count <= most and count == draw_count(seed, step, least, most)
    references, target = _draw_frames(
        frames, config, numpy_generator(seed, step), count, numpy_generator(seed, step, 1)
    )
    bounds = np.linspace(0, frames, count + 1).astype(int)
    assert len(references) == count and len(target) == 1 and target[0] in references
    assert all(low <= frame < high for low, frame, high in zip(bounds[:-1], references, bounds[1:], strict=True))


def test_every_number_of_references_and_every_place_of_the_target_is_drawn_alike():
    counts = Counter(draw_count(7, step, 8, 12) for step in range(2000))
    assert set(counts) == {8, 9, 10, 11, 12} and all(320 <= count <= 480 for count in counts.values())
    config = replace(CONFIG, context_frames=4, least_context_frames=0)
    drawn = [_draw_frames(40, config, numpy_generator(1, step), 4, numpy_generator(2, step)) for step in range(2000)]
    places = Counter(references.index(target[0]) for references, target in drawn)
    assert len(places) == 4 and all(400 <= count <= 600 for count in places.values())


def test_slots_of_a_step_have_as_many_references_whoever_draws_them(plan: SamplePlan) -> None:
    counts = set()
    for step in range(30):
        slots = plan.global_batch(step)
        [count] = {len(slot.context) for slot in slots}
        assert count == plan.context_frames(step) and all(slot == plan.slot(step, n) for n, slot in enumerate(slots))
        assert all(slot.query[0] in slot.context and len(slot.expressions) <= 3 for slot in slots)
        assert all(len(pairs) == 1 for slot in slots for pairs in slot.templates)
        counts.add(count)
    assert counts == {3, 4, 5}


def test_a_batch_holds_prompts_frames_and_labels(plan: SamplePlan) -> None:
    tokenizer = Tokenizer(PARITY)
    for step in range(4):
        slots = plan.global_batch(step)
        batch: Batch = describe(plan, [slots], tokenizer)[0].with_frames(Buffers())
        count = plan.context_frames(step)
        assert batch.context.shape == (SLOTS, count) and batch.query.shape == (SLOTS, 1)
        assert all(len(frames) == count for frames in batch.frames)
        assert ((batch.ids == IMAGE_TOKEN_ID).sum(1) == count + 1).all()
        assert torch.equal(batch.answer, batch.ids == tokenizer.seg_id) and (batch.answer.sum(1) == 1).all()
        assert batch.score is not None and batch.score.dtype == torch.float32
        due = []
        for slot in slots:
            entry = plan.splits[slot.split].videos[slot.video]
            due += [[ramp(entry, each)[frame] / 100 for frame in slot.query] for each in slot.expressions]
        assert torch.allclose(batch.score, torch.tensor(due, dtype=torch.float32))
        assert batch.to("cpu").score is not None


def test_what_has_no_labels_is_left_out_and_counted(splits: list[ShardedSplit], tmp_path: Path) -> None:
    def label(entry, expression):
        return None if (entry.video, expression) in (("groups", 1), ("exact", 0)) else ramp(entry, expression)

    plan = plan_of(splits, write_labels(tmp_path, splits, label), context_frames=6, mixture={"mevis/train": 1.0})
    drawn = {
        (plan.splits[0].videos[slot.video].video, expression)
        for step in range(60)
        for slot in plan.global_batch(step)
        for expression in slot.expressions
    }
    assert drawn == {("groups", n) for n in (0, 2, 3, 4, 5)} | {("one_object", n) for n in (0, 1, 2)}
    assert plan.notes == [
        "mevis/train: left out: 2 videos shorter than 6 frames, 2 expressions without a known target, "
        "1 expressions without scores"
    ]


def test_other_methods_have_no_labels(splits: list[ShardedSplit]) -> None:
    plan = SamplePlan(splits, SamplingConfig(mixture={"mevis/train": 1.0}), seed=0, slots=2)
    batch = describe(plan, [plan.global_batch(0)], Tokenizer(PARITY))[0].batch
    assert batch.score is None and plan.labels is None and plan.notes == [] and "-" not in plan.fingerprint


def test_other_labels_are_other_data(splits: list[ShardedSplit], plan: SamplePlan, tmp_path: Path) -> None:
    same = plan_of(splits, write_labels(tmp_path / "same", splits))
    other = plan_of(splits, write_labels(tmp_path / "other", splits, lambda entry, _: ramp(entry, 3)))
    assert same.fingerprint == plan.fingerprint != other.fingerprint


def test_labels_of_another_split_are_refused(splits: list[ShardedSplit], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scores mevis/train, not refer_youtube_vos/train, which .* take it out"):
        plan_of(splits, write_labels(tmp_path, splits[:1]))


def test_labels_of_other_frames_or_other_shards_are_refused(splits: list[ShardedSplit], tmp_path: Path) -> None:
    fewer = write_labels(tmp_path / "fewer", splits, frame_names=lambda entry: entry.frame_names[1:])
    with pytest.raises(DataError, match=r"scores other frames of mevis/train/groups/0 \(8 there, 9 in the shards\)"):
        plan_of(splits, fewer)
    named = write_labels(tmp_path / "named", splits, frame_names=lambda entry: [f"x{n}" for n in entry.frame_names])
    with pytest.raises(DataError, match=r"other frames of mevis/train/groups/0 \(9 there, 9 in the shards\)"):
        plan_of(splits, named)
    other = write_labels(tmp_path / "other", splits, fingerprints={"mevis/train": "0123456789abcdef0"})
    with pytest.raises(DataError, match=r"other shards of mevis/train \(fingerprint 0123456789abcdef, now \w{16}\)"):
        plan_of(splits, other)


def test_videos_that_are_all_too_short_are_refused(splits: list[ShardedSplit], tmp_path: Path) -> None:
    folder = write_labels(tmp_path, splits)
    with pytest.raises(DataError, match=r"mevis/train has no video with 12 frames and an expression that .* scores"):
        plan_of(splits, folder, context_frames=12)


def test_values_that_are_no_j_are_refused(splits: list[ShardedSplit], tmp_path: Path) -> None:
    for number, wrong in enumerate((np.nan, 100.5, -1.0)):
        folder = write_labels(tmp_path / str(number), splits, lambda entry, _, wrong=wrong: ramp(entry, 0) * 0 + wrong)
        with pytest.raises(DataError, match=r"frames.parquet: a J is not from 0 to 100; predict and score"):
            plan_of(splits, folder)


def test_folders_without_scores_are_refused(splits: list[ShardedSplit], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"frame_scores is empty: name a folder of `glus evaluate`"):
        SamplePlan(splits, CONFIG, seed=3, slots=SLOTS)
    with pytest.raises(DataError, match=r"scores.json: no such file of scores"):
        plan_of(splits, tmp_path)
    (tmp_path / "scores.json").write_text(json.dumps({"origin": {}}), encoding="utf-8")
    with pytest.raises(DataError, match=r"frames.parquet: no such file of frames' scores: .*; score these predictions"):
        plan_of(splits, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query_frames": 2}, r"query_frames=2 with frame_choice references: .* set it to 1"),
        ({"least_context_frames": 6}, r"least_context_frames=6 .* give 1 to sampling.context_frames \(5\)"),
        ({"frame_choice": "windows"}, r"least_context_frames=3 with frame_choice windows: .* leave it out"),
        (
            {"frame_choice": "windows", "least_context_frames": 0, "frame_scores": "x"},
            r"frame_scores=x with frame_choice windows",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        replace(CONFIG, **settings)


def test_labels_are_found_by_video_expression_and_frame(splits: list[ShardedSplit], tmp_path: Path) -> None:
    labels = read_labels(write_labels(tmp_path, splits), splits)
    entry = splits[0].videos[0]
    assert labels.splits[0].values is labels.splits[1].values and labels.splits[0].values.dtype == np.float32
    assert labels.splits[0].labelled(0).tolist() == [True] * 6 + [False]
    assert labels.splits[0].of(0, 2, [8, 0]).tolist() == pytest.approx([ramp(entry, 2)[8] / 100, 0])
    assert labels.splits[0].videos().tolist() == [True, True, True, True, False]
