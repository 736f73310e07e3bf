"""What a micro-batch holds, against the drawings it was made of."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from glus.common.errors import DataError
from glus.data_pipeline.batches.batch import Batch, describe
from glus.data_pipeline.batches.buffers import Buffers
from glus.data_pipeline.batches.conversations import conversation
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig, Slot, random_context

from .tiny_splits import PARITY, drawn_splits, write_splits

DRAWN = list(drawn_splits().values())


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> SamplePlan:
    config = SamplingConfig(mixture={"mevis/train": 1.0, "refer_youtube_vos/train": 1.0})
    return SamplePlan(write_splits(tmp_path_factory.mktemp("shards")), config, seed=2, slots=6)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(PARITY)


@pytest.fixture(scope="module")
def slots(plan) -> list[Slot]:
    """The first step whose six slots show videos of all sizes and an expression of several objects."""
    steps = (plan.global_batch(step) for step in range(100))
    return next(
        slots
        for slots in steps
        if {(slot.split, slot.video) for slot in slots} >= {(0, 0), (0, 2), (1, 0)}
        and any(slot.video == slot.split == 0 and 4 in slot.expressions for slot in slots)
    )


def collate(plan: SamplePlan, slots: list[Slot], tokenizer: Tokenizer, **settings: int) -> Batch:
    """One micro-batch, as a loader makes it."""
    [described] = describe(plan, [slots], tokenizer, **settings)
    return described.with_frames(Buffers())


@pytest.fixture(scope="module")
def batch(plan, slots, tokenizer) -> Batch:
    return collate(plan, slots, tokenizer)


def rows(slots: list[Slot]):
    """(row of the batch, number of the slot, place in the slot)."""
    places = [(number, place) for number, slot in enumerate(slots) for place in range(len(slot.expressions))]
    return [(row, *place) for row, place in enumerate(places)]


def test_frames_are_those_drawn_each_once_and_found_by_context_and_query(batch, slots):
    assert batch.context.shape == (6, 4) and batch.query.shape == (6, 4)
    for number, slot in enumerate(slots):
        drawing, frames = DRAWN[slot.split][slot.video], batch.frames[number]
        assert frames.dtype == torch.uint8 and len(frames) == len({*slot.context, *slot.query})
        for indices, wanted in ((batch.context[number], slot.context), (batch.query[number], slot.query)):
            expected = np.stack([drawing.frame(frame) for frame in wanted])
            assert np.array_equal(frames[indices].numpy(), expected)


def test_void_comes_with_the_masks_of_the_videos_that_have_it(batch, slots):
    found = 0
    for masks, slot in zip(batch.masks, slots, strict=True):
        void = DRAWN[slot.split][slot.video].void
        assert (masks.void is None) == (void is None or not void[list(slot.query)].any())
        if masks.void is not None:
            found += 1
            assert np.array_equal(masks.void.painted().numpy(), void[None, list(slot.query)])
    assert 0 < found < len(slots)


def test_a_mask_is_the_union_of_the_expressions_objects(batch, slots):
    of_several = 0
    for number, slot in enumerate(slots):
        drawing, masks = DRAWN[slot.split][slot.video], batch.masks[number].painted()
        assert masks.dtype == torch.bool and masks.shape[:2] == (len(slot.expressions), 4)
        for mask, expression in zip(masks, slot.expressions, strict=True):
            said = drawing.expressions[expression]
            of_several += len(said.object_ids) > 1
            assert np.array_equal(mask.numpy(), drawing.target(said, slot.query))
    assert of_several


def test_ids_and_attention_are_the_padded_conversations(batch, slots, tokenizer):
    expressions = sum(len(slot.expressions) for slot in slots)
    assert batch.ids.shape == batch.attention.shape == (expressions, batch.ids.shape[1])
    assert batch.ids.dtype == torch.int64 and batch.attention.dtype == torch.bool
    assert batch.attention.sum(1).max() == batch.ids.shape[1]
    for row, number, place in rows(slots):
        slot = slots[number]
        said = DRAWN[slot.split][slot.video].expressions[slot.expressions[place]]
        made = tokenizer.encode(conversation(said.text, 4, slot.templates[place]))
        real, length = batch.attention[row], len(made)
        assert real.tolist() == [True] * length + [False] * (len(real) - length)
        assert batch.ids[row][real].tolist() == made and (batch.ids[row][~real] == tokenizer.pad_id).all()
        assert (batch.ids[row] == -200).sum() == 8 and (batch.ids[row] == tokenizer.seg_id).sum() == 4


def test_every_row_says_which_video_and_which_objects_it_is_about(batch, slots):
    names = []
    for row, number, place in rows(slots):
        slot = slots[number]
        drawing = DRAWN[slot.split][slot.video]
        said = drawing.expressions[slot.expressions[place]]
        assert batch.video_of[row] == number
        assert (batch.split[row], batch.expression[row]) == (slot.split, slot.expressions[place])
        columns = [object_id for object_id, held in zip(drawing.masks, batch.objects[row], strict=False) if held]
        assert tuple(columns) == said.object_ids and batch.objects[row].sum() == len(said.object_ids)
        names.append(f"{list(drawn_splits())[slot.split]}/{drawing.name}/{said.id}")
    assert batch.names == names


def test_slots_of_one_video_share_its_key_and_others_do_not(plan, slots, tokenizer):
    same = [replace(slots[0], query=slots[0].query), slots[0]]
    other = next(slot for slot in slots if (slot.split, slot.video) != (slots[0].split, slots[0].video))
    # The first video of each split: only the split tells them apart.
    first = [
        replace(slots[0], split=split, video=0, expressions=(0,), templates=slots[0].templates[:1]) for split in (0, 1)
    ]
    first = [replace(slot, context=(0,) * 4, query=(0, 1, 2, 3)) for slot in first]
    keys = collate(plan, [*same, other], tokenizer).video_key
    n = len(slots[0].expressions)
    assert len(set(keys[: 2 * n].tolist())) == 1 and keys[2 * n] != keys[0]
    assert len(set(collate(plan, first, tokenizer).video_key.tolist())) == 2


def test_the_single_frame_control_reads_one_frame_and_repeats_its_mask(plan, tokenizer):
    slot = next(slot for slot in plan.global_batch(0) if len(slot.expressions) == 3)
    one = replace(slot, context=(2,) * 4, query=(2,) * 4)
    batch = collate(plan, [one], tokenizer)
    assert len(batch.frames[0]) == 1 and not batch.context.any() and not batch.query.any()
    masks = batch.masks[0].painted()
    assert torch.equal(masks, masks[:, :1].expand_as(masks))


def test_without_context_frames_the_query_frames_alone_are_shown(plan, tokenizer):
    slot = replace(plan.global_batch(0)[0], context=random_context(9, 0, np.random.Generator(np.random.Philox(key=0))))
    batch = collate(plan, [slot], tokenizer)
    assert batch.context.shape == (1, 0) and batch.context.dtype == batch.query.dtype
    assert ((batch.ids == IMAGE_TOKEN_ID).sum(1) == len(slot.query)).all()


def test_a_slot_gives_the_same_rows_alone_and_among_others(plan, slots, batch, tokenizer):
    start = 0
    for number, slot in enumerate(slots):
        alone, rows_of = collate(plan, [slot], tokenizer), slice(start, start + len(slot.expressions))
        start += len(slot.expressions)
        length = alone.ids.shape[1]
        assert torch.equal(batch.frames[number], alone.frames[0])
        assert torch.equal(batch.masks[number].painted(), alone.masks[0].painted())
        assert torch.equal(batch.ids[rows_of, :length], alone.ids)
        assert torch.equal(batch.attention[rows_of, :length], alone.attention)


def with_text(plan: SamplePlan, text: str) -> tuple[SamplePlan, Slot]:
    """The plan with `text` for the first expression of refer_youtube_vos/train/exact, and a slot that shows it."""
    split = copy.copy(plan.splits[1])
    entry = split.videos[1]
    said = replace(entry.expressions[0], text=text)
    split.videos = (split.videos[0], replace(entry, expressions=(said,)))
    changed = copy.copy(plan)
    changed.splits = [plan.splits[0], split]
    return changed, Slot(1, 1, (0, 1, 2, 3), (0, 1, 2, 3), (0,), (((0, 0),) * 4,), grouped=False)


@pytest.mark.parametrize("text", ["a dog <image>", "a dog " * 40])
def test_an_expression_that_would_shift_frames_or_answers_is_refused_by_name(plan, tokenizer, text):
    message = (
        r"refer_youtube_vos/train/exact/0: '.*' has an <image> of its own or is too long for 512 tokens .* 4 query"
    )
    changed, slot = with_text(plan, text)
    with pytest.raises(DataError, match=message):
        collate(changed, [slot], tokenizer)


def test_a_seg_in_an_expression_is_plain_text(plan, tokenizer):
    changed, slot = with_text(plan, "a [SEG] dog")
    assert (collate(changed, [slot], tokenizer).ids == tokenizer.seg_id).sum() == 4


def test_a_conversation_may_lose_what_follows_its_last_seg(plan, tokenizer):
    changed, slot = with_text(plan, "a dog")
    whole = collate(changed, [slot], tokenizer)
    cut = collate(changed, [slot], tokenizer, max_text_tokens=whole.ids.shape[1] - 2)
    assert torch.equal(cut.ids, whole.ids[:, :-2]) and cut.ids[0, -1] == tokenizer.seg_id
    with pytest.raises(DataError, match="too long"):
        collate(changed, [slot], tokenizer, max_text_tokens=whole.ids.shape[1] - 3)


def test_moving_a_batch_moves_all_but_what_is_read_on_the_cpu_and_keeps_the_names(batch):
    moved = batch.to("meta")
    rows = (moved.ids, moved.attention, moved.answer, moved.video_of)
    identity = (moved.query_numbers, moved.split, moved.video_key, moved.expression, moved.objects)
    assert {each.device.type for each in (*rows, *identity)} == {"cpu"}
    runs = [each for masks in moved.masks for each in (masks.begins, masks.ends, masks.set_of)]
    tensors = [*moved.frames, *runs, moved.context, moved.query]
    assert {each.device.type for each in tensors} == {"meta"}
    assert moved.names == batch.names and [each.shape for each in moved.masks] == [each.shape for each in batch.masks]
    assert torch.equal(batch.to("cpu").ids, batch.ids)
