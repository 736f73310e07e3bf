"""The losses against their formulas, written out."""

import math

import pytest
import torch

from glus.model.losses import mask_bce, mask_dice, seg_cross_entropy


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target() -> torch.Tensor:
    drawn = torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(1)) > 0.6
    drawn[3] = False
    return drawn.float()


def test_bce_of_each_mask_is_the_mean_over_its_pixels(logits, target):
    expected = []
    for scores, wanted in zip(logits.double(), target.double(), strict=True):
        p = 1 / (1 + torch.exp(-scores))
        expected.append(-(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum().item() / 35)
    assert mask_bce(logits, target).tolist() == pytest.approx(expected, rel=1e-5)


def test_bce_of_sure_answers_is_finite():
    loss = mask_bce(torch.tensor([[[500.0, -500.0]]]), torch.tensor([[[1.0, 1.0]]]))
    assert loss.item() == pytest.approx(250.0)


def test_dice_of_each_mask_is_that_of_the_reference(logits, target):
    expected = []
    for scores, wanted in zip(logits.double(), target.double(), strict=True):
        p = 1 / (1 + torch.exp(-scores))
        overlap, total = 2 * (p * wanted).sum().item(), p.sum().item() + wanted.sum().item()
        expected.append(1 - (overlap / 1000 + 1e-6) / (total / 1000 + 1e-6))
    assert mask_dice(logits, target).tolist() == pytest.approx(expected, rel=1e-5)


def test_dice_is_nought_for_the_mask_itself_and_one_for_its_complement(target):
    sure = (2 * target - 1) * 50
    assert mask_dice(sure, target)[:3].tolist() == pytest.approx([0.0] * 3, abs=1e-5)
    assert mask_dice(-sure, target)[:3].tolist() == pytest.approx([1.0] * 3, abs=1e-3)


def test_an_empty_prediction_of_an_empty_mask_has_no_dice_loss():
    empty = torch.zeros(1, 6, 6)
    assert mask_dice(empty - 50, empty).item() == pytest.approx(0.0, abs=1e-5)


def test_cross_entropy_is_taken_over_the_positions_given_and_over_seg_alone():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 1.0]]])
    second = -(2.0 - math.log(1 + math.exp(2) + 1 + math.exp(1)))
    assert seg_cross_entropy(logits, 1).item() == pytest.approx((math.log(4) + second) / 2, rel=1e-6)


def test_pixels_that_do_not_count_change_neither_loss_nor_gradient(logits, target):
    counted = torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(2)) > 0.3
    counted[2] = False
    for loss in (mask_bce, mask_dice):
        leaf = logits.clone().requires_grad_()
        found = loss(leaf, target, counted)
        found.sum().backward()
        assert leaf.grad is not None and not leaf.grad[~counted].any() and leaf.grad[counted].any()
        for row in (0, 1, 3):
            kept = counted[row]
            expected = loss(logits[row][kept].view(1, 1, -1), target[row][kept].view(1, 1, -1))
            assert found[row].item() == pytest.approx(expected.item(), rel=1e-5)
        assert found[2].item() == pytest.approx(0.0, abs=1e-6)
        assert torch.equal(loss(leaf, target, None), loss(leaf, target))
