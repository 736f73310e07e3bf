"""Conversations of the key frame selector: numbered references, a target frame, one question, one [SCORE].

Source: GLUS's kfs/ (questions, answers); around them GLUS's conversation (LLaVA v1), and frames as GLUS marks them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glus.data_pipeline.batches.prompt_style import FRAME, SYSTEM, Said, clean_expression
from glus.data_pipeline.batches.tokenizer import SEG_TOKEN

#: The reference's answer token. Here it takes the id of [SEG]: a vocabulary has one answer token (docs/fidelity.md).
SCORE_TOKEN = "[SCORE]"


@dataclass(frozen=True)
class ScorePrompts:
    """The words around an expression. `asking` is one conversation up to its answer: {references}, {question}.

    `long_question` is asked about an expression that ends in "?". `reference` is one reference frame, {number} its
    place; `between` stands between two. Every answer ends after [SCORE] with `end`.
    """

    system: str
    asking: str
    reference: str
    between: str
    questions: tuple[str, ...]
    long_question: str
    answers: tuple[str, ...]
    end: str
    max_tokens: int = 512
    tokens: tuple[str, ...] = ()

    def rounds(self, query_frames: int) -> int:
        """One: a target has one score."""
        return 1

    def images(self, context_frames: int, query_frames: int) -> int:
        """One a reference, and one for the target."""
        return context_frames + query_frames

    def say(self, text: str, kind: str, context_frames: int, chosen: Sequence[tuple[int, int]]) -> Said:
        """The training conversation, whatever the kind; its loss is taken at [SCORE], which gets the id of [SEG]."""
        ((question, answer),) = chosen
        said = f"{self._asked(text, question, context_frames)}{self.answers[answer]}{self.end}"
        return Said(said.replace(SCORE_TOKEN, SEG_TOKEN), None)

    def ask(self, text: str, wording: str, context_frames: int, query_frames: int, trailing_blank: bool) -> str:
        """The prompt of inference up to [SCORE], without a blank: the state of its last token gives the score.

        Always the first question, or the long one, and the first answer; the other arguments change nothing.
        """
        begun, _, _ = self.answers[0].partition(SCORE_TOKEN)
        return f"{self._asked(text, 0, context_frames)}{begun}".rstrip()

    def _asked(self, text: str, question: int, references: int) -> str:
        expression = clean_expression(text)
        template = self.long_question if expression.endswith("?") else self.questions[question]
        shown = self.between.join(self.reference.format(number=number) for number in range(references))
        return self.system + self.asking.format(references=shown, question=template.format(expression=expression))


_ABOUT = "for localizing and segmenting the {expression} in the Reference Video"
#: The reference's words.
SELECTOR = ScorePrompts(
    system=SYSTEM,
    asking=f"USER: Reference Video: {{references}} \nTarget Image: {FRAME} \n{{question}} ASSISTANT: ",
    reference=f"({{number}}){FRAME}",
    between=", ",
    questions=(
        f"Does the Target Image provide enough information {_ABOUT}? Please respond with a confidence score.",
        f"Does the Target Image provide enough information {_ABOUT}? Please output confidence score.",
    ),
    long_question=f"Please decide whether the Target Image provide enough information {_ABOUT}.",  # sic
    answers=(
        f"It is {SCORE_TOKEN}.",
        f"Sure, {SCORE_TOKEN}.",
        f"Sure, it is {SCORE_TOKEN}.",
        f"Sure, the prediction result is {SCORE_TOKEN}.",
    ),
    end="</s>",
)
#: The same course with nothing around the expression, for small models that learn to read from nothing: [SCORE] is
#: predicted at the expression's own last word.
SELECTOR_SHORT = ScorePrompts(
    system="",
    asking=f"{{references}}{FRAME}{{question}}",
    reference=FRAME,
    between="",
    questions=("{expression}",),
    long_question="{expression}",
    answers=(f"{SCORE_TOKEN}.",),
    end="</s>",
)
