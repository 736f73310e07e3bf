"""Trained parameters that no loss reaches: named once, after the first step of a run.

Hooks of autograd find them: under ZeRO-3 a missing gradient is filled with zeros, and a parameter holds none. Inside
what torch.compile takes every parameter gets a gradient, 0 where no loss reaches it: those are not found.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase

from torch import Tensor, nn

from glus.common.terminal import one_line
from glus.model.trainable import WITH_IMAGE_ENCODER
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig

#: Names that are printed; the others are counted.
_SHOWN = 6


class Reached:
    """Watches which trained parameters of a model get a gradient, until `unreached` is asked.

    Made after the engine, which replaces parameters that it was given.
    """

    def __init__(self, model: nn.Module) -> None:
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._trained = list(trained)
        self._reached: set[str] = set()
        self._hooks = [parameter.register_hook(self._noting(name)) for name, parameter in trained.items()]

    def _noting(self, name: str) -> Callable[[Tensor], None]:
        def note(gradient: Tensor) -> None:
            self._reached.add(name)

        return note

    def unreached(self, rank: Rank) -> list[str]:
        """Names of trained parameters that got no gradient on any rank. All ranks call it, once."""
        for hook in self._hooks:
            hook.remove()
        found = rank.all_reduce_max([int(name in self._reached) for name in self._trained])
        return [name for name, reached in zip(self._trained, found, strict=True) if not reached]


def warning_of(unreached: list[str], config: RunConfig) -> str:
    """The line that names parameters of `Reached.unreached`, "" where there is nothing to say.

    conv_s0 and conv_s1 of SAM 2's mask decoder are in the reference's table, and get no gradient there either: they are
    named only where weight decay would shrink them.
    """
    decay = config.optimizer.weight_decay
    known = () if decay else WITH_IMAGE_ENCODER
    names = [name for name in unreached if not any(fnmatchcase(name, pattern) for pattern in known)]
    if not names:
        return ""
    others = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    shrunk = f", and optimizer.weight_decay={decay} shrinks them" if decay else ""
    return one_line(
        f"WARNING: no loss reaches {len(names)} of the trained parameters: {', '.join(names[:_SHOWN])}{others}. The "
        f"optimizer holds their state for nothing{shrunk}: leave them out of `trainable`"
    )
