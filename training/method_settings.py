"""Which settings of the data fit which method: one table, and the check of a run against it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from glus.common.errors import TrainingError
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.model.model_config import Method
from glus.model.pretraining.stand_in_config import StandInConfig


@dataclass(frozen=True)
class DataOfMethod:
    """What a method is trained on: its choice of frames and its prompts."""

    frame_choice: Literal["windows", "sparse_dense", "references"]
    prompts: tuple[str, ...]
    state_of_frame: bool
    """Whether a state stands for the object in one frame: the object-contrastive loss compares such states."""


DATA: Mapping[Method, DataOfMethod] = MappingProxyType(
    {
        "glus": DataOfMethod("windows", ("glus", "short"), state_of_frame=True),
        "videolisa": DataOfMethod("sparse_dense", ("videolisa", "videolisa_short"), state_of_frame=False),
        "pretraining": DataOfMethod("windows", ("glus", "short"), state_of_frame=True),
        "selector": DataOfMethod("references", ("selector", "selector_short"), state_of_frame=False),
    }
)

#: What every method trains of the language half.
_LANGUAGE = (
    "*lora_*",
    "language.llama.model.embed_tokens.*",
    "language.llama.lm_head.*",
    "language.text_hidden_fcs.*",
)
#: What is trained where `trainable` is empty: the references' tables. GLUS alone trains the projector.
TRAINABLE: Mapping[Method, tuple[str, ...]] = MappingProxyType(
    {
        "glus": (*_LANGUAGE, "language.mm_projector.*", "segmenter.sam2.sam_mask_decoder.*"),
        "videolisa": (*_LANGUAGE, "segmenter.*mask_decoder.*"),
        "selector": (*_LANGUAGE, "score_head.*"),
        # Each stage names what its losses reach.
        "pretraining": ("language.*", "stand_ins.*"),
    }
)


def check_attributes(sampling: SamplingConfig, stand_ins: StandInConfig) -> None:
    """Raise TrainingError where the words that batches are labelled with are not those that the model has heads for."""
    words = tuple(len(group) for group in sampling.attributes.values())
    if (stand_ins.tower or stand_ins.language) and words != stand_ins.attributes:
        raise TrainingError(
            f"sampling.attributes has groups of {list(words)} words, model.stand_ins.attributes says "
            f"{list(stand_ins.attributes)}: make them equal"
        )


def check_data(method: Method, sampling: SamplingConfig, contrastive: float) -> None:
    """Raise TrainingError where frames or prompts are another method's: the model would misread its batches.

    `contrastive` is the weight of the object-contrastive loss; a state of all frames has no part in it.
    """
    due = DATA[method]
    if contrastive and not due.state_of_frame:
        raise TrainingError(
            f"model.loss.contrastive is {contrastive}, but {method} has one state for all frames, which this loss does "
            "not compare: set it to 0"
        )
    if sampling.frame_choice != due.frame_choice:
        raise TrainingError(
            f"sampling.frame_choice is {sampling.frame_choice}, but model.method is {method}: set it to "
            f"{due.frame_choice}, or choose another method"
        )
    known = {style for each in DATA.values() for style in each.prompts}
    # An unknown style has a message of its own, which names them all.
    if sampling.prompts in known and sampling.prompts not in due.prompts:
        raise TrainingError(
            f"sampling.prompts is {sampling.prompts}, but model.method is {method}: use one of "
            f"{', '.join(due.prompts)}, or choose another method"
        )
