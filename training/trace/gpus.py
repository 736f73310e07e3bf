"""Data sheets of GPUs for a roofline: peaks by dtype and bandwidth of memory, by the names that torch gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from glus.common.errors import TrainingError
from glus.training.metrics.peaks import peak_of


@dataclass(frozen=True)
class Gpu:
    """peak: FLOP a second by dtype, dense, without TF32; bandwidth: bytes a second; memory: bytes."""

    name: str
    peak: Mapping[torch.dtype, float]
    bandwidth: float
    memory: int


#: name -> FLOP a second in float32 and in float64, bytes a second, GB (NVIDIA's data sheets).
_SHEETS: dict[str, tuple[float, float, float, int]] = {
    "NVIDIA A100-SXM4-40GB": (19.5e12, 19.5e12, 1.555e12, 40),
    "NVIDIA A100-SXM4-80GB": (19.5e12, 19.5e12, 2.039e12, 80),
    "NVIDIA H100 80GB HBM3": (67e12, 67e12, 3.35e12, 80),
    "NVIDIA H100 PCIe": (51e12, 51e12, 2.0e12, 80),
    "NVIDIA H200": (67e12, 67e12, 4.8e12, 141),
    "NVIDIA B200": (75e12, 37e12, 8.0e12, 180),
    "NVIDIA L40S": (91.6e12, 1.43e12, 0.864e12, 48),
    "NVIDIA RTX A6000": (38.7e12, 0.6e12, 0.768e12, 48),
    "NVIDIA GeForce RTX 4090": (82.6e12, 1.29e12, 1.008e12, 24),
}


def gpu_named(name: str) -> Gpu:
    """The GPU that torch calls `name`; "NVIDIA " may be left out. Raises TrainingError where its sheet is not here."""
    full = name if name in _SHEETS else f"NVIDIA {name}"
    if full not in _SHEETS:
        raise TrainingError(f"gpu={name}: its data sheet is not known; choose one of {', '.join(_SHEETS)}")
    single, double, bandwidth, gigabytes = _SHEETS[full]
    half = peak_of(full)
    peaks = {torch.bfloat16: half, torch.float16: half, torch.float32: single, torch.float64: double}
    return Gpu(full, MappingProxyType(peaks), bandwidth, gigabytes * 10**9)
