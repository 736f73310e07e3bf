"""DeepSpeed: the only file that imports it. Spreads model, gradients and optimiser over ranks (ZeRO)."""

import atexit
import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from glus.training.config import EngineConfig, OptimizerConfig
from glus.training.distributed import Rank
from glus.training.errors import TrainingError

#: DeepSpeed's name for what is saved: a folder below that of the checkpoint's engine.
_TAG = "state"


class Engine:
    """A model that trains on every rank together.

    `leaves` are classes of modules that ZeRO-3 gathers whole: parts that read parameters outside their modules'
    forward, and small modules for which one gathering is cheaper than many.
    """

    def __init__(
        self,
        model: nn.Module,
        config: EngineConfig,
        optimizer: OptimizerConfig,
        accumulation: int,
        rank: Rank,
        leaves: Sequence[type[nn.Module]] = (),
    ):
        import deepspeed

        self.rank = rank
        self._accumulation = accumulation
        if config.stage == 3 and leaves:
            deepspeed.utils.set_z3_leaf_modules(model, list(leaves))
        adam = torch.optim.AdamW(
            parameter_groups(model, optimizer),
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=adam,
            config=_settings(config, optimizer, accumulation, rank),
            dist_init_required=False,
        )

    @staticmethod
    @contextlib.contextmanager
    def joined(rank: Rank) -> Iterator[None]:
        """Among the other ranks: every rank enters it before its engine is made.

        The ranks stay together until the process ends: DeepSpeed keeps its groups and cannot make them anew.
        """
        import deepspeed

        if rank.device.type == "cpu":
            # DeepSpeed would look for compilers, and then compile for a minute what only its inference uses.
            deepspeed.ops.__compatible_ops__ = {}
        # A rank that is alone has no launcher that sets these; port 0 is a free one.
        names = {"RANK": rank.rank, "LOCAL_RANK": rank.local, "WORLD_SIZE": rank.ranks}
        lacking = {name: str(value) for name, value in names.items() if name not in os.environ}
        if lacking:
            lacking |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        os.environ.update(lacking)
        try:
            if not torch.distributed.is_initialized():
                deepspeed.init_distributed(dist_backend=rank.backend, verbose=False)
                atexit.register(torch.distributed.destroy_process_group)
            yield
        finally:
            for name in lacking:
                del os.environ[name]

    @property
    def module(self) -> nn.Module:
        """The wrapped model."""
        module: nn.Module = self._engine.module
        return module

    def step(self, batches: Iterator[Any], learning_rate: float) -> dict[str, float]:
        """One optimiser step over this rank's micro-batches; mean losses over all ranks, and the gradients' L2 norm."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        sums: dict[str, Tensor] = {}
        for _ in range(self._accumulation):
            output = self._engine(next(batches).to(self.rank.device))
            self._engine.backward(output.loss)
            self._engine.step()
            for name, value in {**output.losses, "total": output.loss}.items():
                sums[name] = sums.get(name, 0) + value.detach().float() / self._accumulation
        stacked = torch.stack(list(sums.values()))
        if self.rank.ranks > 1:
            torch.distributed.all_reduce(stacked, op=torch.distributed.ReduceOp.SUM)
            stacked /= self.rank.ranks
        figures = dict(zip(sums, stacked.tolist(), strict=True))
        # Without ZeRO, in fp32, DeepSpeed does not keep the norm.
        norm = self._engine.get_global_grad_norm()
        return figures if norm is None else figures | {"gradient_norm": float(norm)}

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()

    def gather(self) -> dict[str, Tensor]:
        """All parameters and buffers, whole, on the CPU of rank 0; an empty dict on the others. All ranks call it."""
        import deepspeed

        state: dict[str, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            with deepspeed.zero.GatheredParameters(parameter, modifier_rank=None):
                if self.rank.rank == 0:
                    state[name] = parameter.detach().cpu().clone()
        if self.rank.rank == 0:
            own = {**self.module.state_dict(keep_vars=False)}
            buffers = dict(self.module.named_buffers())
            state |= {name: buffers[name].detach().cpu().clone() for name in own if name in buffers}
        return state

    def partitioned(self) -> tuple[int, int]:
        """Elements of partitioned parameters: (held by this rank, in all). Parameters kept whole are not counted."""
        held = whole = 0
        parameters: Iterable[Any] = self.module.parameters()
        for parameter in parameters:
            if hasattr(parameter, "ds_tensor") and not parameter.ds_persist:
                held += parameter.ds_tensor.numel()
                whole += parameter.ds_numel
        return held, whole

    def save(self, folder: Path) -> None:
        """Write optimiser and partitioned state of all ranks into `folder`. Raises TrainingError on a full disk."""
        try:
            with _quiet_stdout():
                self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
        except (OSError, RuntimeError) as error:  # torch tells a full disk as RuntimeError
            raise TrainingError(
                f"the optimiser's state cannot be written below {folder} ({_first_line(error)}): free some room"
            ) from error

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote on as many ranks. Raises TrainingError where it is damaged or gone."""
        remedy = f"the checkpoint is damaged, name another in {folder.parents[1] / 'latest'}"
        try:
            with _quiet_stdout():
                found, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        except (OSError, RuntimeError, ValueError, LookupError, AssertionError, EOFError, UnpicklingError) as error:
            raise TrainingError(f"{folder} cannot be read ({_first_line(error)}): {remedy}") from error
        if found is None:
            raise TrainingError(f"{folder} holds no state of the optimiser: {remedy}")

    def close(self) -> None:
        """Let go of the model: DeepSpeed's hooks on it are removed."""
        self._engine.destroy()


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def parameter_groups(model: nn.Module, optimizer: OptimizerConfig) -> list[dict[str, Any]]:
    """Trained parameters by their factor on the learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factors = (factor for pattern, factor in optimizer.factors.items() if fnmatchcase(name, pattern))
            groups.setdefault(next(factors, 1.0), []).append(parameter)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def _settings(config: EngineConfig, optimizer: OptimizerConfig, accumulation: int, rank: Rank) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": config.micro_batch_size * accumulation * rank.ranks,
        "gradient_clipping": optimizer.clip,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if config.stage:
        settings["zero_optimization"] = {
            "stage": config.stage,
            "stage3_param_persistence_threshold": config.keep_whole_below,
            "stage3_gather_16bit_weights_on_model_save": False,
            "overlap_comm": torch.cuda.is_available(),
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
        }
    return settings


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """DeepSpeed prints where it saves; the trainer says it better."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
