"""The key frame selector's words, letter by letter, and the ids of its conversations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glus.data_pipeline.batches.conversations import GLUS, templates_named
from glus.data_pipeline.batches.selector_prompts import SELECTOR, SELECTOR_SHORT
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer

from .tiny_splits import PARITY

FRAME = "<im_start><image><im_end>"
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=40)
BEGINNING = (
    f"{GLUS.system}USER: Reference Video: (0){FRAME}, (1){FRAME}, (2){FRAME} \nTarget Image: {FRAME} \n"
    "{question} ASSISTANT: "
)
FIRST = (
    "Does the Target Image provide enough information for localizing and segmenting the red bird in the Reference "
    "Video? Please respond with a confidence score."
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(PARITY)


@pytest.mark.parametrize(
    ("text", "pair", "question", "answer"),
    [
        (" Red bird. ", (0, 0), FIRST, "It is [SEG]."),
        (
            "Red bird",
            (1, 1),
            "Does the Target Image provide enough information for localizing and segmenting the red bird in the "
            "Reference Video? Please output confidence score.",
            "Sure, [SEG].",
        ),
        ("red bird", (0, 2), FIRST, "Sure, it is [SEG]."),
        (
            "Who wins?",
            (1, 3),
            "Please decide whether the Target Image provide enough information for localizing and segmenting the who "
            "wins? in the Reference Video.",
            "Sure, the prediction result is [SEG].",
        ),
    ],
)
def test_training_says_the_references_words(text, pair, question, answer):
    said = SELECTOR.say(text, "", 3, [pair])
    assert said.text == f"{BEGINNING.format(question=question)}{answer}</s>" and said.asked is None


def test_inference_ends_before_the_score_after_the_first_question_and_answer():
    asked = SELECTOR.ask(" Red bird. ", "expression", 3, 1, True)
    assert asked == f"{BEGINNING.format(question=FIRST)}It is"
    assert SELECTOR.say("red bird", "", 3, [(0, 0)]).text == f"{asked} [SEG].</s>"
    assert "Please decide whether" in SELECTOR.ask("Who wins?", "expression", 3, 1, False)


def test_the_short_style_has_the_expression_alone():
    assert SELECTOR_SHORT.say("Red bird.", "", 2, [(0, 0)]).text == f"{FRAME * 3}red bird[SEG].</s>"
    assert SELECTOR_SHORT.ask("Red bird.", "expression", 2, 1, True) == f"{FRAME * 3}red bird"


@given(text=TEXTS, references=st.integers(1, 12), pair=st.tuples(st.integers(0, 1), st.integers(0, 3)))
def test_a_prompt_is_the_beginning_of_its_conversation(tokenizer, text, references, pair):
    if "<image>" in text:
        return
    words = templates_named("selector")
    ids = tokenizer.encode(words.say(text, "", references, [pair]).text)
    assert ids.count(IMAGE_TOKEN_ID) == words.images(references, 1) == references + 1
    assert ids.count(tokenizer.seg_id) == words.rounds(1) == 1
    asked = tokenizer.encode(words.ask(text, "expression", references, 1, True))
    whole = tokenizer.encode(words.say(text, "", references, [(0, 0)]).text)
    # The state of the prompt's last token is the one before [SCORE].
    assert whole[: len(asked)] == asked and whole[len(asked)] == tokenizer.seg_id


@pytest.mark.parametrize("references", [8, 12])
def test_a_conversation_fits_into_the_reference_s_limit(tokenizer, references):
    said = SELECTOR.say("the " * 60 + "dog", "", references, [(0, 3)])
    assert len(tokenizer.encode(said.text)) < SELECTOR.max_tokens
