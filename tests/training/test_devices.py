"""Which device is computed on, that a rank looks at no GPU but its own, and what is said where memory is short.

There is no GPU here: what torch would say of one is set by hand.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

import glus.training.train as training
from glus.common.errors import LaunchError, TrainingError
from glus.common.out_of_memory import memory_explained, out_of_memory
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.launch import cli
from glus.launch.commands.predict import Prediction, Predictor
from glus.launch.ranks.nodes import ALONE
from glus.launch.slurm.doctor import DoctorConfig, findings
from glus.training.devices import GIVEN_BY_SLURM, choose_device, choose_precision, sign_of_gpus
from glus.training.distributed import Rank
from glus.training.metrics.node_watch import NodeWatch
from glus.training.metrics.peaks import known_peak, peak_of, unknown_gpu
from glus.training.run_config import RunConfig
from glus.training.train import deterministic
from tests.running import written

TinyRun = Callable[..., RunConfig]
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.80 GiB memory in use. Of the allocated memory 70.00 GiB "
    "is allocated by PyTorch, and 5.00 GiB is reserved by PyTorch but unallocated."
)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No word of GPUs in the environment, and none that torch sees."""
    for name in (*GIVEN_BY_SLURM, "CUDA_VISIBLE_DEVICES", "GLUS_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


@pytest.fixture
def eight_gpus(bare: pytest.MonkeyPatch) -> list[str]:
    """Eight GPUs that torch sees; returns the calls that choose or ask one, as they come."""
    calls: list[str] = []

    def asked(device: object) -> tuple[int, int]:
        calls.append(f"mem_get_info {device}")
        return 20 * 2**30, 80 * 2**30

    bare.setattr(torch.cuda, "is_available", lambda: True)
    bare.setattr(torch.cuda, "device_count", lambda: 8)
    bare.setattr(torch.cuda, "set_device", lambda device: calls.append(f"set_device {device}"))
    bare.setattr(torch.cuda, "mem_get_info", asked)
    return calls


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SLURM_JOB_GPUS", "0"),
        ("SLURM_JOB_GPUS", "0,1,2,3"),
        ("SLURM_STEP_GPUS", "2"),
        ("SLURM_GPUS_ON_NODE", "8"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"),
    ],
)
def test_gpus_that_torch_does_not_see_are_refused_with_its_reason(
    setting: str, value: str, bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare.setenv(setting, value)
    with pytest.raises(TrainingError) as error:
        choose_device("auto", devices=tmp_path)
    told = str(error.value)
    assert f"{setting}={value}" in told and "Torch not compiled with CUDA enabled" in told
    assert "engine.device=cpu" in told
    # Asked for, the CPU is taken, and every GPU is hidden from what starts from here.
    assert choose_device("cpu", devices=tmp_path) == "cpu"
    assert sign_of_gpus(tmp_path) == ("" if setting.startswith("CUDA") else f"{setting}={value} gives this job GPUs")


def test_a_broken_driver_is_refused_with_what_it_says(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> NoReturn:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it.")

    bare.setattr(torch.cuda, "init", broken)
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    with pytest.raises(TrainingError, match=r"nvidia0 is there, but torch sees no GPU \(torch .*too old \(found ver"):
        choose_device("auto", devices=tmp_path)


def test_a_machine_without_gpus_takes_the_cpu(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert choose_device("auto", devices=tmp_path) == "cpu"
    bare.setenv("SLURM_GPUS_ON_NODE", "0")
    bare.setenv("SLURM_JOB_GPUS", "")
    assert choose_device("auto", devices=tmp_path) == "cpu"


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_gpus_that_the_user_or_slurm_hides_are_not_missed(
    hidden: str, bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia0").touch()
    bare.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert choose_device("auto", devices=tmp_path) == "cpu"


def test_the_environment_may_ask_for_the_cpu_and_the_config_for_a_gpu(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("SLURM_JOB_GPUS", "0")
    bare.setenv("GLUS_DEVICE", "cpu")
    assert choose_device("auto", devices=tmp_path) == "cpu"
    with pytest.raises(TrainingError, match=r"engine\.device asks for cuda, but torch sees no GPU \(torch "):
        choose_device("cuda", devices=tmp_path)
    bare.setenv("GLUS_DEVICE", "gpu")
    with pytest.raises(TrainingError, match="GLUS_DEVICE=gpu: it must be auto, cuda or cpu"):
        choose_device("auto", devices=tmp_path)


def test_a_cpu_that_is_asked_for_is_taken_beside_gpus(eight_gpus: list[str]) -> None:
    assert choose_device("auto") == "cuda" == choose_device("cuda")
    assert Rank(0, 3, 8).device == torch.device("cuda", 3) and Rank(0, 3, 8).backend == "nccl"
    assert choose_device("cpu") == "cpu"
    alone = Rank(0, 3, 8, on_cpu=True)
    assert alone.device == torch.device("cpu") and alone.backend == "gloo"


@pytest.mark.slow
def test_every_command_that_computes_refuses_it(
    bare: pytest.MonkeyPatch, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare.setenv("SLURM_JOB_GPUS", "0")
    run = tiny_run(tmp_path / "run")
    (tmp_path / "weights").mkdir()
    commands = (
        ["train", str(written(run, tmp_path))],
        ["pretrain-encoder", f"out={tmp_path}/sam2.pt", f"run={written(run, tmp_path)}"],
        ["evaluate", f"checkpoint={tmp_path}", f"shards={run.shards}", f"out={tmp_path}/evaluated"],
        ["segment", f"{tmp_path}/clip.mp4", "a dog", f"weights={tmp_path}/weights", f"out={tmp_path}/found"],
    )
    for words in commands:
        assert cli.main(words) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"glus {words[0]}: SLURM_JOB_GPUS=0 gives this job GPUs, but torch sees no GPU (torch")
        assert (
            told.count("\n") == 1
            and ("set device=cpu" if words[0] in ("evaluate", "segment") else "engine.device=cpu") in told
        )
    assert not (tmp_path / "run" / "config.yaml").exists() and not (tmp_path / "evaluated").exists()
    with pytest.raises(TrainingError, match="SLURM_JOB_GPUS=0"):
        training.train(run, Rank(0, 0, 1))
    [gpus] = [each for each in findings(run, DoctorConfig(Path()), ALONE) if each.name == "GPUs"]
    assert "SLURM_JOB_GPUS=0" in gpus.found and "not compiled with CUDA" in gpus.found and "driver" in gpus.remedy
    asked = replace(run, engine=replace(run.engine, device="cpu"))
    [gpus] = [each for each in findings(asked, DoctorConfig(Path()), ALONE) if each.name == "GPUs"]
    assert not gpus.remedy and gpus.found.startswith("none: 1 ranks share")


def test_a_rank_takes_its_gpu_before_anything_is_built(
    eight_gpus: list[str], tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def first(*_: object) -> NoReturn:
        eight_gpus.append("the run begins")
        raise Stop

    monkeypatch.setattr(training, "check_shares", first)
    with pytest.raises(Stop):
        training.train(tiny_run(tmp_path / "run"), Rank(5, 5, 8))
    assert eight_gpus == ["set_device cuda:5", "the run begins"]


def test_a_predicting_process_takes_its_gpu_before_the_model_is_read(eight_gpus: list[str], tmp_path: Path) -> None:
    class Source(ModelSource):
        def load(self, device: torch.device, *_: object) -> NoReturn:
            eight_gpus.append(f"load on {device}")
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    source = Source(tmp_path, "model")
    work = Prediction(source, (), tmp_path, InferenceConfig(expressions_together=8, precision="fp32"), (), 2, "cuda")
    with pytest.raises(LaunchError) as error:
        Predictor(work, 1)
    assert eight_gpus == ["set_device cuda:3", "load on cuda:3"]
    assert str(error.value) == (
        "prediction on cuda:3: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB "
        "of which 1.20 GiB is free: set inference.precision=bf16, a smaller inference.expressions_together (now 8) or "
        "fewer processes"
    )


def test_a_rank_asks_its_own_gpu_alone_for_its_memory(eight_gpus: list[str]) -> None:
    figures = NodeWatch(Rank(0, 3, 1)).metrics()
    assert figures["system/node-0/gpu_memory_percent"] == 75.0
    assert eight_gpus == ["mem_get_info cuda:3"]
    assert "system/node-0/gpu_memory_percent" not in NodeWatch(Rank(0, 3, 1, on_cpu=True)).metrics()


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", 70e12),
        ("A100-SXM4-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 0.0),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 0.0),
        ("NVIDIA L400", 0.0),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 0.0),
        ("NVIDIA GeForce RTX 4090 D", 0.0),
        ("Tesla V100-SXM2-32GB", 0.0),
        ("", 0.0),
    ],
)
def test_a_peak_is_that_of_the_very_product_or_unknown(name: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_of(name) == known_peak(gpu) == peak
    assert unknown_gpu(gpu, 0.0).startswith("" if peak else f"unknown GPU {name}: MFU is not recorded")
    assert bool(unknown_gpu(gpu, 0.0)) == (not peak)
    assert unknown_gpu(gpu, 100.0) == unknown_gpu(torch.device("cpu"), 0.0) == ""


def test_memory_that_a_training_lacks_is_told_with_what_takes_less(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> NoReturn:
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    monkeypatch.setattr(training, "make_engine", full)
    assert cli.main(["train", str(written(tiny_run(tmp_path / "run", "engine.stage=plain"), tmp_path))]) == 2
    told = capsys.readouterr().err
    assert told.startswith("glus train: rank 0: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total")
    assert "engine.gradient_checkpointing=true" in told and "engine.micro_batch_size (now 2)" in told
    assert told.count("\n") == 1


def test_what_is_lack_of_memory_and_what_is_not() -> None:
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(2**50, dtype=torch.uint8)
    assert "memory" in out_of_memory(cpu.value)
    assert out_of_memory(MemoryError("Unable to allocate 9.0 TiB for an array")).startswith("out of memory: Unable")
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError(1)):
        assert out_of_memory(other) == ""
        with pytest.raises(type(other)), memory_explained("rank 0", "buy more"):
            raise other


def test_deterministic_algorithms_are_asked_for_within_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic
    with pytest.raises(TrainingError, match=r"engine\.deterministic: upsample_x does not have .*: set engine\.determi"):
        with deterministic(True):
            raise RuntimeError("upsample_x does not have a deterministic implementation, but you set it. You can turn")


#: Leaving a process group is replaced by a word; the first argument says whether the rank fails.
LEAVING = """
import sys, torch
torch.distributed.destroy_process_group = lambda: print("leaves the others", flush=True)
from glus.training.distributed import Rank
from glus.training.engines.deepspeed_engine import Engine
with Engine.joined(Rank(0, 0, 1)):
    if sys.argv[1] == "fails":
        raise ValueError("this rank alone")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("end", "leaves"), [("fails", False), ("ends", True)])
def test_a_rank_that_fails_does_not_wait_for_the_others_as_it_ends(end: str, leaves: bool, warm_python: Path) -> None:
    done = subprocess.run([warm_python, "-c", LEAVING, end], capture_output=True, text=True, check=False)
    assert ("leaves the others" in done.stdout) == leaves, done.stderr
    assert done.returncode == (0 if leaves else 1)


def test_predictions_are_bf16_on_gpus_that_compute_in_it(bare: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", "cpu") == "fp32"
    for native, due in ((True, "bf16"), (False, "fp32")):
        bare.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert choose_precision("auto", "cuda") == due
        assert choose_precision("fp32", "cuda") == "fp32" and choose_precision("bf16", "cpu") == "bf16"


def test_settings_are_not_recorded_before_their_precision_is_chosen() -> None:
    with pytest.raises(ValueError, match="auto"):
        InferenceConfig().recorded()
    assert InferenceConfig().on("cpu").recorded()["precision"] == "fp32"
