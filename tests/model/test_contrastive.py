"""The object-contrastive loss against its definition."""

import math

import pytest
import torch
from torch import Tensor

from glus.model.contrastive import object_contrastive_loss


def sets(*rows: str) -> Tensor:
    """bool [E, O] of rows such as "101"."""
    return torch.tensor([[digit == "1" for digit in row] for row in rows])


def by_definition(states: Tensor, video: list[int], objects: list[str], temperature: float) -> Tensor:
    """The mean over frames and over expressions with a positive, one pair after the other, in float64."""
    held = [{place for place, digit in enumerate(row) if digit == "1"} for row in objects]
    terms = []
    for frame in range(states.shape[1]):
        unit = [states[i, frame] / states[i, frame].norm() for i in range(len(states))]
        for i in range(len(states)):
            others = [j for j in range(len(states)) if j != i]
            positives = [j for j in others if video[j] == video[i] and held[j] == held[i]]
            negatives = [j for j in others if video[j] != video[i] or not held[j] & held[i]]
            if not positives:
                continue
            similar = {j: torch.exp(unit[i] @ unit[j] / temperature) for j in others}
            total = sum(similar[j] for j in positives + negatives)
            terms.append(-sum(torch.log(similar[j] / total) for j in positives) / len(positives))
    return torch.stack(terms).mean()


def test_a_pair_and_a_rival_by_hand():
    # Unit vectors at 0, 60 and 90 degrees: cosines 1/2 (the pair), 0 and sqrt(3)/2 (with the rival).
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2])
    states = 5 * torch.stack([angles.cos(), angles.sin()], dim=-1).unsqueeze(1)
    loss = object_contrastive_loss(states, torch.tensor([0, 0, 0]), sets("10", "10", "01"), temperature=0.5)
    first = -1.0 + math.log(math.exp(1.0) + math.exp(0.0))
    second = -1.0 + math.log(math.exp(1.0) + math.exp(math.sqrt(3)))
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-5)


# Three expressions of one object; a set that overlaps it; a rival; the same columns in another video; a pair there.
VIDEO = [0, 0, 0, 0, 0, 7, 7, 7]
OBJECTS = ["100", "100", "100", "110", "001", "100", "011", "011"]


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_value_and_gradient_are_those_of_the_definition(temperature):
    states = torch.randn(8, 3, 16, generator=torch.Generator().manual_seed(0))
    ours = states.clone().requires_grad_()
    loss = object_contrastive_loss(ours, torch.tensor(VIDEO), sets(*OBJECTS), temperature)
    slow = states.double().requires_grad_()
    expected = by_definition(slow, VIDEO, OBJECTS, temperature)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, ours)
    (expected_gradient,) = torch.autograd.grad(expected, slow)
    assert expected_gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient.double(), expected_gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("video", "objects"),
    [([0], ["1"]), ([0, 0], ["10", "01"]), ([0, 1], ["1", "1"]), ([0, 0], ["10", "11"])],
    ids=["alone", "two objects", "two videos", "overlapping sets"],
)
def test_without_a_positive_the_loss_is_nought_and_can_be_differentiated(video, objects):
    states = torch.randn(len(video), 2, 4, requires_grad=True)
    loss = object_contrastive_loss(states, torch.tensor(video), sets(*objects))
    loss.backward()
    assert loss.item() == 0.0 and states.grad is not None and not states.grad.any()


def test_an_overlapping_set_neither_draws_nor_repels():
    states = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(1))
    video, objects = torch.zeros(4, dtype=torch.long), sets("10", "10", "01", "11")
    with_overlap = states.clone().requires_grad_()
    loss = object_contrastive_loss(with_overlap, video, objects)
    loss.backward()
    without = object_contrastive_loss(states[:3], video[:3], objects[:3])
    assert loss.item() == pytest.approx(without.item(), rel=1e-6)
    assert not with_overlap.grad[3].any() and torch.isfinite(with_overlap.grad).all()
    assert with_overlap.grad[:3].any()


def test_the_same_columns_in_another_video_are_negatives():
    states = torch.eye(3).unsqueeze(1)
    objects = sets("1", "1", "1")
    # All three at right angles: the anchor's positive is one of one, or one of two.
    assert object_contrastive_loss(states[:2], torch.tensor([0, 0]), objects[:2]).item() == pytest.approx(0.0)
    loss = object_contrastive_loss(states, torch.tensor([0, 0, 1]), objects)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


def test_it_is_low_where_objects_are_told_apart_and_high_where_they_are_mixed_up():
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    video, objects = torch.zeros(4, dtype=torch.long), sets("10", "10", "01", "01")
    apart = object_contrastive_loss(torch.stack([first, first, second, second]).unsqueeze(1), video, objects)
    mixed = object_contrastive_loss(torch.stack([first, second, first, second]).unsqueeze(1), video, objects)
    assert apart.item() < 1e-4 and mixed.item() > 10


def test_half_precision_states_are_compared_in_full_precision():
    states = torch.randn(8, 1, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    video, objects = torch.tensor(VIDEO), sets(*OBJECTS)
    half = object_contrastive_loss(states, video, objects)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(object_contrastive_loss(states.float(), video, objects).item())
