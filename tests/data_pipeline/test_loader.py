"""Micro-batches in the order of the plan, on any number of ranks and workers."""

import json
from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from glus.common.errors import DataError
from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.loader import Loader
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig

from .tiny_splits import PARITY, write_splits

pytestmark = pytest.mark.slow

SLOTS, SIZE, STEPS = 12, 2, 4


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> SamplePlan:
    config = SamplingConfig(mixture={"mevis/train": 1.0, "refer_youtube_vos/train": 1.0})
    return SamplePlan(write_splits(tmp_path_factory.mktemp("shards")), config, seed=3, slots=SLOTS)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(PARITY)


def read(plan, tokenizer, rank=0, ranks=1, start=0, stop=STEPS, workers=0) -> list[Batch]:
    stream = Loader(plan, tokenizer, rank=rank, ranks=ranks, size=SIZE, start=start, stop=stop, workers=workers)
    return list(stream)


@pytest.fixture(scope="module")
def alone(plan, tokenizer) -> list[Batch]:
    """All micro-batches, as one rank gets them."""
    return read(plan, tokenizer)


def assert_equal(first: Batch, second: Batch) -> None:
    for field in fields(Batch):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs), field.name
        elif field.name == "names" or ours is None:
            assert ours == theirs
        else:
            pixels = [
                [part if field.name == "frames" else part.painted() for part in parts] for parts in (ours, theirs)
            ]
            assert len(ours) == len(theirs) and all(map(torch.equal, *pixels)), field.name


