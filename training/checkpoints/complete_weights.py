"""Complete weights of a checkpoint, of its own file and the base that it names: the one place that reads them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from glus.common.errors import TrainingError
from glus.model.precision import why_unusable
from glus.model.released.late_values import LateValues
from glus.model.released.safetensors_file import open_tensors
from glus.training.checkpoints.base_weights import Base
from glus.training.checkpoints.checkpoint import CONFIG, WEIGHTS, read_state


@dataclass(frozen=True)
class PartTaken:
    """What a model takes of another method's checkpoint: all but names that begin with one of `left_out`.

    What of the model begins with one of `fresh` stays as it was drawn.
    """

    left_out: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a checkpoint: name -> (file that holds it, that file as safetensors opened it)."""

    places: Mapping[str, tuple[Path, Any]]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self.places[name][1].get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """A tensor as stored, mapped. Raises TrainingError where it cannot be used."""
        file, opened = self.places[name]
        tensor: Tensor = opened.get_tensor(name)
        if why := why_unusable(tensor):
            raise TrainingError(f"{file}: {name} {why}; use an earlier checkpoint")
        return tensor


def weight_files(path: Path) -> list[Path]:
    """The files of a checkpoint's complete weights: its own, and its base's. Raises TrainingError where one is gone."""
    base = Base.named_by(read_state(path))
    return [path / WEIGHTS, *([base.find(path)] if base else [])]


@contextmanager
def open_weights(path: Path) -> Iterator[StoredWeights]:
    """Open the complete weights of a checkpoint. Raises TrainingError where a file is damaged or gone; InputError where
    one cannot be read."""
    places: dict[str, tuple[Path, Any]] = {}
    file = path / WEIGHTS
    try:
        with ExitStack() as held:
            for file in weight_files(path):
                opened = held.enter_context(open_tensors(file))
                # What was trained goes before what a base holds of it.
                places = dict.fromkeys(list(opened.keys()), (file, opened)) | places
            file = path / WEIGHTS
            yield StoredWeights(places)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file} cannot be read ({error}): the checkpoint is damaged, use another") from error


def load_weights(model: nn.Module, path: Path, part: PartTaken | None = None, values: LateValues | None = None) -> None:
    """Load a checkpoint's weights strictly into a model that is not partitioned.

    Parameters on the meta device are only compared, or with `values` read when they are asked for. `part` leaves
    something out on both sides; the rest must be complete.
    Raises TrainingError where a file is damaged or holds values that are not finite, or where names or shapes differ
    (a checkpoint of another model size); InputError where it cannot be read.
    """
    taken = part or PartTaken()
    own = {name: tensor for name, tensor in _own_once(model).items() if not name.startswith(taken.fresh)}
    if values is None and not any(tensor.is_meta for tensor in own.values()):
        values = LateValues()
    with open_weights(path) as stored:
        names = [name for name in stored.places if not name.startswith(taken.left_out)]
        shapes = {name: stored.shape(name) for name in names}
        _check_fit(path, {name: tuple(tensor.shape) for name, tensor in own.items()}, shapes)
        if values is None:
            return
        for name in names:
            values.copy(own[name], stored.tensor(name))


def _own_once(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint stores: parameters and kept buffers, tied ones by their first name only."""
    kept = model.state_dict(keep_vars=True)
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied -= {name for name, _ in model.named_parameters()}
    return {name: tensor for name, tensor in kept.items() if name not in tied}


def _check_fit(path: Path, own: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]) -> None:
    file, config = path / WEIGHTS, path / CONFIG
    differing = sorted(name for name in own.keys() & stored.keys() if own[name] != stored[name])
    if differing:
        name = differing[0]
        raise TrainingError(
            f"{file} is of another model size: {len(differing)} shapes differ, first {name}: stored "
            f"{list(stored[name])}, the config makes {list(own[name])}; take the model of {config}"
        )
    missing, extra = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if missing or extra:
        raise TrainingError(
            f"{file} is of another model: {len(missing)} parameters are missing (first {missing[:1]}), {len(extra)} "
            f"are unknown (first {extra[:1]}); take the model of {config}"
        )
