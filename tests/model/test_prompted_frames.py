"""Inference without later [SEG], and without memory: what a mask then knows of its expression."""

import pytest
import torch
from torch import Tensor

from glus.model.glus import Glus

from .asked import CONTEXT, FRAMES, WORDS, always_answers, counted, prompts_of, segmented, table, video
from .tiny import tiny_config, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def model() -> Glus:
    return always_answers(tiny_model()).eval()


def masks(model: Glus, **how: object) -> Tensor:
    """float [E, T, H, W]"""
    return table(segmented(model, video(), prompts_of(), **how), len(WORDS))


@pytest.mark.parametrize("key_frame", [0, 4])
def test_only_the_key_frame_is_prompted_and_the_others_follow_from_memory(model: Glus, key_frame: int) -> None:
    usual = masks(model, key_frame=key_frame)
    first = masks(model, key_frame=key_frame, prompted_frames="first")
    torch.testing.assert_close(first[:, key_frame], usual[:, key_frame])
    others = [index for index in range(FRAMES) if index != key_frame]
    assert (first - usual)[:, others].abs().amax((2, 3)).min() > 1e-4, "zeros are another prompt than [SEG]"
    assert (first[0] - first[1])[others].abs().amax((1, 2)).min() > 2e-5, "the memory knows the expression"


def test_without_prompt_and_memory_a_mask_knows_nothing_of_its_expression(model: Glus) -> None:
    blind = masks(model, prompted_frames="first", use_memory=False)
    assert (blind[0, 0] - blind[1, 0]).abs().max() > 1e-4
    for other in blind[1:]:
        torch.testing.assert_close(other[1:], blind[0, 1:], atol=1e-6, rtol=0)


def test_a_model_asked_without_memory_is_the_model_without_memory(model: Glus) -> None:
    without = always_answers(tiny_model(tiny_config(use_memory=False))).eval()
    without.load_state_dict(model.state_dict())
    torch.testing.assert_close(masks(model, use_memory=False), masks(without))
    assert (masks(model) - masks(without))[:, 1:].abs().max() > 1e-4


def test_the_language_model_reads_the_key_frame_alone(model: Glus) -> None:
    with counted(model) as cost:
        segmented(model, video(), prompts_of(), prompted_frames="first", key_frame=2)
    # The prefix with the context frames, then the key frame, shared and not.
    assert len(cost.llama) == 3 and len(cost.clip) == len(CONTEXT) + 1 and cost.sam2 == [1] * FRAMES


def test_key_frames_that_differ_and_chunks_change_no_mask(model: Glus) -> None:
    keys = [6, 0, 3]
    mixed = masks(model, key_frame=keys, prompted_frames="first", expressions_together=2)
    for row, key in enumerate(keys):
        alone = masks(model, key_frame=key, prompted_frames="first", expressions_together=1)
        torch.testing.assert_close(mixed[row], alone[row], atol=1e-4, rtol=0)


def test_what_the_key_frame_did_not_answer_stays_without_mask() -> None:
    silenced = always_answers(tiny_model()).eval()
    answer = silenced.language.logits

    def logits(hidden: Tensor) -> Tensor:
        given = answer(hidden)
        given[1] = -given[1]
        return given

    silenced.language.logits = logits  # type: ignore[method-assign]
    seen = segmented(silenced, video(), prompts_of(), prompted_frames="first")
    assert all(each.answered.tolist() == [True, False, True] for each in seen)
