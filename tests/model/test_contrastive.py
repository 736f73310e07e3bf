"""The object-contrastive loss against its definition."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glus.model.contrastive import Contrasted, SegTokens, object_contrastive_loss

from .tiny import HIGH, WIDE, tiny_batch


def tokens(states: Tensor, video: list[int], objects: list[str], first: list[int] | None = None) -> SegTokens:
    """Of states [E, Q, C]; objects such as "101"; `first` is each expression's first query frame (0)."""
    count, queries = states.shape[:2]
    frames = torch.tensor(first or [0] * count)[:, None] + torch.arange(queries)
    return SegTokens(
        states.flatten(0, 1),
        torch.tensor(video).repeat_interleave(queries),
        torch.arange(count).repeat_interleave(queries),
        frames.flatten(),
        torch.tensor([[digit == "1" for digit in row] for row in objects]).repeat_interleave(queries, dim=0),
    )


def loss_of(states: Tensor, video: list[int], objects: list[str], temperature: float = 0.07) -> Tensor:
    return object_contrastive_loss(tokens(states, video, objects), temperature).loss


def by_definition(read: SegTokens, temperature: float, frames: str) -> Tensor:
    """The mean over states with a positive, one pair after the other."""
    held = [{place for place, digit in enumerate(row) if digit} for row in read.objects.tolist()]
    video, expression, frame = read.video.tolist(), read.expression.tolist(), read.frame.tolist()
    unit = [state / state.norm() for state in read.states]
    terms = []
    for i in range(len(unit)):
        similar = [torch.exp(unit[i] @ other / temperature) for other in unit]
        positives = [
            j
            for j in range(len(unit))
            if video[j] == video[i] and held[j] == held[i] and expression[j] != expression[i]
            if frames == "all" or frame[j] == frame[i]
        ]
        negatives = [j for j in range(len(unit)) if video[j] != video[i] or not held[j] & held[i]]
        if positives:
            total = sum(similar[j] for j in positives + negatives)
            terms.append(-sum(torch.log(similar[j] / total) for j in positives) / len(positives))
    return torch.stack(terms).mean()


def test_a_pair_and_a_rival_by_hand() -> None:
    # Unit vectors at 0, 60 and 90 degrees: cosines 1/2 (the pair), 0 and sqrt(3)/2 (with the rival).
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2])
    states = 5 * torch.stack([angles.cos(), angles.sin()], dim=-1).unsqueeze(1)
    loss = loss_of(states, [0, 0, 0], ["10", "10", "01"], temperature=0.5)
    first = -1.0 + math.log(math.exp(1.0) + math.exp(0.0))
    second = -1.0 + math.log(math.exp(1.0) + math.exp(math.sqrt(3)))
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


# Three expressions of one object; a set that overlaps it; a rival; the same columns in another video; a pair there.
VIDEO = [0, 0, 0, 0, 0, 7, 7, 7]
OBJECTS = ["100", "100", "100", "110", "001", "100", "011", "011"]
#: One of the three, and one of the pair, were read with later query frames: another slot of the same video.
FIRST = [0, 0, 1, 0, 0, 0, 4, 5]


@pytest.mark.parametrize("frames", ["same", "all"])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_value_and_gradient_are_those_of_the_definition(temperature, frames) -> None:
    states = torch.randn(8, 3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours, slow = states.float().requires_grad_(), states.clone().requires_grad_()
    found = object_contrastive_loss(tokens(ours, VIDEO, OBJECTS, FIRST), temperature, frames)
    expected = by_definition(tokens(slow, VIDEO, OBJECTS, FIRST), temperature, frames)
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(found.loss, ours)
    (expected_gradient,) = torch.autograd.grad(expected, slow)
    assert expected_gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient.double(), expected_gradient, atol=1e-6 / temperature, rtol=1e-5)


def test_other_frames_are_positives_only_where_asked_for() -> None:
    states = torch.randn(8, 3, 16, generator=torch.Generator().manual_seed(0))
    shares = {}
    for frames in ("same", "all"):
        found = object_contrastive_loss(tokens(states, VIDEO, OBJECTS, FIRST), 0.07, frames)
        shares[frames] = (int(found.anchors), found.states)
    # Two of the three share frames 0 to 2, the third 1 to 3; of the pair in frames 4 to 6 and 5 to 7 two frames meet.
    assert shares == {"same": (3 + 3 + 2 + 2 + 2, 24), "all": (5 * 3, 24)}


