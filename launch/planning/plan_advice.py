"""What `glus plan` advises: ZeRO stage, recomputation, micro-batch and hpZ, each with its reason.

All settings are tried by the same formulas that the plan prints. The fastest one that fits is taken; among equals the
one with fewer micro-batches, then stage 2 (measured 1.4 times as fast as 3 on one GPU, docs/gpu.md), then less memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from glus.training.run_config import EngineConfig, RunConfig

GIB = 2**30
#: Part of a GPU's memory that may be planned: fragments, NCCL's buffers and the CUDA context take the rest.
USABLE = 0.9
#: Seconds that count as equal: the estimate is no better.
_EQUAL = 0.02
_MOST_VIDEOS = 8


@dataclass(frozen=True)
class Estimate:
    """What a step takes with some settings: bytes of a GPU, seconds of computing and of sending, received bytes."""

    memory: int
    computing: float
    sending: float
    received: int

    @property
    def seconds(self) -> float:
        """Fetching ahead hides the shorter of the two."""
        return max(self.computing, self.sending)


def advice(
    config: RunConfig, ranks: int, nodes: int, memory: int, estimate: Callable[[RunConfig], Estimate]
) -> list[str]:
    """Lines of "setting: reason". memory: bytes of a GPU. `estimate` prices a config on the planned machines."""
    now, usable = estimate(config), int(memory * USABLE)
    tried = [(each, estimate(each)) for each in _candidates(config, ranks)]
    fitting = [(each, found) for each, found in tried if found.memory <= usable]
    if not fitting:
        least, found = min(tried, key=lambda pair: pair[1].memory)
        return [
            f"nothing fits {usable / GIB:.0f} GiB: {_settings(least.engine)} takes least, "
            f"{found.memory / GIB:.1f} GiB; use more GPUs, engine.offload or fewer sampling.expressions"
        ]
    fastest = min(found.seconds for _, found in fitting)
    equal = [pair for pair in fitting if pair[1].seconds <= fastest * (1 + _EQUAL)]
    best, found = min(equal, key=lambda pair: (-pair[0].engine.micro_batch_size, pair[0].engine.stage, pair[1].memory))
    lines = [
        f"{_settings(best.engine)}: {found.memory / GIB:.1f} of {usable / GIB:.0f} usable GiB, {found.seconds:.2f} s a "
        f"step (this config: {now.memory / GIB:.1f} GiB, {now.seconds:.2f} s)"
    ]
    other = {pair[0].engine: pair[1] for pair in tried}
    lines.append(_recomputation(best.engine, other, usable))
    lines.append(_stage(best.engine, other, usable))
    if nodes > 1:
        lines.append(_hpz(best, found, ranks // nodes, usable, estimate))
    if best.engine.micro_batch_size != config.engine.micro_batch_size:
        lines.append(
            f"engine.micro_batch_size={best.engine.micro_batch_size}: fewer micro-batches start fewer kernels, and a "
            "step waits for those (docs/gpu.md); it changes which [SEG] states are compared with each other"
        )
    return lines


def _candidates(config: RunConfig, ranks: int) -> list[RunConfig]:
    share = config.global_batch_size // ranks
    videos = [each for each in range(1, min(share, _MOST_VIDEOS) + 1) if config.global_batch_size % (each * ranks) == 0]
    return [
        replace(
            config,
            engine=replace(
                config.engine,
                stage=stage,
                gradient_checkpointing=again,
                micro_batch_size=each,
                hpz_partition_size=1,
            ),
        )
        for stage in (2, 3)
        for again in (False, True)
        for each in videos
    ]


def _settings(engine: EngineConfig) -> str:
    again = str(engine.gradient_checkpointing).lower()
    videos = f"engine.micro_batch_size={engine.micro_batch_size}"
    return f"engine.stage={engine.stage} engine.gradient_checkpointing={again} {videos}"


def _recomputation(engine: EngineConfig, other: dict[EngineConfig, Estimate], usable: int) -> str:
    off, on = (other[replace(engine, gradient_checkpointing=again)] for again in (False, True))
    more, saved = on.computing / off.computing - 1, (off.memory - on.memory) / GIB
    cost = f"it takes {more:.0%} more computing and saves {saved:.1f} GiB"
    if engine.gradient_checkpointing and off.memory <= usable:
        return f"recomputation on: {cost}; sending takes {on.sending:.2f} s, so it costs no time here"
    if engine.gradient_checkpointing:
        return f"recomputation on: {cost}; without it {off.memory / GIB:.1f} GiB do not fit {usable / GIB:.0f}"
    return f"recomputation off: {cost}, which are there"


def _stage(engine: EngineConfig, other: dict[EngineConfig, Estimate], usable: int) -> str:
    two, three = (other[replace(engine, stage=stage)] for stage in (2, 3))
    received = f"a GPU receives {two.received / 1e9:.1f} GB a step, {three.received / 1e9:.1f} in stage 3"
    if engine.stage == 2:
        return (
            f"ZeRO-2: {received}; it keeps all parameters on each GPU, {(two.memory - three.memory) / GIB:.1f} GiB more"
        )
    if two.memory > usable:
        return f"ZeRO-3: stage 2 takes {two.memory / GIB:.1f} GiB, {usable / GIB:.0f} are usable; {received}"
    return f"ZeRO-3: {received}, hidden behind {three.computing:.2f} s of computing; it takes less memory"


def _hpz(best: RunConfig, found: Estimate, gpus: int, usable: int, estimate: Callable[[RunConfig], Estimate]) -> str:
    """Whether a second copy of the parameters in each machine of `gpus` GPUs saves time."""
    if best.engine.stage == 2:
        return "hpZ (ZeRO++): not needed, ZeRO-2 gathers no parameters between machines"
    if gpus == 1:
        return "hpZ (ZeRO++): a machine with one GPU has none to share a copy of the parameters with"
    other = estimate(replace(best, engine=replace(best.engine, hpz_partition_size=gpus)))
    setting, more = f"engine.hpz_partition_size={gpus}", (other.memory - found.memory) / GIB
    price = f"sending takes {other.sending:.2f} instead of {found.sending:.2f} s a step for {more:.1f} GiB"
    if other.memory > usable:
        return f"hpZ (ZeRO++): {setting} does not fit {usable / GIB:.0f} GiB; {price}"
    if other.seconds < found.seconds * (1 - _EQUAL):
        return f"hpZ (ZeRO++): {setting}: {price}; a step takes {other.seconds:.2f} s"
    return f"hpZ (ZeRO++): not needed, computing takes {found.computing:.2f} s; with {setting} {price}"
