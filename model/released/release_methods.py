"""Complete checkpoints as each method is released: where they are named, what they hold, how they are recognised."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.common.files import is_there
from glus.model.model_config import Method, ModelConfig
from glus.model.released.release_files import read_json
from glus.model.released.release_names import (
    GLUS,
    LANGUAGE_OF_GLUS,
    PIXEL_DEVIATION,
    PIXEL_MEAN,
    NameMap,
    videolisa_names,
)

#: Next to the released layout `glus export` writes every size and switch of the model here.
MODEL_CONFIG = "glus_model.json"


@dataclass(frozen=True)
class ReleasedMethod:
    """How one method is released. Its key in `weights` is its name in `model.method`."""

    title: str
    tower: str
    """The CLIP that it is released without."""
    architecture: str
    """In `architectures` of config.json."""
    names: Callable[[ModelConfig], NameMap]
    """Names of all parameters but the vision tower's."""
    settings: Callable[[ModelConfig], Iterator[tuple[str, Tensor]]]
    """What is written that is no parameter of ours."""
    vision: dict[str, Any]
    """The vision half's settings that no released file shows."""


def _pixels_of_sam2(config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    yield PIXEL_MEAN, torch.tensor(config.segmenter.mean).view(3, 1, 1)
    yield PIXEL_DEVIATION, torch.tensor(config.segmenter.std).view(3, 1, 1)


RELEASED_METHODS: dict[Method, ReleasedMethod] = {
    "glus": ReleasedMethod(
        "GLUS", "openai/clip-vit-large-patch14", "GLUSForCausalLM", lambda _: GLUS, _pixels_of_sam2, {}
    ),
    # A dense frame gives each of its patches; nothing is averaged in rows.
    "videolisa": ReleasedMethod(
        "VideoLISA",
        "openai/clip-vit-large-patch14-336",
        "VideoLISAForCausalLM",
        videolisa_names,
        lambda _: iter(()),
        {"pool": 1},
    ),
}


@dataclass(frozen=True)
class TakenRelease:
    """Which complete checkpoint a method starts from, and the names of what it takes of it.

    Without `segmenter` it takes none, and a segmenter of its own (weights.segmenter) would have no place.
    """

    method: Method
    names: Callable[[ModelConfig], NameMap]
    segmenter: bool = True


#: `model.method` -> the complete checkpoint that it starts from.
TAKEN: dict[Method, TakenRelease] = {
    **{method: TakenRelease(method, released.names) for method, released in RELEASED_METHODS.items()},
    "selector": TakenRelease("glus", lambda _: LANGUAGE_OF_GLUS, segmenter=False),
    "pretraining": TakenRelease("glus", RELEASED_METHODS["glus"].names),
}


def check_is_released(method: Method) -> None:
    """Raise ModelError for a method that has no released layout."""
    if method not in RELEASED_METHODS:
        raise ModelError(
            f"a {method} has no released layout: none was published. Name its run or checkpoint folder instead"
        )


def method_of(folder: Path) -> Method | None:
    """The method of a complete checkpoint, by the file of `glus export` or by config.json; None where neither says.

    Raises ModelError where one of them is no JSON object.
    """
    if is_there(folder / MODEL_CONFIG):
        method = read_json(folder / MODEL_CONFIG).get("method", "glus")
        return next((known for known in RELEASED_METHODS if known == method), None)
    if not is_there(folder / "config.json"):
        return None
    named = read_json(folder / "config.json").get("architectures")
    architectures = named if isinstance(named, list) else []
    return next((key for key, method in RELEASED_METHODS.items() if method.architecture in architectures), None)
