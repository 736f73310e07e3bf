"""Choose the engine of a run, and divide the work of a step among ranks."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from glus.common.errors import TrainingError
from glus.model.language.language_families import DECODER_LAYERS
from glus.model.released.late_values import LateValues
from glus.model.segmenter import Segmenter
from glus.model.videolisa.frame_segmenter import FRAME_SEGMENTERS
from glus.training.contrast import ContrastiveLoss, pool_shape
from glus.training.distributed import Rank
from glus.training.engines.accumulate import Accumulated
from glus.training.engines.deepspeed_engine import Engine
from glus.training.engines.plain_engine import PlainEngine
from glus.training.run_config import RunConfig

#: Modules that ZeRO-3 gathers at once: the segmenters read parameters outside forward, the others are cheaper so.
LEAVES = (Segmenter, *FRAME_SEGMENTERS.values(), CLIPEncoderLayer, *DECODER_LAYERS)


class TrainingEngine(Protocol):
    """The interface of an engine that the trainer uses."""

    rank: Rank
    last: Accumulated

    @property
    def module(self) -> nn.Module: ...
    def step(
        self, batches: Iterator[Any], learning_rate: float, contrast: ContrastiveLoss | None = None, number: int = 0
    ) -> dict[str, float]: ...
    def barrier(self) -> None: ...
    def gather(self, without: Collection[str] = ()) -> dict[str, Tensor]: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path, ranks: int) -> None: ...
    def close(self) -> None: ...


def check_shares(config: RunConfig, ranks: int, here: int = 0) -> None:
    """Raises TrainingError where ranks, micro-batches, pools of the contrastive loss and hpZ do not fit each other.

    here: ranks of each machine, 0 where that is not known.
    """
    size = config.engine.hpz_partition_size
    for number, what in ((ranks, "ranks"), (here or size, "ranks of a machine")):
        if number % size:
            raise TrainingError(
                f"engine.hpz_partition_size={size} does not divide the {number} {what}: set it to the ranks of a "
                "machine, or to 1"
            )
    accumulation, each = accumulation_for(config, ranks), pools(config, ranks)[1]
    if accumulation % each:
        raise TrainingError(
            f"engine.contrast_together={config.engine.contrast_together} takes {each} micro-batches of a rank at once, "
            f"which does not divide the {accumulation} of a step: choose another, or another global_batch_size"
        )


def accumulation_for(config: RunConfig, ranks: int) -> int:
    """Micro-batches a rank takes for an optimiser step. Raises TrainingError where the global batch does not divide."""
    together = ranks * config.engine.micro_batch_size
    if config.global_batch_size % together:
        raise TrainingError(
            f"global_batch_size {config.global_batch_size} does not divide into micro-batches of "
            f"{config.engine.micro_batch_size} on {ranks} ranks: make it a multiple of {together}"
        )
    return config.global_batch_size // together


def pools(config: RunConfig, ranks: int) -> tuple[int, int]:
    """Ranks of a pool of the contrastive loss, and micro-batches of each. Raises TrainingError."""
    loss = config.model.loss
    if loss.contrastive <= 0 or loss.contrastive_pool == "bank":
        return 1, 1
    most = PlainEngine.most_together if config.engine.stage == "plain" else Engine.most_together
    return pool_shape(config.engine.contrast_together, ranks, most)


def joined(config: RunConfig, rank: Rank) -> AbstractContextManager[None]:
    """Join the process group: every rank enters it before `make_engine`."""
    return PlainEngine.joined(rank) if config.engine.stage == "plain" else Engine.joined(rank)


def make_engine(config: RunConfig, model: nn.Module, rank: Rank, values: LateValues | None = None) -> TrainingEngine:
    """The engine that `engine.stage` names. Only rank 0 needs a model with weights, or `values` that make them."""
    accumulation = accumulation_for(config, rank.ranks)
    if config.engine.stage == "plain":
        return PlainEngine(model, config.engine, config.optimizer, accumulation, rank, values)
    return Engine(model, config.engine, config.optimizer, accumulation, rank, LEAVES, values)


def make_contrast(config: RunConfig, rank: Rank, datasets: Sequence[str]) -> ContrastiveLoss | None:
    """Return the contrastive loss, None where it has no weight. All ranks call it, inside `joined`.

    `datasets` are those of the sample plan's splits, in order.
    """
    loss = config.model.loss
    if loss.contrastive <= 0:
        return None
    named = [number for number, dataset in enumerate(datasets) if dataset in loss.contrastive_datasets]
    splits = named if loss.contrastive_datasets else None
    return ContrastiveLoss(loss, rank, config.seed, *pools(config, rank.ranks), splits)
