"""Gradients of several micro-batches summed in float32, where parameters and their gradients are in bfloat16.

bfloat16 has 8 bits: next to a sum of 1, an addend below 1/256 is lost. DeepSpeed's ZeRO 2 and 3 have float32 sums of
their own (data_types.grad_accum_dtype). Its stage 0 refuses that setting, and stage 1 with it neither sums in float32
nor divides by the number of micro-batches (0.19.8), so these two get theirs here.
"""

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn


class Float32Sums:
    """Hooks on the trained parameters of a model: `parameter.grad` holds the sum when the last micro-batch is done.

    Before that it is None. The sum is rounded to bfloat16 once. Made before the engine, whose hooks then see it.
    """

    def __init__(self, model: nn.Module, micro_batches: int) -> None:
        self._left = self._all = micro_batches
        self._sums: dict[nn.Parameter, Tensor] = {}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._hooks = [parameter.register_hook(self._adder(parameter)) for parameter in trained]
        self._hooks += [parameter.register_post_accumulate_grad_hook(self._place) for parameter in trained]

    @contextlib.contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Around the backward pass of each micro-batch."""
        self._left -= 1
        if not self._left:  # what the last micro-batch does not reach has the sum of the others
            for parameter, total in self._sums.items():
                parameter.grad = total.to(parameter.dtype)
        yield
        if not self._left:
            self._left = self._all
            self._sums.clear()

    def _adder(self, parameter: nn.Parameter) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            if parameter in self._sums:
                self._sums[parameter].add_(gradient)
            else:
                self._sums[parameter] = gradient.float()

        return add

    def _place(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter) and parameter.grad is not None
        if self._left:
            parameter.grad = None
        else:
            parameter.grad.copy_(self._sums[parameter])

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
