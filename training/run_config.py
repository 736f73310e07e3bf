"""Settings of a training run: model, data, optimizer, engine, tracking. One typed tree, saved with every run."""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from glus.common.errors import TrainingError
from glus.common.paths import PathText
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.model.model_config import Compiled, Method, ModelConfig
from glus.training.method_settings import TRAINABLE, check_attributes, check_data
from glus.training.tracking.tracking_place import TrackingConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and linear decay (the reference's train_ds.py)."""

    learning_rate: float = 3e-4
    """Highest learning rate, reached after warm-up; it then falls linearly to 0 (see decay_steps)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the means of gradients and of their squares."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    factors: dict[str, float] = field(default_factory=dict)
    """Factors on the learning rate by pattern (fnmatch) of parameter names: the first that matches, else 1."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_steps: int | None = None
    """Steps of the fall to 0 at the end, the highest rate until then; none: it falls from the end of the warm-up, as in
    the reference.
    """
    clip: float = 1.0
    """Gradients are scaled down to this L2 norm."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"optimizer.learning_rate={self.learning_rate}: it must be a number above 0")
        for name in ("weight_decay", "clip", "warmup_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"optimizer.{name}={getattr(self, name)}: it must be a number from 0 up")
        if self.decay_steps is not None and self.decay_steps < 0:
            raise TrainingError(f"optimizer.decay_steps={self.decay_steps}: it must be a number from 0 up, or none")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise TrainingError(f"optimizer.betas={list(self.betas)}: each must be from 0 to less than 1")
        for pattern, factor in self.factors.items():
            if not 0 <= factor < math.inf:
                raise TrainingError(f"optimizer.factors: {pattern}: {factor}: it must be a number from 0 up")


@dataclass(frozen=True)
class EngineConfig:
    """How the model is distributed over ranks."""

    stage: Literal["plain", 0, 1, 2, 3] = 3
    """DeepSpeed ZeRO stage: 3 partitions parameters, gradients and optimiser state; 2 not the parameters; 1 the
    optimiser state alone; 0 nothing; plain is torch without DeepSpeed, one process in fp32, to compare with.
    """
    precision: Literal["bf16", "fp32"] = "bf16"
    """What forward and backward passes compute in; the optimiser keeps fp32."""
    gradient_checkpointing: bool = False
    """Compute the activations of Llama's layers (and of SAM 2's image encoder, where it is trained) again in the
    backward pass instead of keeping them: less memory, about a third more time, the same gradients.
    """
    compile: Compiled = "none"
    """What torch.compile takes: Llama's layers, parts of the segmenter (SAM's image encoder and mask decoder among
    them), or all of these. The first step compiles for minutes and needs a C++ compiler; the losses are the same to
    rounding, dropout draws other numbers. docs/weights.md.
    """
    keep_whole_below: int = 100_000
    """Parameters with fewer elements than this are not partitioned (ZeRO-3)."""
    hpz_partition_size: int = 1
    """ZeRO-3 on several machines (hpZ of ZeRO++): so many ranks of a machine hold a second copy of the parameters among
    them and gather from it, but for the first time in a step. It takes the memory of that copy; 1: none.
    """
    offload: Literal["none", "optimizer", "all"] = "none"
    """What CPU memory holds between uses: nothing, the optimiser's state (ZeRO 1 to 3), or with ZeRO-3 the partitioned
    parameters too.
    """
    contrast_together: int = 0
    """Consecutive micro-batches whose [SEG] states the contrastive loss compares with each other; 0: one of each rank.
    Given, it is the same on any number of ranks that it divides.
    """
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What is computed on. auto: GPUs where there are any, and a refusal where SLURM gave some or some are plugged in
    and torch sees none. cpu leaves GPUs alone. The environment's GLUS_DEVICE says the same where this is auto.
    """
    deterministic: bool = False
    """Take only algorithms that give the same bits every time, which is slower on a GPU (docs/gpu.md)."""
    peak_tflops: float = 0.0
    """FLOP a second of one GPU in bf16, in 10^12, for MFU; 0: by its name (training/metrics/peaks.py)."""
    micro_batch_size: int = 2
    """Videos of one forward pass on one rank; accumulation follows from global_batch_size and the number of ranks."""


@dataclass(frozen=True)
class WeightsConfig:
    """Released weights to start from, by their place or their id on the Hugging Face hub (docs/weights.md).

    What none of them holds is freshly drawn."""

    glus: PathText = ""
    """Folder of a GLUS checkpoint: language model, projector, text_hidden_fcs and SAM 2."""
    videolisa: PathText = ""
    """Folder of a VideoLISA checkpoint: the same, with its SAM 1."""
    language: PathText = ""
    """Folder of LISA-7B-v1, of LLaVA-Phi-3-mini, or of another language model of transformers (Vicuna, TinyLlama)."""
    vision: PathText = ""
    """Folder of openai/clip-vit-large-patch14 (VideoLISA: -336); where this is empty, a complete checkpoint's own
    clip_vision_tower/ is taken.
    """
    segmenter: PathText = ""
    """File sam2_hiera_*.pt, sam2.1_hiera_*.pt or sam_vit_*.pth, or the hub id of its repository."""

    @property
    def named(self) -> dict[str, str]:
        """Those that are given, by their key."""
        return {key: place for key, place in asdict(self).items() if place}

    @property
    def complete(self) -> tuple[Method, str] | None:
        """(method, folder) of a checkpoint that holds all but the vision tower; None where none is given."""
        given: tuple[tuple[Method, str], ...] = (("glus", self.glus), ("videolisa", self.videolisa))
        return next((each for each in given if each[1]), None)

    @property
    def tokenizer(self) -> str:
        """Folder of the release that brings the tokenizer; empty where none does."""
        return self.complete[1] if self.complete else self.language

    def __post_init__(self) -> None:
        key = self.complete[0] if self.complete else ""
        for other in ("videolisa", "language", "segmenter"):
            if key and key != other and getattr(self, other):
                raise TrainingError(f"weights.{key} and weights.{other} hold the same part: give one of them")


