"""Which decoded frames a frame looks at, and how much is kept for it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glus.model.memory import Memory, MemoryBank


def memory_of(frame: int) -> Memory:
    """A memory that names its frame."""
    return Memory((torch.full((1, 1, 1), float(frame)),), (torch.zeros(1, 1, 1),), projected=False)


def after(frames: int, stride: int, size: int = 7) -> MemoryBank:
    bank = MemoryBank.empty(size)
    for frame in range(frames):
        bank = bank.with_frame(frame, memory_of(frame), stride)
    return bank


def seen(bank: MemoryBank, frame: int, stride: int) -> list[int]:
    return [int(memory.keys[0].item()) for memory in bank.for_frame(frame, stride)]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [(0, []), (1, [0]), (3, [0, 1, 2]), (7, [0, 1, 2, 3, 4, 5, 6]), (10, [3, 4, 5, 6, 7, 8, 9])],
)
def test_with_stride_1_a_frame_looks_at_the_seven_before_it_oldest_first(frame, expected):
    assert seen(after(frame, 1), frame, 1) == expected


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (1, [0]),
        (2, [0, 1]),
        (3, [0, 2]),
        (4, [0, 3]),
        (5, [0, 3, 4]),
        (10, [0, 3, 6, 9]),
        (30, [12, 15, 18, 21, 24, 27, 29]),
        (31, [12, 15, 18, 21, 24, 27, 30]),
        (32, [15, 18, 21, 24, 27, 30, 31]),
    ],
)
def test_with_stride_3_a_frame_looks_at_every_third_and_the_one_before_it(frame, expected):
    assert seen(after(frame, 3), frame, 3) == expected


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_over_two_thousand_frames_the_bank_holds_little_more_than_a_frame_looks_at(stride):
    bank, most = MemoryBank.empty(7), 0
    for frame in range(2000):
        bank = bank.with_frame(frame, memory_of(frame), stride)
        most = max(most, len(bank.memories))
    assert most <= 7 + 2


@given(stride=st.integers(1, 6), size=st.integers(1, 8), frames=st.integers(0, 120))
def test_what_is_dropped_is_never_looked_at_again(stride, size, frames):
    bank = after(frames, stride, size)
    everything = MemoryBank({frame: memory_of(frame) for frame in range(frames)}, size)
    for later in range(frames, frames + 3):
        assert seen(bank, later, stride) == seen(everything, later, stride)


def test_adding_a_frame_leaves_the_old_bank_as_it_was():
    old = after(3, 1)
    new = old.with_frame(3, memory_of(3))
    assert list(old.memories) == [0, 1, 2] and list(new.memories) == [0, 1, 2, 3]
    assert seen(old, 3, 1) == [0, 1, 2]
