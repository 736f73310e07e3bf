"""Weights as others released them: one file, or a folder of shards with an index; read a shard at a time, mapped."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from glus.common.errors import ModelError, UserError, first_line
from glus.common.files import is_there, open_regular
from glus.common.json_file import read_object
from glus.model.released.safe_pickle import refused_code
from glus.model.released.safetensors_file import open_tensors

INDEX_SUFFIX = ".index.json"
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
#: Looked for in a folder, in this order (transformers').
_CANDIDATES = (SAFE + INDEX_SUFFIX, SAFE, PICKLED + INDEX_SUFFIX, PICKLED)


@dataclass(frozen=True)
class ReleasedWeights:
    """Names, shapes and shards of a release, known without reading a value.

    `place` is the file or folder that was given; `shapes`: released name -> shape; `shards`: file -> its names.
    """

    place: Path
    shapes: Mapping[str, tuple[int, ...]]
    shards: Mapping[Path, tuple[str, ...]]

    @classmethod
    def open(cls, place: Path) -> "ReleasedWeights":
        """Look at a file (.bin, .pt, .safetensors) or a folder as transformers writes it.

        Raises ModelError where it is absent or damaged, where a shard is missing, or where it is a pickle with code.
        """
        listed = _listed(place)
        shapes: dict[str, tuple[int, ...]] = {}
        shards: dict[Path, tuple[str, ...]] = {}
        for file, names in listed.items():
            with _opened(file) as stored:
                held = {name: stored.shape(name) for name in stored.names}
            if names is not None and set(names) != set(held):
                wrong = sorted(set(names) ^ set(held))
                raise ModelError(
                    f"{file} holds other parameters than its index says ({len(wrong)}, first {wrong[0]}): "
                    "index and shards are of different releases, download both again"
                )
            shapes |= held
            shards[file] = tuple(held)
        return cls(place, shapes, shards)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(released name, tensor as stored), one shard open at a time. Raises ModelError where a shard is damaged."""
        for file, names in self.shards.items():
            with _opened(file) as stored:
                for name in names:
                    yield name, stored.tensor(name)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError where the file is absent or is none."""
    return read_object(path, "table of settings", raises=ModelError, remedy="download the release again")


def _listed(place: Path) -> dict[Path, list[str] | None]:
    """Shards and the names that an index gives each; None without an index."""
    if not is_there(place):
        raise ModelError(f"{place} is not there: name the folder or file of the released weights")
    if not place.is_dir():
        return {place: None}
    found = next((place / name for name in _CANDIDATES if is_there(place / name)), None)
    if found is None:
        raise ModelError(f"{place} holds no weights: there is neither of {', '.join(_CANDIDATES)}")
    return _indexed(found) if found.name.endswith(INDEX_SUFFIX) else {found: None}


def _indexed(index: Path) -> dict[Path, list[str] | None]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} has no weight_map: download the release again")
    listed: dict[Path, list[str] | None] = {}
    for name, shard in table.items():
        if not isinstance(shard, str) or Path(shard).name != shard or "\0" in shard:
            raise ModelError(f"{index}: {name} lies in {shard!r}, which is no file of that folder")
        names = listed.setdefault(index.parent / shard, [])
        assert names is not None
        names.append(name)
    for file, names in listed.items():
        if not is_there(file):
            raise ModelError(
                f"{index} names {file.name} ({len(names or [])} parameters), which is not there: download it too"
            )
    return listed


class _Pickled:
    """An opened .bin or .pt: its tensors, mapped where the file is of the zip form (torch 1.6 and later)."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._tensors = tensors
        self.names = tuple(tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


class _Safe:
    """An opened .safetensors."""

    def __init__(self, file: Any):
        self._file = file
        self.names = tuple(file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


@contextmanager
def _opened(file: Path) -> Iterator[_Pickled | _Safe]:
    damaged = "it is damaged or incomplete, download it again"
    try:
        if file.suffix == ".safetensors":
            with open_tensors(file) as stored:
                yield _Safe(stored)
        else:
            yield _Pickled(_tensors_of(_unpickled(file), file))
    except UnpicklingError as error:
        code = refused_code(error)
        if code is None:
            raise ModelError(f"{file} cannot be read: {damaged}") from error
        raise ModelError(
            f"{file} holds more than tensors{code}: it is damaged, or a pickle with code, which is not run. "
            "Take the weights from their release, as .safetensors where there is one"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise ModelError(f"{file} cannot be read ({first_line(error)}): {damaged}") from error


def _unpickled(file: Path) -> Any:
    """The content of a .bin or .pt, mapped where it is of the zip form."""
    try:
        with open_regular(file, "weights") as opened:
            mapped = zipfile.is_zipfile(opened)
            if mapped:
                with zipfile.ZipFile(opened) as archive:
                    # torch compresses nothing; a compressed part could unpack to more than fits into memory.
                    if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                        raise ModelError(f"{file} holds compressed parts, which torch never writes: download it again")
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (UserError, UnpicklingError, OSError, RuntimeError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _tensors_of(content: Any, file: Path) -> Mapping[str, Tensor]:
    # SAM 2 is released as {"model": tensors}.
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{file} is no table of tensors: name a file of weights")
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise ModelError(f"{file}: {others[0]!r} is no tensor: name a file of weights, not of a training state")
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise ModelError(f"{file}: {name!r} is no name of a tensor: name a file of weights")
        # A tensor may repeat one number: weights never do, and a copy of it would take memory that the file has not.
        if tensor.layout is not torch.strided or tensor.untyped_storage().nbytes() < tensor.nbytes:
            raise ModelError(f"{file}: {name} has fewer numbers than its shape {list(tensor.shape)}: download it again")
    return content
