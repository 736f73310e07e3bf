"""Conversations of training and prompts of inference. Those of the reference: tests/model/test_parity.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.common.errors import DataError
from glus.data_pipeline.batches.conversations import (
    GLUS,
    SHORT,
    clean_expression,
    conversation,
    draw_templates,
    inference_prompt,
    templates_named,
)
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer

from .tiny_splits import PARITY

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(PARITY)


def test_a_conversation_shows_the_context_once_and_each_query_frame_in_its_round():
    text = conversation(" The Red bird.", 2, [(0, 0), (3, 4)])
    frame = "<im_start><image><im_end>"
    assert text == (
        f"{GLUS.system}USER: {frame}{frame}\n"
        f"Please finished the following tasks on the context frames above.\n{frame}\n"
        "Can you segment the the red bird in this frame? ASSISTANT: It is [SEG].</s>"
        f"USER: {frame}\nWhat is the red bird in this frame? Please output segmentation mask. ASSISTANT: [SEG].</s>"
    )


@pytest.mark.parametrize(
    ("said", "put"),
    [(" The Dog. ", "the dog"), ("a dog..", "a dog."), ("É/_'#;", "é/_'#;"), ("what?", "what?"), ("", "")],
)
def test_an_expression_is_lowered_and_loses_blanks_and_one_full_stop(said, put):
    assert clean_expression(said) == put


@given(text=TEXTS, frames=st.integers(1, 5))
def test_a_prompt_of_inference_is_the_beginning_of_the_conversation_that_training_would_show(text, frames):
    template = (0, GLUS.answers.index("Sure, the segmentation result is [SEG]."))
    assert inference_prompt(text, 4, frames) + "[SEG].</s>" == conversation(text, 4, [template] * frames)


@given(text=TEXTS, frames=st.integers(1, 5))
def test_each_step_of_inference_goes_on_where_the_last_one_was_answered(text, frames):
    assert inference_prompt(text, 4, frames + 1).startswith(inference_prompt(text, 4, frames) + "[SEG].</s>USER: ")


def test_without_its_trailing_blank_a_prompt_ends_as_training_has_it_before_seg(tokenizer):
    with_blank, without = (inference_prompt("a dog", 1, 1, blank) for blank in (True, False))
    assert with_blank == without + " "
    trained = tokenizer.encode(conversation("a dog", 1, [(0, 3)]))
    shown = tokenizer.encode(without)
    assert trained[: len(shown) + 1] == [*shown, tokenizer.seg_id]
    assert tokenizer.encode(with_blank) != shown


def test_templates_are_drawn_from_all_and_by_the_generator_alone():
    def draw(seed: int) -> list[tuple[int, int]]:
        drawn = draw_templates(4, 100, np.random.Generator(np.random.Philox(key=seed)))
        assert [len(pairs) for pairs in drawn] == [100] * 4
        return [pair for pairs in drawn for pair in pairs]

    assert draw(1) == draw(1) != draw(2)
    assert set(draw(1)) == {
        (question, answer) for question in range(len(GLUS.questions)) for answer in range(len(GLUS.answers))
    }


@given(
    text=st.text(st.sampled_from("abcdefg ,.'/#"), max_size=30),
    context=st.integers(0, 5),
    templates=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=5),
)
def test_ids_hold_every_frame_and_one_seg_a_query_frame(text, context, templates):
    tokenizer = Tokenizer(PARITY)
    ids = tokenizer.encode(conversation(text, context, templates))
    assert ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id
    assert ids.count(IMAGE_TOKEN_ID) == context + len(templates)
    assert ids.count(tokenizer.seg_id) == len(templates)


def test_prompts_under_llamas_own_tokenizer_are_those_of_the_reference(real_data: Path):
    recorded = real_data.parent / "parity" / "llama_prompts.json"
    if not recorded.is_file():
        pytest.skip(f"no prompts of the reference at {recorded} (set GLUS_SHARED)")
    tokenizer = Tokenizer(real_data / "llama_tokenizer.model")
    assert tokenizer.seg_id == 32000
    prompts = json.loads(recorded.read_text("utf-8"))
    assert len(prompts) > 30
    for prompt in prompts:
        text = conversation(prompt["expression"], 4, prompt["qa_template_index"])
        assert tokenizer.encode(text) == prompt["input_ids"], prompt["expression"]


def test_the_short_style_says_nothing_but_the_expression() -> None:
    frame = "<im_start><image><im_end>"
    assert conversation("The Dog", 1, [(0, 0), (0, 0)], SHORT) == (
        f"{frame}{frame}the dog[SEG].</s>{frame}the dog[SEG].</s>"
    )
    assert inference_prompt("The Dog", 1, 1, trailing_blank=False, templates=SHORT) == (f"{frame}{frame}the dog")


def test_an_unknown_style_is_told() -> None:
    with pytest.raises(DataError, match="use one of glus, short"):
        templates_named("long")
