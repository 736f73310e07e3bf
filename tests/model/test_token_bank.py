"""The reference's token bank: its formula, what it holds, and its state."""

import math

import pytest
import torch
from torch import Tensor

from glus.model.contrastive import SegTokens, TokenBank


def tokens(states: Tensor, video: list[int], expression: list[int], frame: list[int], objects: list[str]) -> SegTokens:
    sets = torch.tensor([[digit == "1" for digit in row] for row in objects])
    return SegTokens(states, torch.tensor(video), torch.tensor(expression), torch.tensor(frame), sets)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_one_positive_and_negatives_by_hand() -> None:
    # At 0, 60 and 90 degrees, of other lengths: cosine 1/2 with the positive, 0 and sqrt(3)/2 with the rival.
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2])
    states = torch.tensor([[1.0], [3.0], [9.0]]) * torch.stack([angles.cos(), angles.sin()], dim=-1)
    bank = TokenBank(size=8, negatives=1, temperature=0.5)
    found = bank.loss(tokens(states, [0] * 3, [0, 1, 2], [4] * 3, ["10", "10", "01"]), random())
    first = -math.log(math.exp(1.0) / (math.exp(0.0) + math.exp(1.0)))
    second = -math.log(math.exp(1.0) / (math.exp(math.sqrt(3)) + math.exp(1.0)))
    assert found.loss.item() == pytest.approx((first + second) / 2, rel=1e-6)
    assert (int(found.anchors), found.states) == (2, 3)


def test_every_negative_counts_and_repeats() -> None:
    # All states alike, so each exponential is the same: 128 negatives and a positive give log 129.
    states = torch.ones(140, 4)
    expressions = [0, 1] + [2 + number for number in range(138)]
    objects = ["10", "10"] + ["01"] * 138
    bank = TokenBank()
    found = bank.loss(tokens(states, [0] * 140, expressions, [0] * 140, objects), random())
    assert found.loss.item() == pytest.approx(math.log(129), rel=1e-5)


def test_with_fewer_negatives_than_wanted_a_state_adds_nothing() -> None:
    states = torch.randn(130, 4, generator=random(), requires_grad=True)
    # The first two are partners with 128 negatives, or 127. The others, partners too, have those two alone.
    objects, same = ["10", "10"] + ["01"] * 128, [0] * 130
    enough = TokenBank().loss(tokens(states, same, list(range(130)), same, objects), random())
    fewer = TokenBank().loss(tokens(states[:129], same[:129], list(range(129)), same[:129], objects[:129]), random())
    assert int(enough.anchors) == 2 and enough.loss.item() > 0
    assert int(fewer.anchors) == 0 and fewer.loss.item() == 0.0 and fewer.loss.requires_grad


def test_the_bank_holds_the_last_states_without_gradient_and_those_at_hand() -> None:
    bank = TokenBank(size=4, negatives=1)
    for first in range(0, 6, 2):
        states = torch.full((2, 3), float(first), requires_grad=True)
        bank.loss(tokens(states, [first] * 2, [0, 1], [0, 0], ["1", "1"]), random())
    state = bank.state()
    assert state["bank.states"][:, 0].tolist() == [2.0, 2.0, 4.0, 4.0] and not state["bank.states"].requires_grad
    assert state["bank.ids"][:, 0].tolist() == [2, 2, 4, 4]


def test_past_states_are_positives_of_their_frame_and_negatives_of_others() -> None:
    bank = TokenBank(size=8, negatives=1, temperature=1.0)
    past = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    bank.loss(tokens(past, [5, 5], [1, 1], [7, 8], ["1", "1"]), random())
    # The positive is expression 1 in frame 7; from frame 8, the same object, the reference makes a negative.
    now = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = bank.loss(tokens(now, [5, 6], [2, 1], [7, 7], ["1", "1"]), random())
    assert int(found.anchors) == 0 and found.loss.item() == 0.0  # a single one with a positive adds nothing
    found = bank.loss(tokens(now, [5, 5], [2, 3], [7, 7], ["10", "10"]), random())
    assert int(found.anchors) == 2


def test_a_bank_goes_on_from_its_state() -> None:
    first = tokens(torch.randn(6, 4, generator=random()), [0] * 6, list(range(6)), [0] * 6, ["10"] * 3 + ["01"] * 3)
    second = tokens(torch.randn(6, 4), [0] * 6, list(range(6)), [0] * 6, ["10"] * 3 + ["01"] * 3)
    one, other = TokenBank(size=9, negatives=2), TokenBank(size=9, negatives=2)
    one.loss(first, random())
    assert other.restore(one.state(), torch.device("cpu"))
    assert one.loss(second, random()).loss.item() == other.loss(second, random()).loss.item()
    assert not other.restore({}, torch.device("cpu"))
    assert other.state() == {}


def test_a_set_is_the_same_however_many_columns_a_batch_has() -> None:
    bank = TokenBank(size=8, negatives=1)
    bank.loss(tokens(torch.randn(2, 4), [0, 0], [0, 1], [3, 3], ["0110", "0001"]), random())
    found = bank.loss(tokens(torch.randn(2, 4), [0, 0], [2, 3], [3, 3], ["011", "011"]), random())
    assert int(found.anchors) == 2
    numbers = bank.state()["bank.ids"][:, 3].tolist()
    assert numbers[0] == numbers[2] == numbers[3] != numbers[1]
