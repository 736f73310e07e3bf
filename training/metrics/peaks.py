"""bf16 FLOP a second of GPUs, by their exact names: what MFU is a share of."""

import torch

#: torch.cuda.get_device_name -> dense bf16 FLOP a second with float32 sums, of NVIDIA's data sheets (half of what they
#: give "with sparsity"). A name that is not here is unknown: an L40S is twice an L40, an H100 PCIe three quarters of an
#: H100, and a MIG slice has a part of its card. GPUs before Ampere have no bf16.
PEAK_FLOPS = {
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 149.7e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "NVIDIA GH200 120GB": 989e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA RTX A6000": 154.8e12,
    "NVIDIA RTX 6000 Ada Generation": 364.2e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 5090": 209.5e12,
}


def peak_of(name: str) -> float:
    """bf16 FLOP a second of the product `name`, 0 where it is unknown. Drivers before 2021 leave "NVIDIA " out."""
    given = " ".join(name.split())
    return PEAK_FLOPS.get(given) or PEAK_FLOPS.get(f"NVIDIA {given}", 0.0)


def known_peak(device: torch.device) -> float:
    """bf16 FLOP a second of a device, 0 where it is not in the table."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else 0.0


def unknown_gpu(device: torch.device, given: float) -> str:
    """A line on why MFU is not recorded on this GPU, "" where it is or where there is no GPU. `given`: the config's."""
    if device.type != "cuda" or given or known_peak(device):
        return ""
    name = torch.cuda.get_device_name(device)
    return f"unknown GPU {name}: MFU is not recorded; set engine.peak_tflops to its dense bf16 TFLOP a second"
