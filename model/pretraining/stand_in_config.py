"""Settings of losses that stand in for released weights (model/pretraining)."""

from dataclasses import dataclass

from glus.common.errors import ModelError
from glus.model.bounds import check_bounds

_STAND_INS = {
    **{"attributes": (2, 4096), "place_cells": (0, 256), "language_layer": (1, 512), "unprompted": (0, 1)},
    **dict.fromkeys(("place", "tower", "language", "points"), (0, 1000000.0)),
}


@dataclass(frozen=True)
class StandInConfig:
    """Losses that stand in for what released weights bring (model/pretraining). Not a part of GLUS: all are off."""

    attributes: tuple[int, ...] = ()
    """Words of each group of sampling.attributes; empty builds no heads for them."""
    place_cells: int = 0
    """The frame is cut into so many cells a side, of which the place loss names one; 0 builds no head for it."""
    place: float = 0.0
    """Weight of the place loss: [SEG] names the cells that its object covers."""
    tower: float = 0.0
    """Weight of the loss by which patches of the vision tower name the attributes of their object."""
    language: float = 0.0
    """The same for a frame's tokens after `language_layer` layers of the language model."""
    language_layer: int = 2
    """Layer of the language model whose states name attributes."""
    language_groups: tuple[int, ...] = ()
    """The groups that this loss names, counted from 0; empty: all. A single frame does not show motion."""
    points: float = 0.0
    """Length of points that prompt the segmenter instead of [SEG]: one on the object in the first query frame, nothing
    afterwards, so that the memory must follow it. 0 prompts with [SEG].
    """
    unprompted: float = 0.0
    """Share of query frames after the first whose [SEG] state is left out (zeros), so that the memory must follow the
    object there.
    """

    def __post_init__(self) -> None:
        check_bounds("model.stand_ins", self, _STAND_INS)
        if (self.tower or self.language) and not self.attributes:
            raise ModelError("model.stand_ins.attributes is empty: say how many words each group has")
        unknown = [group for group in self.language_groups if not 0 <= group < len(self.attributes)]
        if unknown:
            raise ModelError(
                f"model.stand_ins.language_groups={list(self.language_groups)}: {unknown[0]} is none of the "
                f"{len(self.attributes)} groups of model.stand_ins.attributes, counted from 0"
            )
        if self.place and not self.place_cells:
            raise ModelError("model.stand_ins.place_cells is 0: say into how many cells a side a frame is cut")
