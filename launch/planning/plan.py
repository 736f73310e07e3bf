"""`glus plan CONFIG --nodes N --gpus-per-node G`: what a run would take, and which settings would take less.

`--trace` runs a micro-batch on a pretended GPU instead (plan_trace.py). Each function's docstring has its formula, and
docs/reproduce.md explains them. The model is built without weights.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from glus.common.errors import LaunchError
from glus.common.terminal import cell
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.launch.config.configuration import load_config
from glus.launch.planning.plan_advice import Estimate, advice
from glus.launch.planning.plan_trace import print_trace
from glus.model.model_config import Method
from glus.training.build import build_to_count
from glus.training.engines.choose import LEAVES, accumulation_for, check_shares
from glus.training.metrics.cost import Load, StepCost, step_cost
from glus.training.metrics.prompt_tokens import READINGS, Shown
from glus.training.run_config import RunConfig
from glus.training.trace.gpus import gpu_named
from glus.training.trace.traced import Sizes as TraceSizes

GIB, TERA = 2**30, 10**12
#: Elements of DeepSpeed's buckets for reducing gradients (training/engines/deepspeed_engine.py), and for fetching
#: ahead (its default).
REDUCE_BUCKET, FETCH_AHEAD = 50_000_000, 50_000_000

#: method -> tokens of its released tokenizer, and the id of [SEG].
_RELEASED_VOCABULARY: dict[Method, tuple[int, int]] = {
    "glus": (32_003, 32_000),
    "videolisa": (32_012, 32_011),
    "selector": (32_003, 32_000),
    "pretraining": (32_003, 32_000),
}


@dataclass(frozen=True)
class PlanConfig:
    """Which run, on how many machines, and what is assumed of data and machines."""

    config: Path
    """Config file of `glus train`."""
    nodes: int = 1
    """Machines."""
    gpus_per_node: int = 8
    """GPUs of each."""
    changes: tuple[str, ...] = ()
    """Overrides of that config, as key=value."""
    prompt_tokens: int = 0
    """Tokens of a prompt, frames included; 0 takes those of the frames and 150 of text (VideoLISA: 60, selector: 200).
    """
    height: int = 720
    """Rows of a frame (masks are compared at their own size)."""
    width: int = 1280
    """Columns of a frame."""
    trace: bool = False
    """Run one micro-batch and a short video on a pretended GPU, on the CPU and without weights: peak memory, FLOP,
    kernels and roofline by part, host syncs. Exit code 2 where something in it would fail or wait on a GPU.
    """
    gpu: str = "NVIDIA H100 80GB HBM3"
    """GPU whose data sheet is taken, by the name that torch gives it."""
    peak_tflops: float = 0.0
    """Dense bf16 FLOP a second of one GPU, in 10^12; 0: that of `gpu`."""
    efficiency: float = 0.35
    """The part of it that is reached: an assumption until it is measured (benchmarks/training_step.py)."""
    node_gigabytes: float = 450.0
    """Bytes a second between GPUs of a machine, in 10^9 (NVLink 4, one way)."""
    wire_gigabytes: float = 50.0
    """Bytes a second and GPU between machines, in 10^9 (400 Gbit/s each)."""

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus_per_node", "height", "width"):
            if getattr(self, name) < 1:
                raise LaunchError(f"{name}={getattr(self, name)}: it must be at least 1")
        for name in ("efficiency", "node_gigabytes", "wire_gigabytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise LaunchError(f"{name}={getattr(self, name)}: it must be a number above 0")
        if not 0 <= self.peak_tflops < math.inf:
            raise LaunchError(f"peak_tflops={self.peak_tflops}: it must be a number from 0 up")


@dataclass(frozen=True)
class Sizes:
    """Elements of a model's parameters: each one's, those of trained ones, and those of the largest gathered module."""

    every: tuple[int, ...]
    trained: tuple[int, ...]
    largest_leaf: int

    @classmethod
    def of(cls, model: nn.Module) -> "Sizes":
        """Of a model with its trainable parameters set."""
        leaves = [each for each in model.modules() if isinstance(each, LEAVES)]
        inside = {id(part) for leaf in leaves for part in leaf.modules()}
        alone = [sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules() if id(m) not in inside]
        return cls(
            tuple(each.numel() for each in model.parameters()),
            tuple(each.numel() for each in model.parameters() if each.requires_grad),
            max(alone + [sum(each.numel() for each in leaf.parameters()) for leaf in leaves]),
        )


def held_bytes(config: RunConfig, sizes: Sizes, ranks: int) -> dict[str, int]:
    """Bytes that a rank holds between steps.

    With b bytes a number (2 in bf16, 4 in fp32), N elements of all parameters, T of trained ones, R ranks; each
    parameter is padded to a multiple of R:

    parameters  b N / R, and b times the parameters of at most `keep_whole_below` elements   (stages below 3: b N)
                with hpZ over H ranks b N / H more
    gradients   b T / R                                                                      (stages below 2: b T)
                where several micro-batches are summed, in float32: 4 T / R (stages below 2 in bf16: another 4 T)
    optimizer   12 T / R: a copy in float32, and Adam's two moments             (stage 0: 12 T in bf16, 8 T in fp32)
    """
    engine, width = config.engine, 2 if config.engine.precision == "bf16" else 4
    stage = 0 if engine.stage == "plain" else engine.stage

    def part(elements: tuple[int, ...]) -> int:
        return sum(math.ceil(each / ranks) for each in elements)

    unpartitioned = sum(each for each in sizes.every if each <= engine.keep_whole_below)
    master = 12 if stage or width == 2 else 8
    trained, several = sum(sizes.trained), accumulation_for(config, ranks) > 1
    # Of stages below 2 the sums are held next to the gradients (training/engines/float32_sums.py).
    gradients = (4 if several else width) * part(sizes.trained) if stage >= 2 else width * trained
    if several and stage < 2 and width == 2:
        gradients += 4 * trained
    partitioned = part(sizes.every) + unpartitioned
    if engine.hpz_partition_size > 1:
        partitioned += sum(math.ceil(each / engine.hpz_partition_size) for each in sizes.every)
    return {
        "parameters": width * (partitioned if stage == 3 else sum(sizes.every)),
        "gradients": gradients,
        "optimizer": master * (part(sizes.trained) if stage >= 1 else trained),
    }


def passing_bytes(config: RunConfig, sizes: Sizes, cost: StepCost, load: Load) -> dict[str, int]:
    """Bytes that a rank holds for a while within a step.

    activations   what the parts of a micro-batch keep for the backward pass (training/metrics/cost.py). Recomputed,
                  Llama keeps the input of each layer, and all of one layer at a time
    buffers       the largest module that ZeRO-3 gathers, what it fetches ahead, and the bucket of gradients
    """
    width = 2 if config.engine.precision == "bf16" else 4
    saved = cost.saved_bytes(load)
    if config.engine.gradient_checkpointing:
        language = config.model.language
        inputs = load.tokens * language.hidden_size * width * language.layers
        saved["Llama"] = inputs + saved["Llama"] // language.layers
    gathered = sizes.largest_leaf + min(FETCH_AHEAD, sum(sizes.every)) if config.engine.stage == 3 else 0
    bucket = REDUCE_BUCKET if config.engine.stage in (1, 2, 3) else 0
    return {"activations": sum(saved.values()), "buffers": width * (gathered + bucket)}


def wire_bytes(config: RunConfig, sizes: Sizes, ranks: int, accumulation: int) -> int:
    """Bytes that a rank receives from all others in a step, with f = (R - 1) / R and A micro-batches.

    ZeRO-3: A (2 b N + b T) f: all parameters for the forward and once more for the backward pass, and gradients of each
    micro-batch; with hpZ (b N + A b T) f. ZeRO-2: (A + 1) b T f: gradients of each, and parameters after the step.
    Stages 0 and 1: 2 b T f.
    """
    width, rest = 2 if config.engine.precision == "bf16" else 4, (ranks - 1) / ranks
    gathered = sum(each for each in sizes.every if each > config.engine.keep_whole_below)
    trained = sum(sizes.trained)
    if config.engine.stage == 3:
        times = 1 if config.engine.hpz_partition_size > 1 else 2 * accumulation
        return int(width * (times * gathered + accumulation * trained) * rest)
    return int((accumulation + 1 if config.engine.stage == 2 else 2) * width * trained * rest)


def group_bytes(config: RunConfig, sizes: Sizes, accumulation: int) -> int:
    """Bytes that a rank receives in a step from the H ranks of its hpZ group: (2 A - 1) b N (H - 1) / H."""
    width, size = 2 if config.engine.precision == "bf16" else 4, config.engine.hpz_partition_size
    gathered = sum(each for each in sizes.every if each > config.engine.keep_whole_below)
    return int((2 * accumulation - 1) * width * gathered * (size - 1) / size)


def load_of(config: RunConfig, plan: PlanConfig, videos: int) -> Load:
    """What `videos` videos hold: every slot with all its expressions, every prompt as long as assumed."""
    sampling, reading = config.sampling, READINGS[config.model.method]
    expressions = videos * sampling.expressions
    shown = Shown(sampling.context_frames, sampling.query_frames)
    text = reading.text
    if plan.prompt_tokens:
        alone = reading.images(shown) * reading.image_tokens(config.model, shown)
        text = plan.prompt_tokens - alone
        if text < 0:
            raise LaunchError(f"prompt_tokens={plan.prompt_tokens}: the frames alone are {alone}")
    tokens = reading.tokens(config.model, shown, videos, expressions, text)
    frames, pixels = reading.frames(shown), plan.height * plan.width
    return Load(videos, frames, sampling.query_frames, expressions, tokens, pixels)


@dataclass(frozen=True)
class Machines:
    """What a plan assumes of them; memory: bytes of a GPU; reached: its FLOP a second.

    bandwidth, inside: bytes a second between all ranks, and between those of a machine.
    """

    ranks: int
    memory: int
    reached: float
    bandwidth: float
    inside: float

    @classmethod
    def of(cls, asked: PlanConfig) -> "Machines":
        """Raises TrainingError for an unknown GPU."""
        gpu = gpu_named(asked.gpu)
        peak = asked.peak_tflops * TERA or gpu.peak[torch.bfloat16]
        gigabytes = asked.wire_gigabytes if asked.nodes > 1 else asked.node_gigabytes
        ranks, inside = asked.nodes * asked.gpus_per_node, asked.node_gigabytes * 1e9
        return cls(ranks, gpu.memory, peak * asked.efficiency, gigabytes * 1e9, inside)


def flop_of_step(config: RunConfig, asked: PlanConfig, cost: StepCost) -> tuple[float, float]:
    """FLOP of the model in a step, and those that are computed again."""
    step = load_of(config, asked, config.global_batch_size)
    again = cost.recomputed_flop(step) if config.engine.gradient_checkpointing else 0.0
    return cost.model_flop(step), again


def memory_of(config: RunConfig, asked: PlanConfig, sizes: Sizes, cost: StepCost, ranks: int) -> dict[str, int]:
    """Bytes of a GPU, by what they are for."""
    micro = load_of(config, asked, config.engine.micro_batch_size)
    return held_bytes(config, sizes, ranks) | passing_bytes(config, sizes, cost, micro)


def estimated(config: RunConfig, asked: PlanConfig, sizes: Sizes, cost: StepCost, machines: Machines) -> Estimate:
    """Memory and seconds of a step. Raises TrainingError where the global batch does not divide."""
    ranks = machines.ranks
    accumulation = accumulation_for(config, ranks)
    wire, group = wire_bytes(config, sizes, ranks, accumulation), group_bytes(config, sizes, accumulation)
    computing = sum(flop_of_step(config, asked, cost)) / (ranks * machines.reached)
    memory = sum(memory_of(config, asked, sizes, cost, ranks).values())
    return Estimate(memory, computing, wire / machines.bandwidth + group / machines.inside, wire + group)


def plan(asked: PlanConfig) -> int:
    """Print what the run would take, or with `trace` what one micro-batch does; returns 2 where a trace is refused.

    Raises LaunchError or TrainingError where it could not run so.
    """
    config = load_config(RunConfig, asked.config, asked.changes)
    machines = Machines.of(asked)
    ranks = machines.ranks
    if asked.trace:
        return print_trace(config, asked.gpu, TraceSizes(*_vocabulary(config), asked.height, asked.width))
    check_shares(config, ranks, asked.gpus_per_node)
    model = build_to_count(config, *_vocabulary(config))
    sizes = Sizes.of(model)
    cost = step_cost(model, torch.bfloat16 if config.engine.precision == "bf16" else torch.float32)
    accumulation = accumulation_for(config, ranks)
    held = memory_of(config, asked, sizes, cost, ranks)
    flop, again = flop_of_step(config, asked, cost)
    found = estimated(config, asked, sizes, cost, machines)
    computing, sending, seconds = found.computing, found.sending, found.seconds
    rows = [(f"memory of a GPU: {name}", f"{size / GIB:.2f} GiB") for name, size in held.items()]
    rows += [
        ("memory of a GPU in all", f"{found.memory / GIB:.2f} GiB"),
        ("parameters, of these trained", f"{sum(sizes.every):,}, {sum(sizes.trained):,}"),
        ("micro-batches of a rank in a step", f"{accumulation} of {config.engine.micro_batch_size} videos"),
        ("FLOP of a step", f"{flop / TERA:,.0f} x 10^12, and {again / TERA:,.0f} recomputed"),
        ("received by a GPU in a step", f"{found.received / 1e9:,.1f} GB"),
        ("seconds of a step", f"{seconds:.2f} (computing {computing:.2f}, sending {sending:.2f}, the longer counts)"),
        ("the complete run", f"{config.steps:,} steps, {seconds * config.steps / 3600:,.1f} hours"),
        ("GPU-hours", f"{seconds * config.steps / 3600 * ranks:,.0f}"),
    ]
    table = Table(box=box.SIMPLE_HEAD, title=cell(f"{config.name} on {asked.nodes} x {asked.gpus_per_node} GPUs"))
    table.add_column("")
    table.add_column("", justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print("advice, by the formulas above (docs/reproduce.md):")
    estimate = partial(estimated, asked=asked, sizes=sizes, cost=cost, machines=machines)
    for line in advice(config, ranks, asked.nodes, machines.memory, estimate):
        print(f"  {line}")
    return 0


def _vocabulary(config: RunConfig) -> tuple[int, int]:
    """Tokens and the id of [SEG]; without a tokenizer at hand those of the released one."""
    place = config.model.tokenizer or config.weights.tokenizer
    if place and Path(place).exists():
        tokenizer = Tokenizer(Path(place))
        return tokenizer.vocab_size, tokenizer.seg_id
    return _RELEASED_VOCABULARY[config.model.method]
