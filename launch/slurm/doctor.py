"""`glus doctor CONFIG`: check what a training needs, before it waits in a queue and again as its job starts.

Each line is "ok" or says what to do. In a job every machine checks; all but the first print only errors.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from glus.common.cores import usable_cores
from glus.common.errors import LaunchError, UserError
from glus.common.terminal import one_line
from glus.common.urls import hide_secrets
from glus.data_pipeline.shards.reader import open_splits
from glus.data_pipeline.shards.storage import Storage
from glus.launch.config.configuration import load_config
from glus.launch.ranks.nodes import Nodes
from glus.launch.slurm.doctor_gpu import flash_attention
from glus.launch.slurm.doctor_network import Meeting, meet
from glus.training.build import build_for_training
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.base_weights import frozen_names
from glus.training.devices import choose_device, gpu_count, memory_taken
from glus.training.hub_weights import fetch_weights
from glus.training.metrics.peaks import unknown_gpu
from glus.training.run_config import RunConfig
from glus.training.tracking.code_version import code_version
from glus.training.tracking.mlflow_client import reach

UNWELL = 2
LIBRARIES = ("torch", "deepspeed", "transformers", "mlflow")
MIB, GIB = 1024**2, 1024**3


@dataclass(frozen=True)
class DoctorConfig:
    """What is checked."""

    config: Path
    """Config file of the training."""
    changes: tuple[str, ...] = ()
    """Overrides of that config, as key=value."""
    free_memory: float = 0.9
    """Share of a GPU's memory that must be free."""
    clock_skew: float = 2.0
    """Seconds that the machines' clocks may differ."""
    megabytes: int = 16
    """Size of the all-reduce that is timed between machines."""
    wait: float = 120.0
    """Seconds to wait for the other machines of the job."""


@dataclass(frozen=True)
class Finding:
    """A line: what was checked, and what was found. `remedy` is "" where all is well."""

    name: str
    found: str
    remedy: str = ""


def doctor(config: DoctorConfig) -> int:
    """Check everything and print a line each; returns 0, or 2 where something must be done first.

    Raises LaunchError where the config cannot be read.
    """
    run = load_config(RunConfig, config.config, list(config.changes))
    nodes = Nodes.from_environment()
    well = True
    for finding in findings(run, config, nodes):
        well = well and not finding.remedy
        if finding.remedy:
            print(one_line(f"!!  {nodes.host}: {finding.name}: {finding.found}: {finding.remedy}"), flush=True)
        elif nodes.number == 0:
            print(one_line(f"ok  {finding.name}: {finding.found}"), flush=True)
    return 0 if well else UNWELL


def findings(run: RunConfig, config: DoctorConfig, nodes: Nodes) -> Iterator[Finding]:
    """All findings of this machine, in order."""
    yield _versions()
    yield from _gpus(run, config.free_memory)
    looks: list[tuple[str, Callable[[], str]]] = [
        ("weights", lambda: _weights(run)),
        ("disk", lambda: _disk(run, nodes)),
        ("shards", lambda: _shards(run)),
    ]
    if nodes.number == 0:
        looks.append(("MLflow", lambda: reach(run.tracking)))
    for name, look in looks:
        yield _finding(name, look)
    if nodes.count > 1:
        yield from _network(nodes, config)


def _finding(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, look())
    except UserError as error:
        message = hide_secrets(str(error))
        found, _, remedy = message.partition(": ")
        return Finding(name, found, remedy or "see docs/cluster.md")


def _versions() -> Finding:
    code = code_version()
    there = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    commit = code.get("code.commit", "")[:10]
    changed = ", with uncommitted changes" if code.get("code.dirty") == "true" else ""
    return Finding("versions", f"glus {code['code.version']} {commit}{changed}; {', '.join(there)}")


def _gpus(run: RunConfig, least_free: float) -> Iterator[Finding]:
    try:
        count = gpu_count(choose_device(run.engine.device))
    except UserError as error:
        found, _, remedy = str(error).rpartition("): ")
        yield Finding("GPUs", f"{found})" if remedy else str(error), remedy or "see docs/gpu.md")
        return
    if 0 < count < run.ranks:
        yield Finding("GPUs", f"{count}, and the config asks for ranks={run.ranks}", "ask SLURM for more, or set ranks")
        return
    if not count:
        cores = usable_cores()
        yield Finding("GPUs", f"none: {run.ranks or 1} ranks share {cores} cores")
    for number in range(count):
        device = torch.device("cuda", number)
        # This process alone looks, before any rank is there: its context is gone when it ends.
        taken, total = memory_taken(device)
        name = f"{torch.cuda.get_device_name(device)}, {(total - taken) / GIB:.0f} of {total / GIB:.0f} GB free"
        if unknown_gpu(device, run.engine.peak_tflops):
            name += "; an unknown GPU: without engine.peak_tflops there is no MFU"
        busy = "" if total - taken >= least_free * total else "somebody else is on it: nvidia-smi names them"
        yield Finding(f"GPU {number}", name, busy)
    if run.model.language.attention == "flash_attention_2":
        yield _finding("flash-attn", lambda: flash_attention(torch.device("cuda", 0) if count else None))


