"""Plain torch on one process, to compare ZeRO with: float32, the complete model, the same step."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from glus.common.errors import TrainingError
from glus.model.released.late_values import LateValues
from glus.model.released.safe_pickle import holds_code, refused_code
from glus.training.contrast import ContrastiveLoss
from glus.training.distributed import Rank
from glus.training.engines.accumulate import Accumulated, accumulate
from glus.training.optim import parameter_groups
from glus.training.run_config import EngineConfig, OptimizerConfig

_STATE = "optimizer.pt"


class PlainEngine:
    """The same as `Engine` without DeepSpeed (engine.stage: plain). Raises TrainingError for several ranks or bf16."""

    #: Micro-batches whose graphs may be kept at once.
    most_together = 2**16

    def __init__(
        self,
        model: nn.Module,
        config: EngineConfig,
        optimizer: OptimizerConfig,
        accumulation: int,
        rank: Rank,
        values: LateValues | None = None,
    ):
        if rank.ranks > 1 or config.precision != "fp32":
            raise TrainingError(
                f"engine.stage=plain is one process in fp32, here {rank.ranks} ranks in {config.precision}: "
                "choose a stage from 0 to 3, or ranks=1 engine.precision=fp32"
            )
        if values:
            values.fill_model(model)
        self.rank, self.module = rank, model.to(rank.device).train()
        self.last = Accumulated()
        self._accumulation, self._clip = accumulation, optimizer.clip
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, optimizer),
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        )

    @staticmethod
    @contextlib.contextmanager
    def joined(rank: Rank) -> Iterator[None]:
        """There are no other ranks."""
        yield

    def step(
        self, batches: Iterator[Any], learning_rate: float, contrast: ContrastiveLoss | None = None, number: int = 0
    ) -> dict[str, float]:
        """As `Engine.step`."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._optimizer.zero_grad(set_to_none=True)
        self.last = accumulate(
            batches, self._accumulation, self.module, self._backward, self.rank.device, contrast, number
        )
        norm = nn.utils.clip_grad_norm_(self._trained, self._clip if self._clip > 0 else float("inf"))
        self._optimizer.step()
        return self.last.over_ranks(self.rank) | {"gradient_norm": float(norm)}

    def _backward(self, loss: Tensor) -> None:
        (loss / self._accumulation).backward()

    def barrier(self) -> None:
        """There are no other ranks."""

    def gather(self, without: Collection[str] = ()) -> dict[str, Tensor]:
        """Copy all parameters and kept buffers to the CPU, but parameters named in `without`."""
        kept = self.module.state_dict()
        names = {name for name, _ in self.module.named_parameters()} | {name for name, _ in self.module.named_buffers()}
        names -= set(without)
        return {name: tensor.detach().cpu().clone() for name, tensor in kept.items() if name in names}

    def save(self, folder: Path) -> None:
        """Write the optimiser's state into `folder`. Raises TrainingError on a full disk."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self._optimizer.state_dict(), folder / _STATE)
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"the optimiser's state cannot be written below {folder}: free some room") from error

    def load(self, folder: Path, ranks: int) -> None:
        """Read back what `save` wrote on one rank. Raises TrainingError where it is damaged or gone."""
        try:
            state = torch.load(folder / _STATE, map_location=self.rank.device, weights_only=True)
            self._optimizer.load_state_dict(state)
        except (OSError, RuntimeError, ValueError, LookupError, EOFError, UnpicklingError) as error:
            if (code := refused_code(error)) is not None:
                raise TrainingError(holds_code(folder / _STATE, code)) from error
            raise TrainingError(
                f"{folder / _STATE} cannot be read ({type(error).__name__}): the checkpoint is damaged or of another "
                "engine.stage, use another"
            ) from error

    def close(self) -> None:
        """Release nothing."""
