"""Conversations of GLUS: templates, context and query frames, answers; the words around expressions.

Source: the reference's train_ds.py and utils/utils.py (question and answer lists, LLaVA v1 conversation).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from glus.common.errors import DataError
from glus.data_pipeline.batches.chat_prompts import VIDEOLISA, VIDEOLISA_SHORT
from glus.data_pipeline.batches.prompt_style import FRAME, SYSTEM, Said, Style, clean_expression
from glus.data_pipeline.batches.selector_prompts import SELECTOR, SELECTOR_SHORT
from glus.data_pipeline.batches.tokenizer import SEG_TOKEN


@dataclass(frozen=True)
class Templates:
    """The words around an expression. `inference_answer` is put into the model's mouth before [SEG].

    `asking` is one round up to its answer: {frames}, then {question}.
    """

    system: str
    context_task: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    inference_answer: str
    asking: str = "USER: {frames}\n{question} ASSISTANT: "
    max_tokens: int = 512
    tokens: tuple[str, ...] = ()

    def rounds(self, query_frames: int) -> int:
        """One a query frame."""
        return query_frames

    def images(self, context_frames: int, query_frames: int) -> int:
        """One a frame."""
        return context_frames + query_frames

    def say(self, text: str, kind: str, context_frames: int, chosen: Sequence[tuple[int, int]]) -> Said:
        """`conversation`, whatever the kind; its loss is taken at [SEG] (model/glus.py)."""
        return Said(conversation(text, context_frames, chosen, self), None)

    def ask(self, text: str, wording: str, context_frames: int, query_frames: int, trailing_blank: bool) -> str:
        """`inference_prompt`, whatever the wording."""
        return inference_prompt(text, context_frames, query_frames, trailing_blank, self)


#: The reference's words.
GLUS = Templates(
    system=SYSTEM,
    context_task="\nPlease finished the following tasks on the context frames above.\n",  # sic
    questions=(
        "Can you segment the {expression} in this frame?",
        "Please segment the {expression} in this frame.",
        "What is {expression} in this frame? Please respond with segmentation mask.",
        "What is {expression} in this frame? Please output segmentation mask.",
    ),
    answers=(
        "It is [SEG].",
        "Sure, [SEG].",
        "Sure, it is [SEG].",
        "Sure, the segmentation result is [SEG].",
        "[SEG].",
    ),
    inference_answer="Sure, the segmentation result is ",
)
#: The same course with nothing around the expression, for small models that learn to read from nothing: [SEG] is
#: predicted at the expression's own last word.
SHORT = Templates("", "", ("{expression}",), ("[SEG].",), inference_answer="", asking="{frames}{question}")
STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "glus": GLUS,
        "short": SHORT,
        "videolisa": VIDEOLISA,
        "videolisa_short": VIDEOLISA_SHORT,
        "selector": SELECTOR,
        "selector_short": SELECTOR_SHORT,
    }
)


def templates_named(style: str) -> Style:
    """The words of a style. Raises DataError for an unknown one."""
    if style not in STYLES:
        raise DataError(f"sampling.prompts is {style!r}: use one of {', '.join(STYLES)}")
    return STYLES[style]


def conversation(text: str, context_frames: int, chosen: Sequence[tuple[int, int]], templates: Templates = GLUS) -> str:
    """The training conversation for one expression.

    `chosen` holds one (question, answer) pair of template indices for each query frame.
    """
    rounds = []
    for number, (question, answer) in enumerate(chosen):
        asked = templates.questions[question].format(expression=clean_expression(text))
        frames = f"{FRAME * context_frames}{templates.context_task}{FRAME}" if number == 0 else FRAME
        rounds.append(f"{templates.asking.format(frames=frames, question=asked)}{templates.answers[answer]}</s>")
    return templates.system + "".join(rounds)


def inference_prompt(
    text: str, context_frames: int, query_frames: int, trailing_blank: bool = True, templates: Templates = GLUS
) -> str:
    """The prompt for the last of `query_frames` frames, the frames before it answered with [SEG].

    The reference ends the prompt with a blank, which becomes a token of its own that training never puts before
    [SEG]; `trailing_blank=False` leaves it out (docs/fidelity.md).
    """
    asked = templates.questions[0].format(expression=clean_expression(text))
    prompt = templates.system
    for number in range(query_frames):
        frames = f"{FRAME * context_frames}{templates.context_task}{FRAME}" if number == 0 else FRAME
        prompt += templates.asking.format(frames=frames, question=asked) + templates.inference_answer
        prompt += f"{SEG_TOKEN}.</s>" if number + 1 < query_frames else ""
    return prompt if trailing_blank else prompt.rstrip()


def template_sentences() -> list[str]:
    """Return the words of conversations without expressions and special tokens, for training a tokenizer."""
    questions = [question.replace("{expression}", "").replace("  ", " ") for question in GLUS.questions]
    answers = [answer.replace(SEG_TOKEN, "").replace(" .", ".").strip() for answer in GLUS.answers]
    said = [f"{question} ASSISTANT: {answer}" for question in questions for answer in answers]
    return [f"{GLUS.system}USER:", GLUS.context_task.strip(), *said]


def draw_templates(
    expressions: int, rounds: int, random: np.random.Generator, templates: Style = GLUS
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each expression a (question, answer) pair of template indices for each round, as in training."""
    counts = np.array((len(templates.questions), len(templates.answers)))
    drawn = random.integers(0, counts, (expressions, rounds, 2)).tolist()
    return tuple(tuple((question, answer) for question, answer in pairs) for pairs in drawn)
