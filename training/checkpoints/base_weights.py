"""Frozen weights of a run, written once: OUT/checkpoints/base-<digest>/model.safetensors, named by its checkpoints.

The name begins with the file's SHA-256; `run.json` of each checkpoint holds all of it. So a base that is missing,
damaged or exchanged is refused, and a checkpoint finds it next to itself wherever both are copied.
"""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from glus.common.errors import TrainingError, UserError
from glus.common.files import is_there, sha256_of
from glus.model.released.safetensors_file import open_tensors, save_tensors
from glus.training.checkpoints.checkpoint import WEIGHTS, RunState, read_state, remove, sync

_PREFIX = "base-"
#: Digits of the digest in a base's name.
_SHOWN = 16
#: Share of the model's elements from which on frozen ones go to a base: below it, checkpoints stay complete.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Base:
    """A base as a checkpoint names it: SHA-256 of its file in hexadecimal, and its bytes."""

    digest: str
    size: int

    @classmethod
    def named_by(cls, state: RunState) -> "Base | None":
        """The base that a checkpoint needs; None where it is complete without one."""
        return cls(state.base, state.base_bytes) if state.base else None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{_PREFIX}{self.digest[:_SHOWN]}"

    @property
    def file(self) -> str:
        """Its file, relative to the folder of checkpoints."""
        return f"{self.name}/{WEIGHTS}"

    def find(self, path: Path) -> Path:
        """Its file next to the checkpoint `path`. Raises TrainingError where it is not there or has another size."""
        places = [place / self.file for place in (path.parent, path.resolve().parent)]
        file = next((place for place in places if is_there(place)), None)
        if file is None:
            raise TrainingError(
                f"{path} holds only what was trained; its frozen weights, {places[0]}, are not there: copy the folder "
                f"{self.name} from the checkpoints of its run next to {path.name}"
            )
        if (size := file.stat().st_size) != self.size:
            raise TrainingError(f"{file} has {size} bytes of {self.size}: {self._remedy}")
        return file

    def is_in(self, folder: Path) -> bool:
        """Whether its file is in a folder of checkpoints, with its size."""
        try:
            return self.find(folder / WEIGHTS).is_file()
        except UserError:
            return False

    def check(self, path: Path) -> None:
        """Raise TrainingError where the base next to the checkpoint `path` is not there, damaged or another."""
        file = self.find(path)
        if sha256_of(file, "frozen weights") != self.digest:
            raise TrainingError(f"{file} does not hold what was written (another SHA-256): {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"the frozen weights are damaged or of another run; copy {self.name} again, or use another checkpoint"


def frozen_names(model: nn.Module) -> frozenset[str]:
    """Names of parameters that go to a base, the same on every rank; none where they are a small part of the model.

    LoRA stays with its checkpoint, trained or not.
    """
    sizes = {name: getattr(each, "ds_numel", each.numel()) for name, each in model.named_parameters()}
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad and ".lora_" not in name}
    if sum(sizes[name] for name in frozen) < LEAST_SHARE * sum(sizes.values()):
        return frozenset()
    return frozenset(frozen)


def write_base(folder: Path, weights: Mapping[str, Tensor]) -> Base:
    """Write frozen weights to the folder of checkpoints, under their digest. Raises TrainingError on a full disk."""
    aside = folder / f".{_PREFIX[:-1]}.writing"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        file = aside / WEIGHTS
        save_tensors({name: tensor.contiguous() for name, tensor in weights.items()}, file)
        sync(file)
        base = Base(sha256_of(file, "frozen weights", needed_again=False), file.stat().st_size)
        final = folder / base.name
        if final.exists():
            # Of an earlier attempt, perhaps damaged since: what was just written is not.
            remove(final)
        os.replace(aside, final)
        sync(final)
        sync(folder)
    except (OSError, UserError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise TrainingError(
            f"the frozen weights could not be written below {folder}: {error}; free some room"
        ) from error
    return base


def fitting_base(path: Path, frozen: Mapping[str, Tensor]) -> Base | None:
    """The base of the checkpoint that a run resumed from, where it holds `frozen` (name -> tensor) and no more.

    Compared are names, shapes and dtypes: the values are those that the run was started with. The tensors may be
    partitioned by ZeRO-3.
    """
    base = Base.named_by(read_state(path))
    if base is None or not frozen:
        return None
    try:
        with open_tensors(base.find(path)) as stored:
            if set(stored.keys()) != set(frozen):
                return None
            for name, tensor in frozen.items():
                held = stored.get_slice(name)
                shape = tuple(getattr(tensor, "ds_shape", tensor.shape))
                if tuple(held.get_shape()) != shape or held.get_dtype() != _DTYPES.get(str(tensor.dtype)):
                    return None
    except (SafetensorError, OSError, UserError):
        return None
    return base


#: torch's names of what parameters are -> those of safetensors.
_DTYPES = {"torch.float32": "F32", "torch.bfloat16": "BF16"}


def remove_unneeded(folder: Path, also: Collection[str] = ()) -> list[str]:
    """Remove the bases in `folder` that no checkpoint there names; returns their names.

    None is removed while a checkpoint's run.json cannot be read.
    """
    found = [path for path in sorted(folder.glob(f"{_PREFIX}*")) if path.is_dir()]
    needed = set(also)
    for path in folder.glob("step-*") if found else ():
        try:
            base = Base.named_by(read_state(path))
        except UserError:
            return []
        if base:
            needed.add(base.name)
    removed = [path for path in found if path.name not in needed]
    for path in removed:
        remove(path)
    return [path.name for path in removed]