def _weights(run: RunConfig) -> str:
    """Builds the model without its weights: names, sizes and the tokenizer are checked on the way."""
    resumed = next(iter(checkpoint.newest_first(Path(run.out) / "checkpoints")), None)
    built = build_for_training(run, resumed, with_weights=False)
    for place in (fetch_weights(run.weights)[0] if resumed is None else run.weights).named.values():
        for file in [Path(place)] if Path(place).is_file() else sorted(Path(place).iterdir()):
            if file.is_file():
                _first_byte(file)
    trained = sum(row.elements for row in built.trainable)
    elements = sum(parameter.numel() for parameter in built.model.parameters())
    start = resumed.name if resumed else run.init_from or ", ".join(run.weights.named.values()) or "freshly drawn"
    return f"{elements:,} elements, {trained:,} trained, from {start}"


def _first_byte(file: Path) -> None:
    try:
        with open(file, "rb") as opened:
            opened.read(1)
    except OSError as error:
        raise LaunchError(f"{file} cannot be read ({error.strerror}): fix that, or name other weights") from error


def planned_bytes(run: RunConfig) -> int:
    """About how much the checkpoints of a run take: what the policy keeps, one that is being written, and their base.

    A checkpoint holds the weights without those of the base, the engine's copy of what is trained, and three numbers in
    fp32 for each trained element.
    """
    model = build_for_training(run, None, with_weights=False).model
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    base = sum(sizes[name] for name in frozen_names(model))
    width = 2 if run.engine.precision == "bf16" else 4
    each = (sum(sizes.values()) - base + trained) * width + trained * 12
    return base * width + each * (max(run.keep.last, 1) + run.keep.best + 1)


def _disk(run: RunConfig, nodes: Nodes) -> str:
    out = Path(run.out)
    probe = out / f".doctor-{nodes.host}-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise LaunchError(f"{out} cannot be written ({error.strerror}): choose another `out`") from error
    free, planned = shutil.disk_usage(out).free, planned_bytes(run)
    found = f"{free / GIB:.1f} GB free in {out}, checkpoints will take about {planned / GIB:.2f} GB"
    if free < planned:
        raise LaunchError(f"{found}: make room, or keep fewer (keep.last={run.keep.last}, keep.best={run.keep.best})")
    return found


def _shards(run: RunConfig) -> str:
    """Reads every manifest, and hashes one shard of each split."""
    splits = open_splits(run.shards, list(run.sampling.mixture))
    for split in splits:
        shard = random.choice(split.manifest.shards)
        place = Storage.at(run.shards).below(split.dataset, split.split)
        if place.sha256(shard.name) != shard.sha256:
            raise LaunchError(
                f"{place}/{shard.name} is not what was prepared: run `glus prepare` again, or copy it again"
            )
    videos = sum(len(split.videos) for split in splits)
    return f"{len(splits)} splits in {run.shards}, {videos:,} videos; a shard of each hashed"


def _network(nodes: Nodes, config: DoctorConfig) -> Iterator[Finding]:
    try:
        found: Meeting = meet(nodes, config.megabytes * MIB, config.wait)
    except LaunchError as error:
        what, _, remedy = str(error).partition(": ")
        yield Finding("network", what, remedy)
        return
    speed = config.megabytes / found.seconds / 1024
    took = f"{nodes.count} machines, all-reduce of {config.megabytes} MB in {found.seconds * 1000:.0f} ms"
    yield Finding("network", f"{took} ({speed:.2f} GB/s, {found.backend})")
    late = "" if found.skew <= config.clock_skew else "start its time service (chrony, ntp)"
    yield Finding("clock", f"{found.skew:.2f} s from the first machine's", late)
    same = "" if found.same_code else "install the same version on all machines"
    yield Finding("same code", "as on the first machine" if found.same_code else "not that of the first machine", same)