@dataclass(frozen=True)
class KeepConfig:
    """Which checkpoints stay when a new one is complete; the newest always does."""

    last: int = 3
    """The newest ones; 0 keeps all."""
    best: int = 0
    """Those with the least mean loss since the checkpoint before."""
    every_hours: float = 0.0
    """And one every so many hours; 0 for none."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise TrainingError(f"keep.{name}={value}: it must be at least 0")


@dataclass(frozen=True)
class RunConfig:
    """A training run: `glus train CONFIG.yaml [key=value ...]`."""

    name: str = "glus"
    """Name of the run in MLflow."""
    out: PathText = "build/run"
    """Folder for checkpoints and the resolved config."""
    shards: PathText = "build/shards"
    """Folder with the shards of `glus prepare`."""
    init_from: PathText = ""
    """Checkpoint folder to start from (weights only); empty starts from freshly drawn weights."""
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    seed: int = 0
    """Decides fresh weights, the order of samples and dropout."""
    steps: int = 3000
    """Optimiser steps; 0 writes the checkpoint of the model as it begins."""
    global_batch_size: int = 80
    """Videos of one optimiser step over all ranks: a run means the same on 4 or 64 ranks."""
    ranks: int = 0
    """Ranks on this machine; 0 takes one for each GPU (one without GPU)."""
    workers: int = 2
    """Processes that read ahead for each rank."""
    log_every: int = 10
    """Steps between two records of metrics."""
    overfit: int = 0
    """Sanity check: overfit the global batches of the first so many steps; 0 trains on all."""
    profile: int = 0
    """Trace so many steps with torch's profiler into OUT/profile; 0 for none."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0 for none by steps. There is always one at the end."""
    checkpoint_minutes: float = 30.0
    """Minutes after which a checkpoint is written whatever the step; 0 for none by time."""
    keep: KeepConfig = field(default_factory=KeepConfig)
    hang_minutes: float = 20.0
    """Minutes without a step (or a checkpoint written) after which the run is taken to hang: every rank writes its
    stacks to OUT/stacks and the run ends; 0 waits for ever.
    """
    trainable: tuple[str, ...] = ()
    """Patterns (fnmatch) of parameter names that are trained; the others are frozen. Empty takes the method's own:
    LoRA, embeddings, lm_head, text_hidden_fcs and mask decoder or score_head (training/method_settings.py).
    """
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        # Filled in at once, so that records of a run say what was trained.
        object.__setattr__(self, "trainable", self.trainable or TRAINABLE[self.model.method])
        least = {"steps": 0, "global_batch_size": 1, "log_every": 1, "ranks": 0, "workers": 0, "checkpoint_every": 0}
        least |= {"overfit": 0, "profile": 0}
        least |= {"checkpoint_minutes": 0, "hang_minutes": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise TrainingError(f"{name}={getattr(self, name)}: it must be at least {value}")
        if self.engine.micro_batch_size < 1:
            raise TrainingError(f"engine.micro_batch_size={self.engine.micro_batch_size}: it must be at least 1")
        if self.engine.contrast_together < 0:
            raise TrainingError(f"engine.contrast_together={self.engine.contrast_together}: it must be at least 0")
        if self.init_from and self.weights.named:
            raise TrainingError(
                f"init_from and weights.{next(iter(self.weights.named))} both say where the weights come from: give one"
            )
        check_attributes(self.sampling, self.model.stand_ins)
        check_data(self.model.method, self.sampling, self.model.loss.contrastive)
        self._check_hpz()
        self._check_compile()
        if self.model.language.attention == "flash_attention_2" and self.engine.precision == "fp32":
            raise TrainingError(
                "model.language.attention is flash_attention_2, which computes in bf16 only: "
                "set engine.precision to bf16, or attention to sdpa"
            )

    def _check_hpz(self) -> None:
        size = self.engine.hpz_partition_size
        if size < 1:
            raise TrainingError(f"engine.hpz_partition_size={size}: it must be at least 1")
        if size > 1 and (self.engine.stage != 3 or self.engine.offload == "all"):
            raise TrainingError(
                f"engine.hpz_partition_size={size} with engine.stage={self.engine.stage} "
                f"engine.offload={self.engine.offload}: hpZ copies what ZeRO-3 partitions on GPUs; "
                "set it to 1, or take stage 3 without offload=all"
            )

    def _check_compile(self) -> None:
        compiled = self.engine.compile
        if compiled in ("segmenter", "all") and self.model.method == "selector":
            raise TrainingError(f"engine.compile={compiled}: a selector has no segmenter; set it to llama or none")
        if compiled != "none" and self.engine.deterministic:
            raise TrainingError(
                f"engine.compile={compiled} with engine.deterministic=true: compiled kernels have not been shown to "
                "give the same bits; set one of them to its default"
            )
        if compiled in ("llama", "all") and self.model.language.attention != "sdpa":
            raise TrainingError(
                f"engine.compile={compiled} with model.language.attention={self.model.language.attention}: compiled "
                "layers take torch's own attention; set it to sdpa, or engine.compile to segmenter or none"
            )
