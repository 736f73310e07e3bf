"""Decoding a clip frame by frame with the memory as a value."""

import pytest
import torch
from torch import Tensor

from glus.model.memory import MemoryBank
from glus.model.segmenter import Segmenter

from .tiny import tiny_config

pytestmark = pytest.mark.slow

FRAMES, EXPRESSIONS = 3, 2


def segmenter(**switches: object) -> Segmenter:
    torch.manual_seed(3)
    return Segmenter(tiny_config(**switches).segmenter).eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """One clip, float [FRAMES, 3, 64, 64]."""
    return torch.randn(FRAMES, 3, 64, 64, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def prompts() -> Tensor:
    return torch.randn(EXPRESSIONS, FRAMES, 32, generator=torch.Generator().manual_seed(5))


def decode_all(model: Segmenter, pixels: Tensor, prompts: Tensor) -> Tensor:
    return model(pixels.unsqueeze(0), prompts, torch.zeros(len(prompts), dtype=torch.long))


@torch.no_grad()
def test_a_clip_is_its_frames_one_step_after_the_other(pixels, prompts):
    model = segmenter()
    features, bank, masks = model.encode(pixels), MemoryBank.empty(7), []
    for frame in range(FRAMES):
        logits, bank = model.step(features.pick(torch.tensor([frame] * 2)), prompts[:, frame], bank, frame)
        masks.append(logits)
    torch.testing.assert_close(torch.stack(masks, 1), decode_all(model, pixels, prompts), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_step_leaves_the_bank_it_was_given_as_it_was(pixels, prompts):
    model = segmenter()
    features = model.encode(pixels)
    _, first = model.step(features.pick(torch.tensor([0, 0])), prompts[:, 0], MemoryBank.empty(7), 0)
    before = first.memories[0].values[0].clone()
    once, second = model.step(features.pick(torch.tensor([1, 1])), prompts[:, 1], first, 1)
    again, _ = model.step(features.pick(torch.tensor([1, 1])), prompts[:, 1], first, 1)
    assert list(first.memories) == [0] and list(second.memories) == [0, 1]
    assert torch.equal(first.memories[0].values[0], before) and torch.equal(once, again)


@torch.no_grad()
def test_a_step_that_need_not_remember_gives_the_same_masks_and_the_bank_it_was_given(pixels, prompts):
    model = segmenter()
    features, empty = model.encode(pixels).pick(torch.tensor([0, 0])), MemoryBank.empty(7)
    masks, bank = model.step(features, prompts[:, 0], empty, 0, remember=False)
    assert bank is empty and torch.equal(masks, model.step(features, prompts[:, 0], empty, 0)[0])


@torch.no_grad()
def test_an_earlier_frame_changes_a_mask_through_the_memory_alone(pixels, prompts):
    other = torch.cat([pixels.flip(-1)[:1], pixels[1:]])
    with_memory, without = segmenter(), segmenter(use_memory=False)
    assert (decode_all(with_memory, pixels, prompts) - decode_all(with_memory, other, prompts))[:, 2].abs().max() > 1e-4
    changed = (decode_all(without, pixels, prompts) - decode_all(without, other, prompts)).abs().amax((0, 2, 3))
    assert changed[0] > 1e-4 and changed[1:].max() < 1e-5


@torch.no_grad()
def test_an_expressions_masks_do_not_depend_on_the_other_expressions(pixels, prompts):
    model = segmenter()
    both = decode_all(model, pixels, prompts)
    for row in range(EXPRESSIONS):
        alone = decode_all(model, pixels, prompts[row : row + 1])
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_object_that_is_not_shown_is_remembered_as_absent_and_the_others_are_not_touched(pixels, prompts):
    model, shown = segmenter(), torch.tensor([True, False])
    features, empty = model.encode(pixels).pick(torch.tensor([0, 0])), MemoryBank.empty(7)
    masks, seen = model.step(features, prompts[:, 0], empty, 0)
    same, absent = model.step(features, prompts[:, 0], empty, 0, shown=shown)
    assert torch.equal(masks, same)  # the logits are what they are; what is remembered differs
    assert torch.equal(absent.memories[0].values[0][0], seen.memories[0].values[0][0])
    assert (absent.memories[0].values[0][1] - seen.memories[0].values[0][1]).abs().max() > 1e-3
    # Another prompt leaves the same absence behind (with memory-free features, which it has not changed).
    _, other = model.step(features, -prompts[:, 0], empty, 0, shown=shown)
    assert torch.equal(other.memories[0].values[0][1], absent.memories[0].values[0][1])


@pytest.mark.parametrize("trained", [False, True])
def test_levels_of_frames_are_those_of_sam2s_own_way(pixels: Tensor, trained: bool) -> None:
    model = segmenter(train_image_encoder=trained)
    with torch.set_grad_enabled(trained):
        theirs = model.sam2.forward_image(pixels)
        own = model.encode(pixels)
    for ours, level in zip(own.levels, theirs["backbone_fpn"], strict=True):
        assert torch.allclose(ours, level, rtol=1e-5, atol=1e-6)
    assert torch.equal(own.position, theirs["vision_pos_enc"][-1])
    if trained:
        weights = [each for name, each in model.named_parameters() if "image_encoder" in name or "conv_s" in name]
        given = [torch.randn(level.shape, generator=torch.Generator().manual_seed(9)) for level in own.levels]
        gradients = [
            torch.autograd.grad([*levels], weights, given, allow_unused=True)
            for levels in (own.levels, theirs["backbone_fpn"])
        ]
        for ours, other in zip(*gradients, strict=True):
            assert (ours is None) == (other is None)
            assert ours is None or (ours - other).norm() <= 1e-5 * other.norm() + 1e-8
        assert sum(each is not None for each in gradients[0]) > 10


def test_frames_are_encoded_without_a_copy_of_their_places(pixels: Tensor) -> None:
    """sam2 makes encodings of three levels for each frame: half a gigabyte for eight frames of 1024 pixels."""
    position = segmenter().encode(pixels).position
    assert position.stride(0) == 0
