"""Load released weights into a model that is not partitioned: every name has its place, or is reported.

A model without weights (on the meta device) is only compared, or with LateValues says how each parameter is read:
names and shapes that do not fit are found before memory is taken for the model.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.common.seeds import torch_generator
from glus.model.model_config import ModelConfig
from glus.model.precision import why_unusable
from glus.model.released.late_values import LateValues
from glus.model.released.release_files import ReleasedWeights
from glus.model.released.release_lora import Adapter, adapted_weight, add_adapter, find_adapters, plain_name
from glus.model.released.release_methods import TAKEN
from glus.model.released.release_names import (
    LISA,
    LLAMA,
    LLAVA,
    LLAVA_OF_TRANSFORMERS,
    SAM2,
    Ignored,
    NameMap,
    clip_names,
    sam1_names,
)

EMBEDDING, HEAD = "language.llama.model.embed_tokens.weight", "language.llama.lm_head.weight"
_BY_TOKEN = (EMBEDDING, HEAD)
#: More names than this are listed with a star for their numbers.
_LISTED_ONE_BY_ONE = 8


@dataclass(frozen=True)
class FreshTokens:
    """The last `count` tokens of the vocabulary, which a base language model may not have.

    Their rows are drawn normally with deviation `deviation`, keyed by `seed`: transformers 4.31's
    resize_token_embeddings, as the reference calls it.
    """

    count: int
    deviation: float
    seed: int


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and kept buffers of a model by the names that they have without LoRA; LoRA's own left out."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if ".lora_" not in name
    }


def config_of(model: nn.Module) -> ModelConfig:
    """The sizes of a model of any method, its `config`."""
    config = model.config
    assert isinstance(config, ModelConfig)
    return config


def load_language(model: nn.Module, folder: Path, fresh: FreshTokens, values: LateValues | None = None) -> list[str]:
    """Load Llama, and the projector where there is one, from LISA or a Llama of transformers. Returns lines to print.

    `text_hidden_fcs` is drawn as torch draws an nn.Linear, whatever the release holds: so does the reference.
    Raises ModelError where names, shapes or files do not fit.
    """
    released = ReleasedWeights.open(folder)
    if any(name.startswith("model.visual_model.sam_mask_decoder.") for name in released.shapes):
        raise ModelError(f"{folder} is a GLUS checkpoint: give it as weights.glus, which takes its SAM 2 too")
    names = _language_names(model, released)
    has_projector = any(ours.startswith("language.mm_projector.") for _, ours in names.renames)
    values = values or _filling(model)
    notes = _load(model, released, names, fresh, values)
    if values is None:
        return []
    drawn = ["text_hidden_fcs"] if has_projector else ["text_hidden_fcs", "mm_projector"]
    for name in drawn:
        _redraw(model.get_submodule(f"language.{name}"), fresh.seed, name, values)
    return [*notes, f"{folder}: freshly drawn: {', '.join(drawn)}"]


def _language_names(model: nn.Module, released: ReleasedWeights) -> NameMap:
    if any(name.startswith("language_model.") for name in released.shapes):
        return LLAVA_OF_TRANSFORMERS
    if not any(name.startswith("model.mm_projector.") for name in released.shapes):
        return LLAMA
    # VideoLISA starts from a LLaVA, GLUS and its selector from a LISA.
    return LISA if TAKEN[config_of(model).method].method == "glus" else LLAVA


def load_complete(model: nn.Module, folder: Path, values: LateValues | None = None) -> list[str]:
    """Load all that the model has but the vision tower from the checkpoint that its method takes, LoRA merged or not.

    The selector takes a GLUS, without its segmenter. Returns lines to print. Raises ModelError.
    """
    names = TAKEN[config_of(model).method].names(config_of(model))
    return _load(model, ReleasedWeights.open(folder), names, None, values or _filling(model))


def load_vision(model: nn.Module, place: Path, values: LateValues | None = None) -> list[str]:
    """Load the vision tower from a CLIP. Returns lines to print; raises ModelError."""
    names = clip_names(config_of(model).vision)
    return _load(model, ReleasedWeights.open(place), names, None, values or _filling(model))


def load_segmenter(model: nn.Module, file: Path, values: LateValues | None = None) -> list[str]:
    """Load SAM 2 from sam2_hiera_*.pt or sam2.1_hiera_*.pt, or SAM 1 from sam_vit_*.pth. Returns lines to print.

    Raises ModelError.
    """
    names = {"sam1": sam1_names(config_of(model).sam1), "sam2": SAM2}[config_of(model).segmenter.kind]
    return _load(model, ReleasedWeights.open(file), names, None, values or _filling(model))


def _filling(model: nn.Module) -> LateValues | None:
    """What fills a complete model at once; None for one on the meta device, which is only compared."""
    return None if any(parameter.is_meta for parameter in model.parameters()) else LateValues()


def _load(
    model: nn.Module, released: ReleasedWeights, names: NameMap, fresh: FreshTokens | None, values: LateValues | None
) -> list[str]:
    own = own_tensors(model)
    tied = {HEAD} if config_of(model).language.tie_embeddings else set()
    adapters = find_adapters(released.shapes, released.place)
    wanted, ignored = _assign(released, names, own, tied)
    _check_shapes(released, wanted, own, fresh)
    if values is None:
        return []
    notes = [f"{released.place}: {len(wanted)} tensors taken ({names.release})"]
    for line, count in ignored.items():
        notes.append(f"{released.place}: {count} ignored: {line.pattern} ({line.why})")
    matrices: dict[str, Tensor] = {}
    for name, tensor in released.tensors():
        ours = wanted.get(name)
        if ours is None and adapted_weight(name) is None:
            continue
        if why := why_unusable(tensor):
            raise ModelError(f"{released.place}: {name} {why}; download the release again, or use another")
        if ours is None:
            matrices[name] = tensor.clone()
        elif fresh is not None and ours in _BY_TOKEN:
            values.write(own[ours], partial(_fill_rows, stored=tensor, ours=ours, fresh=fresh))
            notes += _rows_note(len(own[ours]), len(tensor), fresh, f"{released.place}: {name}")
        else:
            values.copy(own[ours], tensor)
    return notes + _merge_adapters(model, adapters, matrices, names, own, released.place, values)


def _merge_adapters(
    model: nn.Module,
    adapters: Mapping[str, Adapter],
    matrices: Mapping[str, Tensor],
    names: NameMap,
    own: Mapping[str, Tensor],
    place: Path,
    values: LateValues,
) -> list[str]:
    alpha = config_of(model).lora.alpha
    for weight, adapter in adapters.items():
        added = partial(add_adapter, down=matrices[adapter.down], up=matrices[adapter.up], alpha=alpha)
        values.change(own[str(names.ours(weight))], added)
    return [f"{place}: LoRA of {len(adapters)} weights merged (model.lora.alpha {alpha})"] if adapters else []


def _assign(
    released: ReleasedWeights, names: NameMap, own: Mapping[str, Tensor], tied: set[str]
) -> tuple[dict[str, str], dict[Ignored, int]]:
    """(released name -> ours, how many names each line ignores). Raises ModelError: unknown names, missing ones."""
    wanted: dict[str, str] = {}
    ignored: dict[Ignored, int] = {}
    unknown = []
    for name in released.shapes:
        if (adapted := adapted_weight(name)) is not None:
            if names.ours(adapted[0]) not in own:
                unknown.append(name)
            continue
        plain = plain_name(name)
        line, ours = names.ignoring(plain), names.ours(plain)
        if line is None and ours in tied:
            line = Ignored(name, "tied to the embedding table")
        if line is not None:
            ignored[line] = ignored.get(line, 0) + 1
        elif ours is None or ours not in own:
            unknown.append(name)
        else:
            wanted[name] = ours
    here = tuple(ours for _, ours in names.renames)
    missing = [
        names.released(name) or name
        for name in own
        if name.startswith(here) and name not in tied and name not in wanted.values()
    ]
    if missing or unknown:
        parts = [f"{len(missing)} missing: {listed_names(missing)}"] if missing else []
        parts += [f"{len(unknown)} unknown: {listed_names(unknown)}"] if unknown else []
        raise ModelError(
            f"{released.place} does not hold the parameters of {names.release} at the config's sizes; "
            f"{'; '.join(parts)}. Name the right release, or set the model's sizes to it"
        )
    return wanted, ignored


def _check_shapes(
    released: ReleasedWeights, wanted: Mapping[str, str], own: Mapping[str, Tensor], fresh: FreshTokens | None
) -> None:
    differing = []
    for name, ours in wanted.items():
        stored, made = released.shapes[name], tuple(own[ours].shape)
        if fresh is not None and ours in _BY_TOKEN and stored[1:] == made[1:]:
            if stored[0] < made[0] - fresh.count:
                raise ModelError(
                    f"{released.place}: {name} has {stored[0]} rows, but the tokenizer has {made[0]} tokens, "
                    f"{fresh.count} of them added: the tokenizer is of another model, name that of the release"
                )
        elif stored != made:
            differing.append(f"{name} has {list(stored)}, the config makes {list(made)}")
    if differing:
        raise ModelError(
            f"{released.place} is of another model size: {len(differing)} shapes differ: {'; '.join(differing)}. "
            "Set the model's sizes to those of the release"
        )


def _fill_rows(target: Tensor, stored: Tensor, ours: str, fresh: FreshTokens) -> None:
    known = min(len(target), len(stored))
    target[:known].copy_(stored[:known])
    if len(target) > known:
        drawn = torch.empty(len(target) - known, target.shape[1])
        target[known:].copy_(drawn.normal_(0.0, fresh.deviation, generator=_generator(fresh.seed, ours)))


def _rows_note(made: int, stored: int, fresh: FreshTokens, where: str) -> list[str]:
    """A line where a table of tokens has other rows than the stored one."""
    if stored > made:
        return [f"{where}: {stored - made} rows above the tokenizer's {made} tokens left out"]
    if made > stored:
        return [f"{where}: {made - stored} rows drawn for added tokens (deviation {fresh.deviation:g})"]
    return []


def _redraw(module: nn.Module, seed: int, name: str, values: LateValues) -> None:
    """Draw the linear layers of a module as torch does, keyed by seed and name."""
    with torch.random.fork_rng(devices=[]), values.drawing_later(math.inf) as take_notes:
        torch.manual_seed(_generator(seed, name).initial_seed())
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    take_notes(module)


def _generator(seed: int, name: str) -> torch.Generator:
    return torch_generator(seed, zlib.crc32(name.encode()))


def listed_names(names: Sequence[str]) -> str:
    """Join `names` in a line: one by one where they are few, else with a star for numbers, and counts."""
    if len(names) <= _LISTED_ONE_BY_ONE:
        return ", ".join(names)
    counts: dict[str, int] = {}
    for name in names:
        starred = re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
        counts[starred] = counts.get(starred, 0) + 1
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in counts.items())
