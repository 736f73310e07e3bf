"""A whole run in this process, by the plain engine: what it records, what stops it, and its switches."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from glus.common.cores import usable_cores
from glus.common.errors import ModelError, TrainingError
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.model.trainable import build_empty, set_trainable
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.engines.accumulate import Accumulated
from glus.training.metrics.cost import Load, step_cost
from glus.training.metrics.profiling import FOLDER, OPERATIONS, TRACE
from glus.training.run_config import RunConfig
from glus.training.stopping.health import FILE, refuse_non_finite
from glus.training.tracking.metric_groups import shown_name
from glus.training.tracking.recorded_runs import RunRecord, find_runs
from glus.training.train import sample_plan, train

pytestmark = pytest.mark.slow

ALONE = Rank(0, 0, 1)
PLAIN = ("engine.stage=plain", "steps=4", "log_every=2", "checkpoint_minutes=0")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A run takes the cores that its machine's ranks leave it: here one, however many there are."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LOCAL_WORLD_SIZE", str(usable_cores()))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("plain")
    switches = ("overfit=1", "profile=1", "engine.peak_tflops=0.001", "model.loss.contrastive_pool=bank")
    config = tiny_run(folder / "run", *PLAIN, *switches, "model.loss.bank_negatives=4", "checkpoint_every=2")
    train(config, ALONE)
    return config


@pytest.fixture(scope="module")
def record(run: RunConfig) -> RunRecord:
    [found] = find_runs(run.tracking)
    return found


def test_a_run_records_where_its_time_and_memory_go(record: RunRecord) -> None:
    assert [step for step, _ in record.history["tokens_per_second"]] == [2, 4]
    for name in ("tokens_per_second", "frames_per_second", "memory_gib", "step_seconds", "gradient_norm", "mfu"):
        assert record.metrics[name] > 0, name
    for name in ("waiting_for_data_share", "outside_step_share", "contrastive_share"):
        assert 0 <= record.metrics[name] <= 1, name
    assert record.metrics["system/node-0/memory_percent"] > 0
    losses = {name for name in record.metrics if shown_name(name).startswith("Loss/")}
    assert losses == {"total", "cross_entropy", "mask_bce", "mask_dice", "contrastive"}


def test_mfu_is_model_flop_over_time_and_peak(run: RunConfig, record: RunRecord) -> None:
    tokenizer = Tokenizer(Path(run.model.tokenizer))
    empty = build_empty(run.model, tokenizer.vocab_size, tokenizer.seg_id)
    set_trainable(empty, run.trainable)
    seconds, tokens = record.metrics["step_seconds"], record.metrics["tokens_per_second"]
    videos = run.global_batch_size
    expressions = tokens * seconds / 300  # prompts of a few hundred tokens: only the order of size is asked for
    flop = step_cost(empty).model_flop(Load(videos, 4, 2, round(expressions), round(tokens * seconds), 0))
    assert record.metrics["mfu"] == pytest.approx(flop / (seconds * 0.001e12), rel=0.5)


def test_overfitting_shows_the_same_samples_again(run: RunConfig, record: RunRecord) -> None:
    plan = sample_plan(run)
    assert plan.global_batch(0) == plan.global_batch(1) == plan.global_batch(7)
    losses = [value for _, value in record.history["mask_bce"]]
    assert losses[-1] < losses[0]


def test_a_profile_is_left_to_look_at(run: RunConfig) -> None:
    folder = Path(run.out) / FOLDER
    assert json.loads((folder / TRACE).read_text(encoding="utf-8"))["traceEvents"]
    assert "aten::mm" in (folder / OPERATIONS).read_text(encoding="utf-8")


def test_the_bank_is_in_the_checkpoint(run: RunConfig) -> None:
    for step in (2, 4):
        folder = Path(run.out) / "checkpoints" / checkpoint.name_of(step)
        assert (folder / checkpoint.CONTRAST / "rank-00000.safetensors").is_file()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_samples(
    tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tiny_run(tmp_path / "run", *PLAIN, "optimizer.learning_rate=1e30", "optimizer.warmup_steps=0")
    with pytest.raises(TrainingError, match=r"step 1: .*total.* is not finite; it came from \w+/train/") as error:
        train(config, ALONE)
    report = json.loads((tmp_path / "run" / FILE).read_text(encoding="utf-8"))
    assert report["step"] == 1 and report["figures"]["total"] in ("nan", "inf")
    assert all(sample.count("/") == 3 for each in report["micro_batches"] for sample in each["samples"])
    assert report["micro_batches"][0]["samples"][0] in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_gradient_alone_that_is_not_finite_names_all_samples_of_the_step(tmp_path: Path) -> None:
    read = Accumulated(micro_batches=[(torch.tensor(1.0), [f"a/train/v/{number}" for number in range(9)])])
    with pytest.raises(TrainingError, match="is of the gradient alone; .*a/train/v/0, .* and 3 more"):
        refuse_non_finite({"total": 1.0, "gradient_norm": float("inf")}, read, 7, ALONE, tmp_path)
    refuse_non_finite({"total": 1.0, "gradient_norm": 2.0}, read, 7, ALONE, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.learning_rate=0", "optimizer.learning_rate=0.0: it must be a number above 0"),
        ("optimizer.learning_rate=.nan", "optimizer.learning_rate=nan: it must be a number above 0"),
        ("optimizer.clip=-1", "optimizer.clip=-1.0: it must be a number from 0 up"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer.betas=.*: each must be from 0 to less than 1"),
        ("optimizer.factors={'*': -1}", r"optimizer.factors: \*: -1.0: it must be a number from 0 up"),
        ("engine.contrast_together=-1", "engine.contrast_together=-1: it must be at least 0"),
        ("overfit=-1", "overfit=-1: it must be at least 0"),
        ("model.loss.bank_negatives=512", "bank_negatives=512 of a bank of 512: it must be from 1 to less"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_read(
    tiny_run: Callable[..., RunConfig], tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(Exception, match=message):
        tiny_run(tmp_path / "run", change)


def test_the_plain_engine_is_for_one_process_in_full_precision(
    tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tiny_run(tmp_path / "run", *PLAIN, "engine.precision=bf16")
    with pytest.raises(TrainingError, match="engine.stage=plain is one process in fp32, here 1 ranks in bf16"):
        train(config, ALONE)


def test_a_plain_run_that_stopped_goes_on_as_one_that_never_did(
    tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    finished = train(tiny_run(tmp_path / "a" / "run", *PLAIN, "checkpoint_every=2"), ALONE)
    resumed = tmp_path / "b" / "run"
    shutil.copytree(tmp_path / "a" / "run", resumed)
    shutil.rmtree(resumed / "checkpoints" / finished.name)
    (resumed / "checkpoints" / "latest").write_text(checkpoint.name_of(2), encoding="utf-8")
    config = tiny_run(resumed, *PLAIN, "checkpoint_every=2", f"tracking.uri=sqlite:///{tmp_path}/a/mlflow.db")
    again = train(config, ALONE)
    one, other = (load_file(path / checkpoint.WEIGHTS) for path in (finished, again))
    assert all(torch.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('trainable=["segmentor.*"]', r"trainable: 'segmentor\.\*' matches no parameter; there are "),
        ("tracking.uri=http://127.0.0.1:9", "no MLflow server can be reached at http://127.0.0.1:9"),
        ("tracking.uri=mlflow.db", "tracking.uri='mlflow.db' is no place for MLflow records"),
        ("global_batch_size=3", "global_batch_size 3 does not divide into micro-batches of 2 on 1 ranks"),
    ],
)
def test_what_cannot_work_is_told_before_weights_are_read(
    run: RunConfig, tiny_run: Callable[..., RunConfig], tmp_path: Path, change: str, message: str
) -> None:
    start = tmp_path / "start"
    shutil.copytree(Path(run.out) / "checkpoints" / checkpoint.name_of(4), start)
    (start / checkpoint.WEIGHTS).write_bytes(b"nothing that could be read")
    config = tiny_run(tmp_path / "run", *PLAIN, f"init_from={start}", change)
    with pytest.raises((ModelError, TrainingError), match=message):
        train(config, ALONE)


def test_deterministic_runs_have_equal_bits(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        path = train(tiny_run(tmp_path / name, "steps=2", "engine.deterministic=true"), Rank(0, 0, 1))
        weights.append((path / checkpoint.WEIGHTS).read_bytes())
        assert not torch.are_deterministic_algorithms_enabled()
    assert weights[0] == weights[1]
