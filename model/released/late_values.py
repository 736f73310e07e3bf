"""Values of parameters that are read or drawn when they are asked for: a model starts without being held complete.

`drawing_later` builds a model whose large parameters are on the meta device. What was drawn for each is noted with the
state of torch's random numbers there, and is drawn again when it is asked for: the same bits as without it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Writes the value, or changes what was written, in place: a tensor of the parameter's shape and dtype on the CPU.
Fill = Callable[[Tensor], object]
#: Elements below which a parameter is drawn at once and held: a state of random numbers takes 5 kB.
LEAST = 2**12
#: Operations that write all of a tensor, and those of them that draw.
_DRAWS = frozenset({"normal_", "uniform_"})
_WRITES = _DRAWS | {"fill_", "zero_"}
#: Operations that read sizes alone.
_SIZES_ALONE = frozenset({"empty_like", "zeros_like", "ones_like", "full_like", "new_empty", "new_zeros", "new_ones"})


class LateValues:
    """What makes the values of a model's parameters on the meta device. Real tensors are filled at once."""

    def __init__(self) -> None:
        self._fills: dict[Tensor, list[Fill]] = {}

    def write(self, target: Tensor, fill: Fill) -> None:
        """Let `fill` write all of a parameter or buffer; what was to be written before is left out."""
        if target.is_meta:
            self._fills[target] = [fill]
        else:
            fill(target.data)

    def copy(self, target: Tensor, stored: Tensor) -> None:
        """Let a stored tensor be copied into a parameter or buffer; it stays mapped until the value is asked for."""
        self.write(target, lambda made: made.copy_(stored))

    def change(self, target: Tensor, fill: Fill) -> None:
        """Let `fill` change what is written into a parameter or buffer."""
        if target.is_meta:
            self._fills[target].append(fill)
        else:
            fill(target.data)

    def take(self, target: Tensor) -> Tensor:
        """Make the value of a parameter on the meta device, on the CPU, and forget how. Raises KeyError for others."""
        made = torch.empty(target.shape, dtype=target.dtype)
        with torch.no_grad():
            for fill in self._fills.pop(target):
                fill(made)
        return made

    def fill_model(self, model: nn.Module) -> None:
        """Replace all parameters on the meta device by complete ones, in place; tied ones stay tied."""
        made: dict[nn.Parameter, nn.Parameter] = {}
        for module in model.modules():
            for name, given in module._parameters.items():
                if given is not None and given.is_meta:
                    if given not in made:
                        made[given] = nn.Parameter(self.take(given), requires_grad=given.requires_grad)
                    module._parameters[name] = made[given]

    @contextmanager
    def drawing_later(self, least: float = LEAST) -> Iterator[Callable[[nn.Module], None]]:
        """Note what is drawn within instead of writing it; yields a function that takes the notes of a module.

        That one puts the module's noted parameters on the meta device: those that are there already, and of the others
        those of `least` elements. Torch's random numbers go on as if all had been written. A parameter that something
        within reads is written first, and held.
        """
        noting = _Noting(least)
        with noting:
            yield partial(self._take_notes, noting)

    def _take_notes(self, noting: "_Noting", model: nn.Module) -> None:
        late: dict[nn.Parameter, nn.Parameter] = {}
        for module in model.modules():
            for name, given in module._parameters.items():
                if given is None or (note := noting.notes.get(_storage(given))) is None:
                    continue
                if given not in late:
                    empty = given
                    if not given.is_meta:
                        empty = nn.Parameter(torch.empty_like(given, device="meta"), requires_grad=given.requires_grad)
                    late[given] = empty
                    self._fills[empty] = [note.write]
                module._parameters[name] = late[given]
        noting.notes.clear()


@dataclass
class _Note:
    """Operations in place that make the values of `tensor`, which keeps its storage from being used for another."""

    tensor: Tensor
    steps: list[tuple[Any, tuple[Any, ...], Mapping[str, Any], Tensor | None]] = field(default_factory=list)

    def write(self, target: Tensor) -> None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for function, others, named, state in self.steps:
                if state is not None:
                    torch.set_rng_state(state)
                function(target, *others, **named)


class _Noting(TorchDispatchMode):
    """Notes the operations that fill large tensors; any other operation on one of these gets it written first."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.notes: dict[int, _Note] = {}
        self._least = least
        # One for all draws: a new one each time would lie where the tensors that stay unwritten come to lie next.
        self._scratch = torch.empty(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        target = args[0] if args and isinstance(args[0], Tensor) else None
        if target is not None and name.endswith("_") and self._noted(func, name, target, args[1:], named):
            return target
        if not (func.is_view or name in _SIZES_ALONE):
            for each in tree_leaves((args, named)):
                note = self.notes.pop(_storage(each), None) if isinstance(each, Tensor) else None
                if note is not None:
                    note.write(note.tensor.detach())
        return func(*args, **named)

    def _noted(self, func: Any, name: str, target: Tensor, others: Any, named: Mapping[str, Any]) -> bool:
        """Note an operation in place on all of a large tensor, where its values depend on nothing else."""
        place = _storage(target)
        known = place in self.notes
        draws = torch.Tag.nondeterministic_seeded in func.tags
        if (
            not (known or name in _WRITES)
            or (draws and name not in _DRAWS)
            or any(isinstance(each, Tensor | torch.Generator) for each in tree_leaves((others, dict(named))))
            or not self._is_large_and_complete(target)
        ):
            return False
        state = None
        if draws:
            state = torch.get_rng_state()
            if self._scratch.nbytes < target.nbytes:
                self._scratch = torch.empty(target.numel(), dtype=target.dtype)
            func(self._scratch.view(target.dtype)[: target.numel()], *others, **named)
        if name in _WRITES:
            self.notes[place] = _Note(target)
        self.notes[place].steps.append((func, others, named, state))
        return True

    def _is_large_and_complete(self, tensor: Tensor) -> bool:
        known = self.notes.get(_storage(tensor))
        # A tensor of another shape on the same numbers would be drawn in another order.
        alike = known is None or known.tensor.shape == tensor.shape
        complete = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        large = tensor.is_meta or tensor.numel() >= self._least
        return alike and complete and large and tensor.is_floating_point()


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
