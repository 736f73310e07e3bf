"""VideoLISA's choice of frames: the reference's, and its limits for videos of any length."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import DataError
from glus.common.seeds import numpy_generator
from glus.data_pipeline.batches.batch import describe
from glus.data_pipeline.batches.buffers import Buffers
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig
from glus.data_pipeline.sampling.sparse_dense import (
    dense_frames,
    dense_positions,
    draw_training_frames,
    global_draw,
    neighbours,
    sparse_frames,
    training_frames,
)

from .tiny_splits import write_splits
from .videolisa_recording import Recorded, toy_tokenizer

LENGTHS = st.integers(1, 200)
SPARSE_DENSE = SamplingConfig(
    mixture={"mevis/train": 1.0, "refer_youtube_vos/train": 1.0},
    frame_choice="sparse_dense",
    context_frames=32,
    query_frames=4,
    expressions=3,
    prompts="videolisa",
)


def test_the_frames_of_inference_are_the_references(recorded: Recorded):
    for case in recorded.values["sampling_infer"]:
        sparse, dense = case["sparse_index"], case["dense_index"]
        assert sparse_frames(case["frames"], len(sparse)) == tuple(sparse)
        assert dense_positions(len(sparse), len(dense)) == tuple(dense)


def test_the_references_draws_give_the_references_training_frames(recorded: Recorded):
    for case in [*recorded.values["sampling_train"], *recorded.values["train"]]:
        (_, _, before), (_, _, after), (_, asked, picks) = case["draws"]
        frames, count = case["frames"], len(case["sparse_index"])
        due = global_draw(frames, case["frame_id"], before, after, count)
        assert [due.choices, due.picks] == asked
        assert training_frames(frames, case["frame_id"], before, after, count, picks) == tuple(case["sparse_index"])


@given(frames=LENGTHS, sparse=st.integers(1, 40), dense=st.integers(1, 40))
def test_inference_shows_a_video_evenly(frames, sparse, dense):
    shown = sparse_frames(frames, sparse)
    assert len(shown) == sparse and list(shown) == sorted(shown) and 0 <= shown[0] and shown[-1] < frames
    times = Counter(shown)
    assert max(times.values()) - min(times.values()) <= 1
    assert len(times) == min(frames, sparse)
    if dense <= sparse:
        positions = dense_positions(sparse, dense)
        assert len(positions) == dense and 0 <= positions[0] and positions[-1] < sparse
        assert list(positions) == sorted(positions)
        assert dense_frames(shown, dense) == tuple(shown[position] for position in positions)


@given(frames=LENGTHS, sparse=st.integers(1, 40), seed=st.integers(0, 2**32), data=st.data())
def test_training_draws_an_anchor_its_neighbours_and_others(frames, sparse, seed, data):
    dense = data.draw(st.integers(1, sparse))
    chosen, few = draw_training_frames(frames, sparse, dense, numpy_generator(seed))
    assert (chosen, few) == draw_training_frames(frames, sparse, dense, numpy_generator(seed))
    assert len(chosen) == sparse and list(chosen) == sorted(chosen) and 0 <= chosen[0] and chosen[-1] < frames
    assert len(few) == dense and not Counter(few) - Counter(chosen) and list(few) == sorted(few)
    assert any(frame % sparse == 0 for frame in chosen)
    if frames <= sparse - 3:
        assert set(chosen) == set(range(frames))


@given(frames=LENGTHS, anchor=st.integers(0, 199), before=st.integers(1, 3), after=st.integers(1, 3))
def test_neighbours_stay_in_the_video_and_are_shown(frames, anchor, before, after):
    anchor %= frames
    due = global_draw(frames, anchor, before, after, 32)
    shown = training_frames(frames, anchor, before, after, 32, range(due.picks))
    first, last = neighbours(frames, anchor, before, after)
    assert len(shown) == 32 and not {anchor, first, last} - set(shown)
    assert 0 <= first <= anchor <= last < frames


def test_every_anchor_of_a_long_video_is_drawn():
    drawn = [draw_training_frames(100, 32, 4, numpy_generator(7, step)) for step in range(200)]
    for anchor in (0, 32, 64, 96):
        assert any(anchor in sparse for sparse, _ in drawn)
    assert len(set(drawn)) == 200
    positions = Counter(sparse.index(frame) for sparse, dense in drawn for frame in dense)
    assert len(positions) > 25  # dense positions are drawn from all of them


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return write_splits(tmp_path_factory.mktemp("shards"))


def test_a_batch_of_videolisa_has_its_frames_prompts_masks_and_labels(splits):
    plan, tokenizer = SamplePlan(splits, SPARSE_DENSE, seed=3, slots=4), toy_tokenizer()
    slots = plan.global_batch(0)
    batch = describe(plan, [slots], tokenizer)[0].with_frames(Buffers())
    assert batch.context.shape == (4, 32) and batch.query.shape == (4, 4)
    for number, slot in enumerate(slots):
        entry = plan.splits[slot.split].videos[slot.video]
        assert batch.frames[number].shape == (len({*slot.context}), 3, entry.height, entry.width)
        context, query = batch.context[number].tolist(), batch.query[number].tolist()
        assert context == sorted(context) and not Counter(query) - Counter(context)
        distinct = sorted({*slot.context})
        assert [distinct[place] for place in query] == list(slot.query) == batch.query_numbers[number].tolist()
        split = plan.splits[slot.split]
        due = split.read_targets(slot.video, [entry.expressions[each] for each in slot.expressions], slot.query)
        assert np.array_equal(batch.masks[number].painted().numpy(), due)
        assert all(len(pairs) == 1 for pairs in slot.templates)
    assert ((batch.ids == -200).sum(1) == 1).all() and ((batch.ids == tokenizer.seg_id).sum(1) == 1).all()
    end = tokenizer.added["<|end|>"]
    for row in range(len(batch.ids)):
        learnt = batch.ids[row][batch.answer[row]].tolist()
        assert tokenizer.seg_id in learnt and learnt[-1] == end and learnt.count(end) == 1
        assert batch.ids[row][batch.answer[row].nonzero()[0] - 1] == tokenizer.added["<|assistant|>"]
    assert not (batch.answer & ~batch.attention).any()


def test_videos_shorter_than_the_sparse_frames_are_drawn(splits):
    plan = SamplePlan(splits, SPARSE_DENSE, seed=0, slots=6)
    names = {plan.splits[slot.split].videos[slot.video].video for step in range(60) for slot in plan.global_batch(step)}
    assert names == {"groups", "one_object", "no_pair", "short", "long", "exact"}


def test_a_single_frame_is_shown_in_all_places(splits):
    plan = SamplePlan(splits, replace(SPARSE_DENSE, single_frame=True), seed=0, slots=6)
    for slot in plan.global_batch(0):
        assert len({*slot.context, *slot.query}) == 1 and len(slot.context) == 32 and len(slot.query) == 4


def test_more_dense_frames_than_sparse_ones_are_refused():
    with pytest.raises(DataError, match=r"query_frames=5 with frame_choice sparse_dense.*context_frames \(4\)"):
        SamplingConfig(frame_choice="sparse_dense", context_frames=4, query_frames=5)


def test_the_prompts_of_videolisa_need_the_tokens_of_phi3(splits):
    from glus.data_pipeline.batches.tokenizer import Tokenizer

    from .tiny_splits import PARITY

    plan = SamplePlan(splits, SPARSE_DENSE, seed=0, slots=1)
    with pytest.raises(DataError, match=r"has no token <\|system\|>, which sampling.prompts=videolisa needs"):
        describe(plan, [plan.global_batch(0)], Tokenizer(PARITY))


def test_windows_draw_what_they_drew_before(splits):
    plan = SamplePlan(splits, SamplingConfig(mixture={"mevis/train": 1.0}), seed=5, slots=1)
    entry_frames = [len(plan.splits[0].videos[plan.slot(step, 0).video].frame_names) for step in range(30)]
    queries = [np.diff(plan.slot(step, 0).query).tolist() for step in range(30)]
    assert all(query == [1, 1, 1] for query in queries) and min(entry_frames) >= 4