def test_parts_of_a_pool_sum_up_to_it() -> None:
    read = tokens(torch.randn(8, 3, 16, generator=torch.Generator().manual_seed(3)), VIDEO, OBJECTS)
    parts = [object_contrastive_loss(read, own=slice(*ends)).loss for ends in ((0, 5), (5, 5), (5, 24))]
    assert sum(parts).item() == pytest.approx(object_contrastive_loss(read).loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("video", "objects"),
    [([0], ["1"]), ([0, 0], ["10", "01"]), ([0, 1], ["1", "1"]), ([0, 0], ["10", "11"])],
    ids=["alone", "two objects", "two videos", "overlapping sets"],
)
def test_without_a_positive_the_loss_is_nought_and_can_be_differentiated(video, objects) -> None:
    states = torch.randn(len(video), 2, 4, requires_grad=True)
    loss = loss_of(states, video, objects)
    loss.backward()
    assert loss.item() == 0.0 and states.grad is not None and not states.grad.any()


def test_an_overlapping_set_neither_draws_nor_repels() -> None:
    states = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(1))
    objects = ["10", "10", "01", "11"]
    with_overlap = states.clone().requires_grad_()
    loss = loss_of(with_overlap, [0] * 4, objects)
    loss.backward()
    without = loss_of(states[:3], [0] * 3, objects[:3])
    assert loss.item() == pytest.approx(without.item(), rel=1e-6)
    assert not with_overlap.grad[3].any() and torch.isfinite(with_overlap.grad).all()
    assert with_overlap.grad[:3].any()


def test_the_same_columns_in_another_video_are_negatives() -> None:
    states = torch.eye(3).unsqueeze(1)
    # All three at right angles: the anchor's positive is one of one, or one of two.
    assert loss_of(states[:2], [0, 0], ["1", "1"]).item() == pytest.approx(0.0)
    assert loss_of(states, [0, 0, 1], ["1", "1", "1"]).item() == pytest.approx(math.log(2), rel=1e-5)


def test_the_same_expression_drawn_twice_is_no_partner_of_itself() -> None:
    read = tokens(torch.randn(3, 1, 8), [0, 0, 0], ["10", "10", "01"])
    twice = SegTokens(read.states, read.video, torch.tensor([5, 5, 6]), read.frame, read.objects)
    assert int(object_contrastive_loss(read).anchors) == 2
    assert int(object_contrastive_loss(twice).anchors) == 0


def test_it_is_low_where_objects_are_told_apart_and_high_where_they_are_mixed_up() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    objects = ["10", "10", "01", "01"]
    apart = loss_of(torch.stack([first, first, second, second]).unsqueeze(1), [0] * 4, objects)
    mixed = loss_of(torch.stack([first, second, first, second]).unsqueeze(1), [0] * 4, objects)
    assert apart.item() < 1e-4 and mixed.item() > 10


def test_half_precision_states_are_compared_in_full_precision() -> None:
    states = torch.randn(8, 1, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    half = loss_of(states, VIDEO, OBJECTS)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss_of(states.float(), VIDEO, OBJECTS).item())


def test_a_batch_says_what_its_states_stand_for() -> None:
    batch = tiny_batch(WIDE, HIGH)
    states = torch.arange(4 * 2 * 3.0).view(4, 2, 3)
    read = SegTokens.of(states, batch)
    assert torch.equal(read.states, states.flatten(0, 1))
    assert read.video.tolist() == [0] * 6 + [1] * 2 and read.frame.tolist() == [2, 3] * 4
    assert len(set(read.expression.tolist())) == 4
    found: Contrasted = object_contrastive_loss(read)
    assert (int(found.anchors), found.states) == (4, 8)


def test_of_datasets_only_those_named_take_part() -> None:
    batch = tiny_batch(WIDE, HIGH)
    batch = replace(batch, split=torch.tensor([4, 4, 1, 1]))
    states = torch.randn(4, 2, 3, requires_grad=True)
    read = SegTokens.of(states, batch, [4])
    assert torch.equal(read.states, states[:2].flatten(0, 1)) and read.objects.shape == (4, 2)
    nobody = SegTokens.of(states, batch, [])
    loss = object_contrastive_loss(nobody).loss
    assert nobody.states.shape == (0, 3) and loss.item() == 0.0 and loss.requires_grad
