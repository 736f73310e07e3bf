"""Scores of every frame: equal to those of prompts that are read alone, for a small part of their tokens."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.data_pipeline.batches.batch import padded_ids
from glus.data_pipeline.batches.conversations import templates_named
from glus.data_pipeline.batches.tokenizer import IMAGE_PLACEHOLDER
from glus.model.model_config import LossConfig
from glus.model.selector.score_frames import score_frames
from glus.model.selector.selector import Selector

from .asked import Cost, counted, video
from .tiny import IMAGE, PAD, SEG, tiny_config

TEXTS = (
    "the red circle that moves to the left",
    "a square?",
    "the circle that stands still",
    "what is behind the others?",
)


def wide_selector(positions: int = 2048) -> Selector:
    """Weights drawn wide, so that different prompts end in different scores."""
    config = tiny_config()
    language = replace(config.language, max_positions=positions)
    torch.manual_seed(0)
    model = Selector(
        replace(config, method="selector", language=language, loss=LossConfig(contrastive=0.0)), SEG + 3, SEG
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def prompts_in(style: str, texts: Sequence[str] = TEXTS) -> Callable[[int], tuple[Tensor, Tensor]]:
    """The style's own prompts; a word is a token, a mark and an <image> too."""
    style_of = templates_named(style)

    def ids(text: str) -> list[int]:
        parts = text.split(IMAGE_PLACEHOLDER)
        words = [[4 + sum(map(ord, word)) % 30 for word in re.findall(r"\w+|[^\w\s]", part)] for part in parts]
        return [1, *words[0], *(token for part in words[1:] for token in (IMAGE, *part))]

    return lambda references: padded_ids(
        [ids(style_of.ask(text, "expression", references, 1, False)) for text in texts], PAD
    )


def classes_of(frames: int) -> list[range]:
    step = math.ceil(frames / 11)
    return [range(first, frames, step) for first in range(step)]


@torch.no_grad()
def asked_alone(model: Selector, frames: Tensor, prompts: Callable[[int], tuple[Tensor, Tensor]]) -> Tensor:
    """float [E, T]: each prompt read from its first token, by the rules."""
    step, columns = math.ceil(len(frames) / 11), []
    for target in range(len(frames)):
        references = list(range(target % step, len(frames), step))
        shown = model.language.frame_tokens([frames[[*references, target]]])
        rows = zip(*prompts(len(references)), strict=True)
        states = [model.language.read(ids[real][None], real[real][None], shown[None]).last() for ids, real in rows]
        columns.append(torch.cat([model.scores(state) for state in states]))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("frames", [1, 12, 23])
@pytest.mark.parametrize("style", ["selector", "selector_short"])
def test_scores_are_those_of_prompts_that_are_read_alone(frames: int, style: str) -> None:
    model, shown, prompts = wide_selector(), video(frames, 8, 8), prompts_in(style)
    found = score_frames(model, lambda index: shown[index], classes_of(frames), prompts, together=3)
    due = asked_alone(model, shown, prompts)
    assert found.dtype == torch.float32 and found.shape == (len(TEXTS), frames)
    torch.testing.assert_close(found, due, atol=1e-4, rtol=0)
    if frames > 1:
        assert due.std(0).min() > 1e-2 and due.std(1).max() > 1e-2  # they depend on the expression and on the frame


def test_one_expression_is_scored_as_among_others() -> None:
    model, shown = wide_selector(), video(13, 8, 8)
    alone = score_frames(model, lambda index: shown[index], classes_of(13), prompts_in("selector", TEXTS[1:2]), 8)
    among = score_frames(model, lambda index: shown[index], classes_of(13), prompts_in("selector"), 8)
    torch.testing.assert_close(alone, among[1:2], atol=1e-4, rtol=0)


def cost_of(work: Callable[[], Tensor], model: Selector) -> tuple[Tensor, Cost]:
    with counted(model) as cost:
        return work(), cost


def test_tokens_for_60_frames_and_4_expressions_are_a_small_part_of_asking_each_alone() -> None:
    model, shown, prompts = wide_selector(), video(60, 8, 8), prompts_in("selector")
    read: list[int] = []

    def frame(index: int) -> Tensor:
        read.append(index)
        return shown[index]

    found, shared = cost_of(lambda: score_frames(model, frame, classes_of(60), prompts, 16), model)
    due, alone = cost_of(lambda: asked_alone(model, shown, prompts), model)
    torch.testing.assert_close(found, due, atol=1e-4, rtol=0)
    assert sorted(read) == list(range(60)) and sum(shared.clip) == 60
    print(f"tokens: {shared.tokens} of {alone.tokens}, {shared.tokens / alone.tokens:.3f}")
    assert shared.tokens <= 0.35 * alone.tokens


def test_memory_holds_one_group_of_frames() -> None:
    """The most positions that any call attends to do not grow with the video."""
    model, prompts, most = wide_selector(), prompts_in("selector_short"), []
    for frames in (11, 33):
        shown, seen = video(frames, 8, 8), []
        hook = model.language.llama.model.register_forward_pre_hook(
            lambda _, args, keys, seen=seen: seen.append(
                keys["inputs_embeds"].shape[1] + keys["past_key_values"].get_seq_length()
            ),
            with_kwargs=True,
        )
        score_frames(model, lambda index, shown=shown: shown[index], classes_of(frames), prompts, 16)
        hook.remove()
        most.append(max(seen))
    assert most[0] == most[1]


@pytest.mark.parametrize(
    ("text", "positions", "message"),
    [
        (f"a {IMAGE_PLACEHOLDER}", 2048, "expression 1 of 1: its prompt holds 13 frames where 12 are shown"),
        ("a long text " * 200, 600, "expression 1 of 1 is too long"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(text: str, positions: int, message: str) -> None:
    shown = video(11, 8, 8)
    with pytest.raises(ModelError, match=message):
        score_frames(
            wide_selector(positions),
            lambda index: shown[index],
            classes_of(11),
            prompts_in("selector_short", [text]),
            4,
        )
