"""Write a model in the released layout of its method: LoRA merged, names and shapes as the reference has them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.model.model_config import VisionConfig
from glus.model.precision import all_finite
from glus.model.released.load_release import HEAD, config_of, own_tensors
from glus.model.released.release_files import INDEX_SUFFIX, PICKLED, SAFE
from glus.model.released.release_methods import RELEASED_METHODS
from glus.model.released.release_names import CLIP, PIXEL_DEVIATION, PIXEL_MEAN, SEGMENTER
from glus.model.released.release_sizes import released_processor, released_vision_config
from glus.model.released.safetensors_file import save_tensors

Format = Literal["bin", "safetensors"]
TOWER = "language.vision_tower."
#: In float32 whatever precision is asked for, as GLUS is released: the references make these parts after
#: they have loaded the language model in bfloat16. It would turn the segmenter's positional encoding by degrees.
_ALWAYS_FLOAT32 = (SEGMENTER, "model.text_hidden_fcs.", PIXEL_MEAN, PIXEL_DEVIATION)


@dataclass(frozen=True)
class Written:
    """Bytes of the weights that were written, and `underflows`: name -> (how many of its values became 0, of how many).

    Values become 0 where the dtype has none so small: below 3e-8 in float16.
    """

    size: int
    underflows: Mapping[str, tuple[int, int]]

    def __add__(self, other: "Written") -> "Written":
        return Written(self.size + other.size, {**self.underflows, **other.underflows})

    def lost(self) -> list[str]:
        """A line to print where values became 0: how many, and the parameter that has the largest share of them."""
        if not self.underflows:
            return []
        zeros = sum(lost for lost, _ in self.underflows.values())
        worst, (lost, count) = max(self.underflows.items(), key=lambda item: item[1][0] / item[1][1])
        return [
            f"{zeros:,} values of {len(self.underflows)} parameters became 0, too small for this dtype: most of all "
            f"{worst} ({lost:,} of {count:,}); dtype=bfloat16 and dtype=float32 keep them"
        ]


def merge_lora(model: nn.Module) -> int:
    """Merge LoRA into the weights that it adapts and remove it, in place. Returns the number of merged layers.

    Raises ModelError where a merged weight is not finite.
    """
    language = model.get_submodule("language.llama")
    found = [
        (name, module) for name, module in language.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)
    ]
    for name, module in found:
        try:
            module.merge(safe_merge=True)
        except ValueError as error:
            raise ModelError(f"{name}: LoRA cannot be merged ({error}): the checkpoint's weights are broken") from error
        parent, _, last = name.rpartition(".")
        setattr(language.get_submodule(parent), last, module.get_base_layer())
    return len(found)


def released_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(released name, tensor) of a merged model, the vision tower left out as GLUS and VideoLISA are released.

    Raises ModelError where LoRA is not merged.
    """
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise ModelError("LoRA is not merged: merge_lora first")
    config = config_of(model)
    method = RELEASED_METHODS[config.method]
    names = method.names(config)
    tied = {HEAD} if config.language.tie_embeddings else set()
    for name, tensor in own_tensors(model).items():
        if name.startswith(TOWER) or name in tied:
            continue
        released = names.released(name)
        if released is None:
            raise ModelError(f"{name} has no name in the released layout")
        yield released, tensor.detach()
    yield from method.settings(config)


def write_tower(model: nn.Module, folder: Path, dtype: torch.dtype, form: Format, shard_bytes: int) -> Written:
    """The vision tower as a CLIP of its own: weights, config.json, preprocessor_config.json.

    Layers above the one that is read are not in our model; they are written as layers that pass everything through, so
    that counting from the last one ends at the same layer. Raises OSError.
    """
    folder.mkdir()
    vision = config_of(model).vision
    own = {name: tensor.detach() for name, tensor in own_tensors(model).items() if name.startswith(TOWER)}
    tensors = [(str(CLIP.released(name)), tensor) for name, tensor in own.items()]
    written = write_shards([*tensors, *_passing_layers(own, vision)], folder, dtype, form, shard_bytes)
    write_json(folder / "config.json", released_vision_config(vision, dtype_name(dtype)))
    write_json(folder / "preprocessor_config.json", released_processor(vision))
    return written


