"""Choose the device of a process: the CPU where it is set, or where nothing indicates GPUs.

A job that was given GPUs and computes on the CPU would run for weeks unnoticed, so it is refused.
"""

import errno
import os
from pathlib import Path
from typing import Literal

import torch

from glus.common.errors import TrainingError, first_line

Asked = Literal["auto", "cuda", "cpu"]
Kind = Literal["cuda", "cpu"]
Precision = Literal["bf16", "fp32"]

#: Says the same as a config's key, where that is "auto": for a machine rather than for a run.
DEVICE = "GLUS_DEVICE"
#: What SLURM sets where it gave GPUs: indices, or on a node their number.
GIVEN_BY_SLURM = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE")
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Values of CUDA_VISIBLE_DEVICES (in lower case) that hide every GPU; SLURM sets the last where a job asked for none.
_HIDDEN = ("", "-1", "none", "void", "nodevfiles")


def choose_device(asked: Asked, key: str = "engine.device", devices: Path = Path("/dev")) -> Kind:
    """The kind of device to compute on. `key` names the config's key in messages; `devices` holds nvidia0, nvidia1, ...

    "cuda" must be there; "auto" takes it where torch sees it. "cpu" hides the GPUs from this process and those that it
    starts. Raises TrainingError with torch's own reason where GPUs were given, or are plugged in, and torch sees none.
    """
    given = os.environ.get(DEVICE, "")
    if given not in ("", "auto", "cuda", "cpu"):
        raise TrainingError(f"{DEVICE}={given}: it must be auto, cuda or cpu")
    wanted = (given or asked) if asked == "auto" else asked
    if wanted == "cpu":
        # Before CUDA begins: a context is never made, and libraries that look for themselves agree.
        os.environ[VISIBLE] = ""
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    sign = f"{key if asked == 'cuda' else DEVICE} asks for cuda" if wanted == "cuda" else sign_of_gpus(devices)
    if sign:
        raise TrainingError(
            f"{sign}, but torch sees no GPU ({why_no_cuda()}): repair the driver, install a torch with CUDA or take "
            f"another node; to compute on the CPU, set {key}=cpu or {DEVICE}=cpu"
        )
    return "cpu"


def sign_of_gpus(devices: Path = Path("/dev")) -> str:
    """Name the sign that this process has GPUs, "" for none: SLURM, CUDA_VISIBLE_DEVICES, or device files."""
    for name in GIVEN_BY_SLURM:
        value = os.environ.get(name, "").strip()
        if value and not (name == "SLURM_GPUS_ON_NODE" and value == "0"):
            return f"{name}={value} gives this job GPUs"
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        first = visible.split(",")[0].strip().lower()
        return "" if first in _HIDDEN else f"{VISIBLE}={visible} names GPUs"
    files = [file for file in sorted(devices.glob("nvidia[0-9]*")) if not _kept_from_us(file)]
    return f"{files[0]} is there" if files else ""


def _kept_from_us(file: Path) -> bool:
    """SLURM shows a job the device files of GPUs that it was not given; its control group forbids to open them."""
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.EPERM
    return False


def why_no_cuda() -> str:
    """Torch's reason for not seeing a GPU, on one line."""
    reason = "torch.cuda.device_count() is 0"
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        reason = first_line(error).strip()
    return f"torch {torch.__version__}: {reason}"


def claim(device: torch.device) -> None:
    """Make a GPU the one that this process means by "cuda", before anything is built.

    sam2 draws its tables on "cuda" without a number: those of all ranks would lie on GPU 0.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)


def memory_taken(device: torch.device) -> tuple[int, int]:
    """Bytes taken and bytes in all of this process's own GPU, (0, 0) on the CPU.

    Asked of another GPU, CUDA would make a context of 0.3 to 0.5 GB there.
    """
    if device.type != "cuda":
        return 0, 0
    free, total = torch.cuda.mem_get_info(device)
    return total - free, total


def gpu_count(kind: Kind) -> int:
    """Number of GPUs that this process sees; 0 where it computes on the CPU."""
    return torch.cuda.device_count() if kind == "cuda" else 0


def choose_precision(asked: Literal["auto", "bf16", "fp32"], kind: Kind) -> Precision:
    """The precision to predict in. "auto": bf16 on GPUs that compute in it (Ampere and later), as the reference
    predicts; elsewhere float32."""
    if asked != "auto":
        return asked
    native = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"