def test_one_rank_gets_the_slots_of_every_step_in_order(plan, alone):
    expected = []
    for step in range(STEPS):
        for slot in plan.global_batch(step):
            entry = plan.splits[slot.split].videos[slot.video]
            expected += [
                f"{entry.dataset}/{entry.split}/{entry.video}/{entry.expressions[e].id}" for e in slot.expressions
            ]
    assert [name for batch in alone for name in batch.names] == expected
    assert len(alone) == STEPS * SLOTS // SIZE and all(len(batch.frames) == SIZE for batch in alone)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_any_number_of_ranks_reads_the_same_global_batches_in_the_same_order(plan, tokenizer, alone, ranks):
    by_rank = [read(plan, tokenizer, rank, ranks) for rank in range(ranks)]
    assert {len(batches) for batches in by_rank} == {len(alone) // ranks}
    together = [batch for turn in zip(*by_rank, strict=True) for batch in turn]
    for ours, expected in zip(together, alone, strict=True):
        assert_equal(ours, expected)


def test_reading_goes_on_exactly_at_the_step_where_it_is_resumed(plan, tokenizer, alone):
    resumed = read(plan, tokenizer, start=1)
    for ours, expected in zip(resumed, alone[SLOTS // SIZE :], strict=True):
        assert_equal(ours, expected)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_give_equal_batches_in_equal_order(plan, tokenizer, alone, workers):
    for ours, expected in zip(read(plan, tokenizer, workers=workers), alone, strict=True):
        assert_equal(ours, expected)


def test_nothing_is_read_before_it_is_asked_for(plan, tokenizer, alone):
    # A run may be planned for millions of steps.
    first = islice(Loader(plan, tokenizer, rank=0, ranks=1, size=SIZE, start=0, stop=10**9), 2)
    for ours, expected in zip(first, alone[:2], strict=True):
        assert_equal(ours, expected)


def test_no_steps_give_no_batches(plan, tokenizer):
    assert read(plan, tokenizer, start=2, stop=2) == []


@pytest.mark.parametrize(("ranks", "multiple"), [(4, 8), (5, 10)])
def test_a_global_batch_that_does_not_divide_is_refused_with_what_would_fit(plan, tokenizer, ranks, multiple):
    message = f"a global batch of 12 videos .* micro-batches of 2 on {ranks} ranks: .* a multiple of {multiple}"
    with pytest.raises(DataError, match=message):
        read(plan, tokenizer, ranks=ranks)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_data_is_told_in_one_line_wherever_it_is_read(tmp_path, tokenizer, workers):
    splits = write_splits(tmp_path)
    shard = Path(splits[0].storage.path("shard-00000.tar"))
    shard.chmod(0o644)
    with shard.open("r+b") as file:
        file.truncate(1000)
    plan = SamplePlan(splits, SamplingConfig(mixture={"mevis/train": 1.0}), seed=3, slots=SIZE)
    with pytest.raises(DataError) as caught:
        read(plan, tokenizer, workers=workers)
    assert str(caught.value).startswith(f"{shard}: ends before byte ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [1, 3])
def test_damage_is_told_when_its_turn_has_come_however_far_ahead_it_was_read(tmp_path, tokenizer, workers):
    splits = write_splits(tmp_path)
    name = "refer_youtube_vos/train"
    number = 1
    (shard, (_, (offset, _), *_)) = splits[1].index.spans(number)
    path = Path(splits[1].storage.path(shard))
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"[")
    plan = SamplePlan(splits, SamplingConfig(mixture={"mevis/train": 9.0, name: 1.0}), seed=3, slots=SLOTS)
    turn = next(
        turn
        for turn in range(STEPS * SLOTS // SIZE)
        if any(
            (slot.split, slot.video) == (1, number) for slot in plan.global_batch(turn // 6)[turn % 6 * SIZE :][:SIZE]
        )
    )
    assert turn % 8 not in (0, 7)
    with Loader(plan, tokenizer, rank=0, ranks=1, size=SIZE, start=0, stop=STEPS, workers=workers) as loader:
        for _ in range(turn):
            next(loader)
        with pytest.raises(
            DataError, match=f"{shard}: the masks of video {splits[1].videos[number].video} are not those"
        ):
            next(loader)


def test_reading_goes_on_with_the_same_rest_from_any_position_on_any_number_of_ranks(plan, tokenizer, alone):
    random = np.random.Generator(np.random.Philox(key=9))
    for _ in range(50):
        taken = int(random.integers(len(alone)))
        with Loader(plan, tokenizer, rank=0, ranks=1, size=SIZE, start=0, stop=STEPS) as first:
            first.position = taken
            state = json.loads(json.dumps(first.state_dict()))
        ranks = int(random.choice([ranks for ranks in (1, 2, 3, 6) if taken % ranks == 0]))
        rank, workers = int(random.integers(ranks)), int(random.integers(5))
        with Loader(plan, tokenizer, rank=rank, ranks=ranks, size=SIZE, start=0, stop=STEPS, workers=workers) as later:
            later.load_state_dict(state)
            wanted = range(taken + rank, len(alone), ranks)
            assert [later.slots_of(later.position + turn) for turn in range(len(wanted))] == [
                (number // 6, range(number % 6 * SIZE, number % 6 * SIZE + SIZE)) for number in wanted
            ]
            assert_equal(next(later), alone[wanted[0]])


def test_a_loader_that_reads_ahead_says_what_was_taken_not_what_was_read(plan, tokenizer, alone):
    with Loader(plan, tokenizer, rank=0, ranks=1, size=SIZE, start=0, stop=STEPS, workers=3) as loader:
        for _ in range(7):
            next(loader)
        state = loader.state_dict()
        assert (state["step"], state["slots"]) == (1, SIZE)
        loader.load_state_dict(state | {"step": 0, "slots": 0})
        assert_equal(next(loader), alone[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"fingerprint": "abc"},
            r"not those that this state was made with \(fingerprint abc, now .*Restore the shards",
        ),
        ({"seed": 4}, "made with seed 4, the plan has 3"),
        ({"slots": 2}, "stands 2 slots into step 1, which 2 ranks with micro-batches of 2 cannot share"),
    ],
)
def test_a_state_of_other_data_or_another_course_is_refused(plan, tokenizer, change, message):
    with Loader(plan, tokenizer, rank=0, ranks=2, size=SIZE, start=1, stop=STEPS) as loader:
        with pytest.raises(DataError, match=message):
            loader.load_state_dict(loader.state_dict() | change)
        with pytest.raises(DataError, match="not the state of a loader: it has no 'slots'"):
            loader.load_state_dict({"step": 1})
