"""`glus plan --trace`: a CUDA device that is not there, against torch's own rules and a real forward pass."""

from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glus.launch import cli
from glus.launch.config.configuration import load_config
from glus.launch.planning.plan_trace import print_phases
from glus.model.glus import Glus
from glus.model.trainable import add_lora
from glus.training.run_config import RunConfig
from glus.training.trace.allowed_syncs import TRAINING, AllowedSync, check_syncs
from glus.training.trace.gpus import gpu_named
from glus.training.trace.ledger import Ledger
from glus.training.trace.noise import noise_batch
from glus.training.trace.pretended_cuda import CUDA
from glus.training.trace.traced import Sizes, pretended, trace_training

TINY = Path(__file__).parents[1] / "tiny_run.yaml"
H100 = gpu_named("H100 80GB HBM3")
SIZES = Sizes(vocabulary=300, seg_id=299, height=48, width=64)


def seen(run: Callable[[], object], half: bool = True) -> Ledger:
    """What happens on the device while `run` runs."""
    with pretended(H100, half) as ledger:
        run()
    return ledger


def numbers() -> torch.Tensor:
    return torch.ones(8, device=CUDA)


def whole() -> torch.Tensor:
    return torch.arange(8, device=CUDA)


def test_tensors_of_two_devices_are_refused() -> None:
    [problem] = seen(lambda: numbers() + torch.ones(8)).problems
    assert "add of a CUDA tensor with one of the CPU ([8])" in problem
    assert not seen(lambda: numbers() + torch.tensor(2.0)).problems  # CUDA takes a scalar of the CPU


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (lambda: numbers().sum().item(), "value read (item, bool, int, float)"),
        (lambda: numbers().tolist(), "copy to the CPU"),
        (lambda: torch.tensor([1, 2], device=CUDA), "copy to the GPU"),
        (lambda: torch.ones(8).to(CUDA), "copy to the GPU"),
        (lambda: numbers()[whole() > 3], "index by a mask"),
        (lambda: numbers()[torch.tensor([1, 2])], "index from the CPU"),
        (lambda: torch.nonzero(whole() > 3), "nonzero"),
        (lambda: numbers().repeat_interleave(whole()), "repeat_interleave without output_size"),
        (lambda: torch.ones(8).to(CUDA, non_blocking=True), None),
        (lambda: numbers().repeat_interleave(whole(), output_size=28), None),
        (lambda: numbers()[whole()[2:4]], None),
    ],
)
def test_the_host_waits_where_cuda_makes_it_wait(run: Callable[[], object], what: str | None) -> None:
    assert [sync.what for sync in seen(run).syncs] == ([what] if what else [])


def test_shapes_that_follow_from_values_are_real() -> None:
    shapes = []
    seen(lambda: shapes.append(numbers()[whole() > 2].shape))
    assert shapes == [torch.Size([5])]
    with pytest.raises(RuntimeError, match="values the trace does not know"):
        seen(lambda: numbers()[numbers() > 2])


def test_a_large_product_in_float32_is_refused_where_the_model_is_in_bf16() -> None:
    def product(dtype: torch.dtype) -> object:
        return torch.ones(1024, 1024, device=CUDA, dtype=dtype) @ torch.ones(1024, 1024, device=CUDA, dtype=dtype)

    [problem] = seen(lambda: product(torch.float32)).problems
    assert "mm of 2 GFLOP in float32" in problem
    assert not seen(lambda: product(torch.bfloat16)).problems
    assert not seen(lambda: product(torch.float32), half=False).problems


def test_memory_is_held_by_storages_and_freed_with_them() -> None:
    def run() -> None:
        first = torch.empty(1024, 1024, device=CUDA)
        view, second = first[0], first + 1
        del first, second
        assert ledger.held == 4 * 2**20  # the view keeps the first
        del view

    with pretended(H100, half=True) as ledger:
        run()
    assert (ledger.held, ledger.peak) == (0, 8 * 2**20)


