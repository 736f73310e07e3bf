"""LoRA that a release holds unmerged, by PEFT's names: found, and added to the weights that it adapts.

W becomes W + alpha / rank x B A, computed in float32 (Hu et al. 2021; peft's merge_and_unload).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from glus.common.errors import ModelError

#: What PEFT puts before all names and into those of adapted weights.
_BEGIN, _BASE = "base_model.model.", ".base_layer."
_ADAPTER = re.compile(r"(.+)\.lora_([AB])\.default\.weight")


def plain_name(released: str) -> str:
    """A released name without what PEFT adds to it."""
    return released.removeprefix(_BEGIN).replace(_BASE, ".")


def adapted_weight(released: str) -> tuple[str, str] | None:
    """(name of the weight, "A" or "B") of an adapter's matrix; None for another parameter."""
    found = _ADAPTER.fullmatch(plain_name(released))
    return (f"{found[1]}.weight", found[2]) if found else None


@dataclass(frozen=True)
class Adapter:
    """Released names of the two matrices that adapt a weight: A [rank, in], B [out, rank]."""

    down: str
    up: str


def find_adapters(shapes: Mapping[str, tuple[int, ...]], place: object) -> dict[str, Adapter]:
    """Adapters of a release by the plain name of the weight.

    Raises ModelError where one of a pair is missing or their shapes do not fit the weight.
    """
    halves: dict[str, dict[str, str]] = {}
    plain = {plain_name(name): shape for name, shape in shapes.items()}
    for name in shapes:
        if found := adapted_weight(name):
            halves.setdefault(found[0], {})[found[1]] = name
    for weight, names in halves.items():
        if set(names) != {"A", "B"}:
            raise ModelError(f"{place}: LoRA of {weight} has only one of its two matrices: download the release again")
        down, up, base = shapes[names["A"]], shapes[names["B"]], plain.get(weight)
        if not (len(down) == len(up) == 2 and down[0] == up[1] and base == (up[0], down[1])):
            raise ModelError(
                f"{place}: LoRA of {weight} has shapes {list(down)} and {list(up)}, which do not fit "
                f"{list(base) if base else 'a weight that is not there'}: download the release again"
            )
    return {weight: Adapter(names["A"], names["B"]) for weight, names in halves.items()}


def add_adapter(weight: Tensor, down: Tensor, up: Tensor, alpha: float) -> None:
    """Add alpha / rank x B A to a weight [out, in], in place."""
    with torch.no_grad():
        weight.data.add_((alpha / down.shape[0]) * (up.float() @ down.float()))