def _passing_layers(own: dict[str, Tensor], vision: VisionConfig) -> Iterator[tuple[str, Tensor]]:
    template = f"{TOWER}encoder.layers.0."
    for layer in range(vision.layers_run, vision.layers):
        for name, tensor in own.items():
            if name.startswith(template):
                ours = f"{TOWER}encoder.layers.{layer}.{name[len(template) :]}"
                yield str(CLIP.released(ours)), torch.zeros_like(tensor)


def write_shards(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, dtype: torch.dtype, form: Format, shard_bytes: int
) -> Written:
    """Write tensors into numbered shards of at most `shard_bytes` (but one tensor at least), and their index.

    They are written in `dtype`, SAM 2 and `text_hidden_fcs` of a GLUS in float32. A shard is converted and written
    before the next is begun. Raises OSError, or ModelError for a value that `dtype` cannot hold and for a parameter of
    which nothing but 0 would be left.
    """
    plan: list[list[tuple[str, Tensor]]] = [[]]
    held = total = 0
    for name, tensor in tensors:
        size = tensor.numel() * _stored(name, dtype).itemsize
        if plan[-1] and held + size > shard_bytes:
            plan.append([])
            held = 0
        plan[-1].append((name, tensor))
        held += size
        total += size
    single = SAFE if form == "safetensors" else PICKLED
    stem, suffix = single.rsplit(".", 1)
    weight_map: dict[str, str] = {}
    underflows: dict[str, tuple[int, int]] = {}
    for number, shard in enumerate(plan, 1):
        file = f"{stem}-{number:05d}-of-{len(plan):05d}.{suffix}"
        # clone: a view would be written with all that it is a view of
        ready = {name: tensor.to(_stored(name, dtype), copy=True).contiguous() for name, tensor in shard}
        for name, tensor in shard:
            if lost := _check_held(name, tensor, ready[name]):
                underflows[name] = (lost, tensor.numel())
        if form == "safetensors":
            save_tensors(ready, folder / file)
        else:
            try:
                torch.save(ready, folder / file)
            except RuntimeError as error:  # torch's way to report a full disk
                raise OSError(next(iter(str(error).splitlines()), "RuntimeError")) from error
        weight_map |= dict.fromkeys(ready, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / f"{single}{INDEX_SUFFIX}", index)
    return Written(total, underflows)


def _check_held(name: str, tensor: Tensor, stored: Tensor) -> int:
    """Return how many values became 0. Raises ModelError where one became infinite, or all of them 0."""
    if not all_finite(tensor):
        raise ModelError(f"{name} holds NaN or infinite values: the checkpoint's weights are broken, use another")
    if tensor.dtype == stored.dtype:
        return 0
    if not all_finite(stored):
        raise ModelError(
            f"{name} holds {float(tensor.abs().max()):g}, which {dtype_name(stored.dtype)} cannot hold (its largest is "
            f"{torch.finfo(stored.dtype).max:g}): export with dtype=bfloat16 or dtype=float32"
        )
    left = int(stored.count_nonzero())
    lost = int(tensor.count_nonzero()) - left
    if lost and not left:
        raise ModelError(
            f"{name} holds at most {float(tensor.abs().max()):g}, so that all of it would become 0 in "
            f"{dtype_name(stored.dtype)}: export with dtype=bfloat16 or dtype=float32"
        )
    return lost


def _stored(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if name.startswith(_ALWAYS_FLOAT32) else dtype


def write_json(path: Path, content: Any) -> None:
    """Write JSON as transformers does: indented, sorted. Raises OSError."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