def test_a_sync_beyond_the_list_is_refused() -> None:
    found = seen(lambda: [numbers().sum().item() for _ in range(3)]).syncs
    place = next(iter(found)).where.place
    allowed = AllowedSync(place, "value read (item, bool, int, float)", 3, "a test reads it")
    assert check_syncs(found, ()).refused
    assert check_syncs(found, (AllowedSync(place, allowed.what, 2, ""),)).refused
    kept = check_syncs(found, (allowed,))
    assert not kept.refused and kept.repeated == 3


@pytest.mark.slow
def test_a_traced_micro_batch_computes_what_a_real_one_does() -> None:
    config = load_config(RunConfig, TINY, ["sampling.expressions=2", "model.loss.contrastive=0.1"])
    traced = trace_training(config, H100, SIZES).ledger
    model = Glus(config.model, SIZES.vocabulary, SIZES.seg_id).train()
    add_lora(model, config.model.lora)
    batch = noise_batch(config, SIZES.seg_id, SIZES.height, SIZES.width)
    # torch's counter knows products: this attention is made of them.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(batch)
    forward = sum(cost.flop for (phase, _), cost in traced.costs.items() if phase == "forward")
    assert forward == pytest.approx(counter.get_total_flops(), rel=0.01)
    backward = sum(cost.flop for (phase, _), cost in traced.costs.items() if phase == "backward")
    assert 1.5 * forward < backward < 2.2 * forward  # everything is trained


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["batch", "bank"])
def test_a_micro_batch_waits_for_the_gpu_at_most_six_times(pool: str) -> None:
    changes = ["engine.precision=bf16", "engine.gradient_checkpointing=true", "sampling.expressions=2"]
    changes += ["model.loss.contrastive=0.1", f"model.loss.contrastive_pool={pool}"]
    ledger = trace_training(load_config(RunConfig, TINY, changes), H100, SIZES).ledger
    assert ledger.problems == Counter()
    syncs = check_syncs(ledger.syncs, TRAINING)
    assert syncs.refused == [] and syncs.repeated <= 6
    assert sum(ledger.syncs.values()) <= 12  # with those of the first micro-batch alone


@pytest.mark.slow
@pytest.mark.parametrize(("width", "tables"), [(80, 3), (120, 3), (200, 1)])
def test_a_trace_fits_the_terminal_and_no_number_is_cut_off(width: int, tables: int) -> None:
    traced = trace_training(load_config(RunConfig, TINY, ["sampling.expressions=2"]), H100, SIZES)
    phases, part = ("forward", "losses", "backward"), "memory attention"
    # As long as those of 7B.
    for cost in traced.ledger.costs.values():
        cost.flop, cost.seconds, cost.kernels = 123.45e12, 1.2345, 12_345
    console = Console(width=width, file=StringIO())
    print_phases(console, "a run: one micro-batch", traced, phases)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width and not any("\u2026" in line for line in lines)
    assert sum("GiB at the peak" in line for line in lines) == tables
    rows = [line.split() for line in lines if line.strip().startswith(part)]
    costs = sum((phase, part) in traced.ledger.costs for phase in phases)
    assert len(rows) == tables and costs >= 2
    assert all(sum(row.count(number) for row in rows) == costs for number in ("123.45", "12,345", "1,234.5"))


@pytest.mark.slow
def test_the_command_prints_parts_and_syncs_and_refuses_what_it_cannot_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    changes = "changes=[engine.precision=bf16,sampling.expressions=2]"
    sizes = ["height=48", "width=64"]
    assert cli.main(["plan", "--trace", str(TINY), changes, *sizes]) == 0
    printed = capsys.readouterr().out
    for word in ("language model", "memory attention", "host syncs of every micro-batch: 0", "a video of", "GiB"):
        assert word in printed
    selector = Path(__file__).parents[2] / "configs" / "glus_s_kfs.yaml"
    assert cli.main(["plan", "--trace", str(selector)]) == 2
    assert "model.method=selector: only GLUS's micro-batch is traced" in capsys.readouterr().err
    assert cli.main(["plan", "--trace", str(TINY), "gpu=Abacus"]) == 2
    assert "its data sheet is not known; choose one of NVIDIA A100-SXM4-40GB" in capsys.readouterr().err
