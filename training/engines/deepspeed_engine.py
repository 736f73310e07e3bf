"""DeepSpeed ZeRO: model, gradients and optimizer distributed over ranks. The only file that imports DeepSpeed."""

import atexit
import contextlib
import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from glus.common.errors import TrainingError, first_line
from glus.common.imports import quick_imports
from glus.common.out_of_memory import out_of_memory
from glus.model.released.late_values import LateValues
from glus.model.released.safe_pickle import holds_code, only_data, refused_code
from glus.training.contrast import ContrastiveLoss
from glus.training.distributed import Rank, join_ranks, lost_ranks
from glus.training.engines.accumulate import Accumulated, accumulate
from glus.training.engines.float32_sums import Float32Sums
from glus.training.engines.scatter import broadcast, check_same_model, scatter
from glus.training.optim import parameter_groups
from glus.training.run_config import EngineConfig, OptimizerConfig

#: DeepSpeed's name for what is saved: a folder below that of the checkpoint's engine.
_TAG = "state"


class Engine:
    """A model that trains on every rank together.

    `leaves` are classes of modules that ZeRO-3 gathers at once: parts that read parameters outside their modules'
    forward, and small modules for which one gathering is cheaper than many.
    Each parameter is scattered as the engine is made: rank 0 has it in CPU memory, or makes it by `values` when it is
    its turn. The others may have it on the meta device and get it, or with ZeRO-3 their parts of it, from rank 0.
    Raises TrainingError on all ranks where one of them built another model.
    """

    #: Micro-batches whose graphs may be kept at once.
    most_together = 1

    def __init__(
        self,
        model: nn.Module,
        config: EngineConfig,
        optimizer: OptimizerConfig,
        accumulation: int,
        rank: Rank,
        leaves: Sequence[type[nn.Module]] = (),
        values: LateValues | None = None,
    ):
        import deepspeed

        self.rank = rank
        self.last = Accumulated()
        self._accumulation = accumulation
        settings = _settings(config, optimizer, accumulation, rank)
        check_same_model(model, rank)
        if config.stage == 3 and leaves:
            deepspeed.utils.set_z3_leaf_modules(model, list(leaves))
        kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
        scatter(model, rank, kind, _partition(settings, kind) if config.stage == 3 else broadcast, values)
        own_sums = accumulation > 1 and config.precision == "bf16" and config.stage in (0, 1)
        self._sums = Float32Sums(model, accumulation) if own_sums else None
        adam = torch.optim.AdamW(
            parameter_groups(model, optimizer),
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=adam,
            config=settings,
            dist_init_required=False,
        )

    @staticmethod
    @contextlib.contextmanager
    def joined(rank: Rank) -> Iterator[None]:
        """Join the process group: every rank enters it before its engine is made.

        The ranks stay together until the process ends: DeepSpeed keeps its groups and cannot make them again.
        """
        with quick_imports():
            import deepspeed

        if rank.device.type == "cpu":
            # DeepSpeed would look for compilers, and then compile for a minute what only its inference uses.
            deepspeed.ops.__compatible_ops__ = {}
        leave = torch.distributed.destroy_process_group
        # A rank that is alone has no launcher that sets these, which DeepSpeed asks for.
        names = {"RANK": rank.rank, "LOCAL_RANK": rank.local, "WORLD_SIZE": rank.ranks}
        missing = {name: str(value) for name, value in names.items() if name not in os.environ}
        if missing:
            missing |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        os.environ.update(missing)
        try:
            if not torch.distributed.is_initialized():
                join_ranks(rank)
                deepspeed.init_distributed(dist_backend=rank.backend, verbose=False)
                atexit.register(leave)
            yield
        except BaseException:
            # To leave NCCL's groups is to wait for the others, who wait for this rank: it just ends.
            atexit.unregister(leave)
            raise
        finally:
            for name in missing:
                del os.environ[name]

    @property
    def module(self) -> nn.Module:
        """The wrapped model."""
        module: nn.Module = self._engine.module
        return module

    def step(
        self, batches: Iterator[Any], learning_rate: float, contrast: ContrastiveLoss | None = None, number: int = 0
    ) -> dict[str, float]:
        """One optimiser step over this rank's micro-batches; mean losses over all ranks, and the gradients' L2 norm.

        `number` counts steps (for draws of `contrast`). What was read stays in `last` until the next step.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.last = accumulate(
            batches, self._accumulation, self._engine, self._backward, self.rank.device, contrast, number
        )
        losses = self.last.over_ranks(self.rank)
        # Without ZeRO, in fp32, DeepSpeed does not keep the norm.
        norm = self._engine.get_global_grad_norm()
        return losses if norm is None else losses | {"gradient_norm": float(norm)}

    def _backward(self, loss: Tensor) -> None:
        with self._sums.micro_batch() if self._sums else contextlib.nullcontext():
            self._engine.backward(loss)
        self._engine.step()

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()

    def gather(self, without: Collection[str] = ()) -> dict[str, Tensor]:
        """Complete parameters and buffers on the CPU of rank 0, but parameters named in `without`; an empty dict on the
        others. All ranks call it."""
        import deepspeed

        state: dict[str, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            if name in without:
                continue
            with deepspeed.zero.GatheredParameters(parameter, modifier_rank=None):
                if self.rank.rank == 0:
                    state[name] = parameter.detach().cpu().clone()
        if self.rank.rank == 0:
            own = {**self.module.state_dict(keep_vars=False)}
            buffers = dict(self.module.named_buffers())
            state |= {name: buffers[name].detach().cpu().clone() for name in own if name in buffers}
        return state

    def save(self, folder: Path) -> None:
        """Write optimiser and partitioned state of all ranks into `folder`, of what is trained alone.

        Raises TrainingError on a full disk.
        """
        try:
            with _quiet_stdout():
                self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False, exclude_frozen_parameters=True)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            if out_of_memory(error) or lost_ranks(error):
                raise
            raise TrainingError(
                f"the optimiser's state cannot be written below {folder} ({first_line(error)}): free some room"
            ) from error

    def load(self, folder: Path, ranks: int) -> None:
        """Read back what `save` wrote on `ranks` ranks; on another number of them by DeepSpeed's universal checkpoint.

        Frozen parameters stay as the engine was made with them: the checkpoint's weights hold them. Where the state has
        them too, as earlier versions wrote it, they are the same.
        Nothing in it is run: only tensors and DeepSpeed's own three classes of settings are taken.
        Raises TrainingError where it is damaged or gone, or where it holds code.
        """
        remedy = f"the checkpoint is damaged, name another in {folder.parents[1] / 'latest'}"
        other = ranks != self.rank.ranks and self._engine.zero_optimization()
        try:
            with only_data(_saved_classes()), _quiet_stdout():
                with self._converted(folder) if other else contextlib.nullcontext(folder) as place:
                    found, _ = self._engine.load_checkpoint(str(place), tag=_TAG, custom_load_fn=_load_trained)
        except (OSError, RuntimeError, ValueError, LookupError, AssertionError, EOFError, UnpicklingError) as error:
            if out_of_memory(error) or lost_ranks(error):
                raise
            if (code := refused_code(error)) is not None:
                raise TrainingError(holds_code(folder, code)) from error
            raise TrainingError(f"{folder} cannot be read ({first_line(error)}): {remedy}") from error
        if found is None:
            raise TrainingError(f"{folder} holds no state of the optimiser: {remedy}")

    @contextlib.contextmanager
    def _converted(self, folder: Path) -> Iterator[Path]:
        """A folder with the same state for any number of ranks, as long as it is entered. All ranks enter it."""
        from deepspeed.checkpoint import ds_to_universal

        place = folder.parents[1] / ".universal"
        if self.rank.rank == 0:
            shutil.rmtree(place, ignore_errors=True)
            paths = {"input_folder": str(folder / _TAG), "output_folder": str(place / _TAG)}
            workers = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
            with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
                ds_to_universal.main(Namespace(**paths, **workers, strict=True, inject_missing_state=True))
        self.barrier()
        factors = [group["factor"] for group in self._optimizer.param_groups]
        self._engine._config.load_universal_checkpoint = True
        try:
            yield place
        finally:
            self._engine._config.load_universal_checkpoint = False
        # DeepSpeed gives all groups the settings of the first, and all states one tensor that counts the steps.
        for group, factor in zip(self._optimizer.param_groups, factors, strict=True):
            group["factor"] = factor
        for state in self._optimizer.optimizer.state.values():
            state["step"] = torch.as_tensor(state["step"]).clone()
        self.barrier()
        if self.rank.rank == 0:
            shutil.rmtree(place)

    def close(self) -> None:
        """Release the model: remove all hooks on it."""
        from deepspeed.utils import groups

        if self._sums:
            self._sums.close()
        self._engine.destroy()
        # DeepSpeed keeps hpZ's group and would give it to the next engine, or refuse to make another.
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None


def _load_trained(src: Mapping[str, Tensor], dst: nn.Module) -> None:
    """Load a state without frozen parameters into a module, else strictly. Raises RuntimeError for other names."""
    missing, unknown = dst.load_state_dict(src, strict=False)
    frozen = {name for name, each in dst.named_parameters(remove_duplicate=False) if not each.requires_grad}
    missing = [name for name in missing if name not in frozen]
    if missing or unknown:
        raise RuntimeError(
            f"it holds another model: {len(missing)} parameters are missing (first {missing[:1]}), {len(unknown)} are "
            f"unknown (first {unknown[:1]})"
        )


def _saved_classes() -> list[type]:
    """Classes that DeepSpeed pickles, next to tensors, strings and numbers: enumerations and records of settings."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def _partition(settings: dict[str, Any], dtype: torch.dtype) -> Callable[[nn.Parameter], None]:
    """Return the function for `scatter` that makes ZeRO-3's partitions of a parameter, from rank 0."""
    import deepspeed

    converted: list[Any] = []

    def take(parameter: nn.Parameter) -> None:
        if converted:
            converted[0].convert_to_zero_parameters(param_list=[parameter])
        else:
            deepspeed.zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=settings, dtype=dtype)
            converted.append(parameter)

    return take


def _settings(config: EngineConfig, optimizer: OptimizerConfig, accumulation: int, rank: Rank) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": config.micro_batch_size * accumulation * rank.ranks,
        "gradient_clipping": optimizer.clip,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.precision == "bf16"},
        **({"data_types": {"grad_accum_dtype": "fp32"}} if accumulation > 1 and config.stage in (2, 3) else {}),
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if config.stage:
        offload = {"offload_optimizer": {"device": "cpu"}} if config.offload != "none" else {}
        if config.offload == "all" and config.stage == 3:
            offload |= {"offload_param": {"device": "cpu"}}
        # torch's AdamW works on offloaded state too; DeepSpeed's own would be compiled first.
        settings["zero_force_ds_cpu_optimizer"] = False
        settings["zero_optimization"] = offload | {
            "stage": config.stage,
            "stage3_param_persistence_threshold": config.keep_whole_below,
            "zero_hpz_partition_size": config.hpz_partition_size,
            "stage3_gather_16bit_weights_on_model_save": False,
            "overlap_comm": rank.device.type == "cuda",
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
        }
    return settings


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Hide what DeepSpeed prints when it saves."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
