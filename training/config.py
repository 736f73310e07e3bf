"""What a training run is: model, data, optimiser, engine, tracking. One typed tree, saved with every run."""

from dataclasses import dataclass, field
from typing import Literal

from glus.data_pipeline.sampling import SamplingConfig
from glus.model.config import ModelConfig
from glus.training.errors import TrainingError
from glus.training.tracking import TrackingConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and linear decay (the reference's train_ds.py)."""

    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    #: Factors on the learning rate by pattern (fnmatch) of parameter names: the first that matches, else 1.
    factors: dict[str, float] = field(default_factory=dict)
    #: Steps of linear warm-up.
    warmup_steps: int = 100
    #: Gradients are scaled down to this L2 norm.
    clip: float = 1.0


@dataclass(frozen=True)
class EngineConfig:
    """How the model is spread over ranks."""

    #: DeepSpeed ZeRO stage: 3 partitions parameters, gradients and optimiser state; 2 not the parameters; 1 the
    #: optimiser state alone; 0 nothing.
    stage: Literal[0, 1, 2, 3] = 3
    precision: Literal["bf16", "fp32"] = "bf16"
    #: Parameters with fewer elements than this stay whole on every rank (ZeRO-3).
    keep_whole_below: int = 100_000
    #: Videos of one forward pass on one rank; accumulation follows from global_batch_size and the number of ranks.
    micro_batch_size: int = 2


@dataclass(frozen=True)
class RunConfig:
    """A training run: `glus train CONFIG.yaml [key=value ...]`."""

    #: Name of the run in MLflow.
    name: str = "glus"
    #: Folder for checkpoints and the resolved config.
    out: str = "build/run"
    #: Folder with the shards of `glus prepare`.
    shards: str = "build/shards"
    #: Checkpoint folder to start from (weights only); empty starts from freshly drawn weights.
    init_from: str = ""
    seed: int = 0
    #: Optimiser steps; 0 writes the checkpoint of the model as it begins.
    steps: int = 3000
    #: Videos of one optimiser step over all ranks: a run means the same on 4 or 64 ranks.
    global_batch_size: int = 80
    #: Ranks on this machine; 0 takes one for each GPU (one without GPU).
    ranks: int = 0
    #: Processes that read ahead for each rank.
    workers: int = 2
    log_every: int = 10
    #: Steps between checkpoints; 0 writes one at the end only.
    checkpoint_every: int = 500
    #: Patterns (fnmatch) of parameter names that are trained; the others are frozen.
    trainable: tuple[str, ...] = (
        "*lora_*",
        "language.llama.model.embed_tokens.*",
        "language.llama.lm_head.*",
        "language.mm_projector.*",
        "language.text_hidden_fcs.*",
        "segmenter.sam2.sam_mask_decoder.*",
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        least = {"steps": 0, "global_batch_size": 1, "log_every": 1, "ranks": 0, "workers": 0, "checkpoint_every": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise TrainingError(f"{name}={getattr(self, name)}: it must be at least {value}")
        if self.engine.micro_batch_size < 1:
            raise TrainingError(f"engine.micro_batch_size={self.engine.micro_batch_size}: it must be at least 1")
