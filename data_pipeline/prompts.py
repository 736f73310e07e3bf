"""Conversations of GLUS: templates, context and query frames, answers; text -> token ids and labels.

Source: the reference's train_ds.py and utils/utils.py (question and answer lists, LLaVA v1 conversation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glus.data_pipeline.tokenizer import IGNORED_LABEL, IMAGE_PLACEHOLDER, SEG_TOKEN, Tokenizer

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
QUESTIONS = (
    "Can you segment the {expression} in this frame?",
    "Please segment the {expression} in this frame.",
    "What is {expression} in this frame? Please respond with segmentation mask.",
    "What is {expression} in this frame? Please output segmentation mask.",
)
ANSWERS = (
    "It is [SEG].",
    "Sure, [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
    "[SEG].",
)
FRAME = f"<im_start>{IMAGE_PLACEHOLDER}<im_end>"
CONTEXT_TASK = "Please finished the following tasks on the context frames above."  # sic: the reference's words
#: What inference asks, and the words that it puts into the model's mouth before [SEG].
INFERENCE_QUESTION = QUESTIONS[0]
INFERENCE_ANSWER = "Sure, the segmentation result is "


@dataclass(frozen=True)
class TokenizedExpression:
    """One conversation. `ids` and `labels` are lists of the same length; -200 is a frame, -100 no label."""

    ids: list[int]
    labels: list[int]


def clean_expression(text: str) -> str:
    """The expression as the reference asks it: lower case, without blanks at its ends and a full stop after it."""
    cleaned = text.strip().lower()
    return cleaned.removesuffix(".")


def conversation(text: str, context_frames: int, templates: Sequence[tuple[int, int]]) -> str:
    """The training conversation for one expression.

    `templates` holds one (question, answer) pair of template indices for each query frame.
    """
    rounds = []
    for number, (question, answer) in enumerate(templates):
        asked = QUESTIONS[question].format(expression=clean_expression(text))
        frames = f"{FRAME * context_frames}\n{CONTEXT_TASK}\n{FRAME}" if number == 0 else FRAME
        rounds.append(f"USER: {frames}\n{asked} ASSISTANT: {ANSWERS[answer]}</s>")
    return f"{SYSTEM} {''.join(rounds)}"


def inference_prompt(text: str, context_frames: int, query_frames: int, trailing_blank: bool = True) -> str:
    """The prompt for the last of `query_frames` frames, the frames before it answered with [SEG].

    The reference ends the prompt with a blank, which becomes a token of its own that training never puts before
    [SEG]; `trailing_blank=False` leaves it out (docs/fidelity.md).
    """
    asked = INFERENCE_QUESTION.format(expression=clean_expression(text))
    prompt = f"{SYSTEM} "
    for number in range(query_frames):
        frames = f"{FRAME * context_frames}\n{CONTEXT_TASK}\n{FRAME}" if number == 0 else FRAME
        prompt += f"USER: {frames}\n{asked} ASSISTANT: {INFERENCE_ANSWER}"
        prompt += f"{SEG_TOKEN}.</s>" if number + 1 < query_frames else ""
    return prompt if trailing_blank else prompt.rstrip()


def template_sentences() -> list[str]:
    """What conversations say besides expressions and special tokens; a tokenizer trained on them knows these words."""
    questions = [question.replace("{expression}", "").replace("  ", " ") for question in QUESTIONS]
    answers = [answer.replace(SEG_TOKEN, "").replace(" .", ".").strip() for answer in ANSWERS]
    said = [f"{question} ASSISTANT: {answer}" for question in questions for answer in answers]
    return [f"{SYSTEM} USER:", CONTEXT_TASK, *said]


def draw_templates(query_frames: int, random: np.random.Generator) -> list[tuple[int, int]]:
    """A (question, answer) pair of template indices for each query frame, at random as in training."""
    return [(int(random.integers(len(QUESTIONS))), int(random.integers(len(ANSWERS)))) for _ in range(query_frames)]


def tokenize_conversation(tokenizer: Tokenizer, text: str) -> TokenizedExpression:
    """Ids and labels of a conversation. Only [SEG] carries a label: GLUS's cross-entropy takes nothing else."""
    ids = tokenizer.encode_with_images(text)
    labels = [token if token == tokenizer.seg_id else IGNORED_LABEL for token in ids]
    return TokenizedExpression(ids, labels)
