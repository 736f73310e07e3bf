"""Conversations of VideoLISA: Phi-3's chat, one <image> for all video tokens, one question, the complete answer learnt.

Source: showlab/VideoLISA, utils/utils.py (questions, answers), utils/mevis_dataset.py, utils/reason_seg_dataset.py,
evaluation/*/inference_*.py, chat.py and the conversation "phi3_instruct"; utils/dataset.py (image benchmarks).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from glus.data_pipeline.batches.prompt_style import WORDINGS, Said
from glus.data_pipeline.batches.tokenizer import IMAGE_PLACEHOLDER, SEG_TOKEN

#: Phi-3's marks of turns.
SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
#: `Expression.kind` of a sentence that asks by itself: it keeps its letters and takes a long question (ReasonSeg).
SENTENCE = "sentence"


@dataclass(frozen=True)
class Chat:
    """The words around an expression. `system` and `asking` come before the answer, `end` after it.

    `asking` holds {question}; a question, {expression}. `wordings` are the questions of inference; those in
    `as_written` keep the expression's letters, all others take it in lower case.
    """

    system: str
    asking: str
    end: str
    questions: tuple[str, ...]
    long_questions: tuple[str, ...]
    answers: tuple[str, ...]
    inference_answer: str
    wordings: Mapping[str, str]
    as_written: frozenset[str] = frozenset({"sentence", "chat", "image_phrase", "image_sentence"})
    image_answers: Mapping[str, str] = field(default_factory=dict)
    """Answers that differ from `inference_answer`, by wording; there the expression loses blanks at its ends."""
    tokens: tuple[str, ...] = ()
    max_tokens: int = field(default=2048 - 255)
    """model_max_length less 255, as the reference cuts; video tokens are not counted."""

    def rounds(self, query_frames: int) -> int:
        """One, whatever the frames: one [SEG] stands for all."""
        return 1

    def images(self, context_frames: int, query_frames: int) -> int:
        """One, whatever the frames."""
        return 1

    def say(self, text: str, kind: str, context_frames: int, chosen: Sequence[tuple[int, int]]) -> Said:
        """The training conversation: a sentence as it is, anything else in lower case with single blanks."""
        ((question, answer),) = chosen
        if kind == SENTENCE:
            template, expression = self.long_questions[question % len(self.long_questions)], text
        else:
            template, expression = self.questions[question], " ".join(text.lower().split())
        asked = self._asked(template, expression)
        return Said(f"{asked}{self.answers[answer]}{self.end}", asked)

    def ask(self, text: str, wording: str, context_frames: int, query_frames: int, trailing_blank: bool) -> str:
        """The prompt of inference, its answer given."""
        expression = text if wording in self.as_written else text.lower()
        if wording in self.image_answers:
            expression = expression.strip()
        answer = self.image_answers.get(wording, self.inference_answer)
        return f"{self._asked(self.wordings[wording], expression)}{answer}{self.end}"

    def _asked(self, template: str, expression: str) -> str:
        return self.system + self.asking.format(question=template.format(expression=expression))


#: The reference's words.
VIDEOLISA = Chat(
    system=f"{SYSTEM}\nYou are a helpful AI assistant.{END}\n",
    asking=f"{USER}\n{IMAGE_PLACEHOLDER}\n{{question}}{END}\n{ASSISTANT}\n",
    end=END,
    questions=(
        "Can you segment the {expression} in this image?",
        "Please segment the {expression} in this image.",
        "What is {expression} in this image? Please respond with segmentation mask.",
        "What is {expression} in this image? Please output segmentation mask.",
    ),
    long_questions=(
        "{expression} Please respond with segmentation mask.",
        "{expression} Please output segmentation mask.",
    ),
    answers=(
        f"It is {SEG_TOKEN}.",
        f"Sure, {SEG_TOKEN}.",
        f"Sure, it is {SEG_TOKEN}.",
        f"Sure, the segmentation result is {SEG_TOKEN}.",
        f"{SEG_TOKEN}.",
    ),
    inference_answer=f"Sure, {SEG_TOKEN}.",
    wordings=MappingProxyType(
        {
            "expression": "Please segment the {expression} in this image.",
            "scene": "Please segment the {expression} in this scene.",
            "sentence": "{expression}. Please output the segmentation masks.",
            "chat": "{expression}",
            # The blank before them and "video" are the reference's.
            "image": " What is {expression} in this video? Please output segmentation mask.",
            "image_phrase": " What is {expression} in this video? Please output segmentation mask.",
            "image_sentence": " {expression} Please output segmentation mask.",
        }
    ),
    image_answers=MappingProxyType(dict.fromkeys(("image", "image_phrase", "image_sentence"), f"{SEG_TOKEN}.")),
    tokens=(SYSTEM, USER, ASSISTANT, END),
)
#: The same course with nothing around the expression, for small models that learn to read from nothing.
VIDEOLISA_SHORT = Chat(
    system="",
    asking=f"{IMAGE_PLACEHOLDER}{{question}}",
    end="",
    questions=("{expression}",),
    long_questions=("{expression}",),
    answers=(f"{SEG_TOKEN}.",),
    inference_answer=f"{SEG_TOKEN}.",
    wordings=MappingProxyType(dict.fromkeys(WORDINGS, "{expression}")),
    as_written=frozenset(),
)
