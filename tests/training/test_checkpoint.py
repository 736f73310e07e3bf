"""Checkpoints: whole or not there, `latest` moves last, and a run goes on only with what it began with."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from glus.common.errors import TrainingError
from glus.training.build import build_for_training
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.integrity import find_corruption, note_digests
from glus.training.distributed import Rank
from glus.training.engines.choose import joined, make_engine
from glus.training.run_config import RunConfig
from glus.training.train import train

ALONE = Rank(0, 0, 1)
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def trained(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of four steps, with a checkpoint after the second and the fourth."""
    config = tiny_run(tmp_path_factory.mktemp("trained") / "run", "steps=4", "checkpoint_every=2")
    train(config, ALONE)
    return config


def test_latest_names_the_newest_and_nothing_half_written_is_left(trained: RunConfig) -> None:
    folder = Path(trained.out) / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-000002", "step-000004"]
    newest = checkpoint.resolve(Path(trained.out))
    assert newest == folder / "step-000004" == checkpoint.resolve(newest)
    state = checkpoint.read_state(newest)
    assert (state.step, state.seed, state.ranks) == (4, trained.seed, 1)
    files = {"model.safetensors", "run.json", "config.json", "tokenizer", "engine", "digests", "adapter"}
    assert set(os.listdir(newest)) == files
    assert checkpoint.read_config(newest)["model"]["language"]["hidden_size"] == 32


def test_the_pointer_moves_after_the_checkpoint_has_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    first = checkpoint.aside(folder, 1)
    (first / "run.json").write_text("{}", encoding="utf-8")
    checkpoint.publish(first, folder, 1)
    second = checkpoint.aside(folder, 2)
    # Stopped here, in the middle of the second: the first is still the newest.
    assert checkpoint.find_latest(folder) == folder / "step-000001"
    third = checkpoint.aside(folder, 3)
    assert third.is_dir() and not second.exists()


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(trained: RunConfig, half_way: RunConfig) -> None:
    again = load_file(train(half_way, ALONE) / "model.safetensors")
    whole = load_file(checkpoint.resolve(Path(trained.out)) / "model.safetensors")
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_run_that_is_done_is_left_as_it_is(trained: RunConfig) -> None:
    before = (Path(trained.out) / "checkpoints" / "step-000004").stat().st_mtime_ns
    assert train(trained, ALONE).name == "step-000004"
    assert (Path(trained.out) / "checkpoints" / "step-000004").stat().st_mtime_ns == before


def _cut(name: str) -> Change:
    def change(newest: Path) -> None:
        [file] = newest.glob(name)
        os.truncate(file, file.stat().st_size // 2)

    return change


def _forget(name: str) -> Change:
    def change(newest: Path) -> None:
        path = newest / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def _state(**fields: object) -> Change:
    def change(newest: Path) -> None:
        state = json.loads((newest / "run.json").read_text(encoding="utf-8"))
        (newest / "run.json").write_text(json.dumps(state | fields), encoding="utf-8")
        note_digests(newest, 0)

    return change


def _flip(name: str) -> Change:
    def change(newest: Path) -> None:
        [file] = newest.glob(name)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    return change


BROKEN = [
    (_forget("run.json"), r"step-000002 holds no run\.json"),
    (_cut("run.json"), r"run\.json: broken JSON at .* use another checkpoint"),
    (_state(colour="red"), r"run\.json: colour: unknown key; use another checkpoint"),
    (_state(step=None), r"run\.json: step: Input should be a valid integer; use another checkpoint"),
    (_state(format=9, colour="red"), r"has format 9, this code reads 1 and 2: use the version that wrote it"),
    (_cut("model.safetensors"), r"model\.safetensors has \d+ bytes of \d+"),
    (_forget("model.safetensors"), r"No such file or directory: .*model\.safetensors"),
    (_flip("model.safetensors"), r"model\.safetensors does not hold what was written"),
    (_cut("engine/state/*optim_states.pt"), r"optim_states\.pt has \d+ bytes of \d+"),
    (_flip("engine/state/*optim_states.pt"), r"optim_states\.pt does not hold what was written"),
    (_forget("engine"), r"No such file or directory: .*engine"),
    (_forget("digests"), r"digests/rank-0000\.json: no such note of digests"),
    (_cut("digests/rank-0000.json"), r"rank-0000\.json: broken JSON"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_checkpoint_is_told(half_way: RunConfig, change: Change, message: str) -> None:
    folder = Path(half_way.out) / "checkpoints"
    change(folder / "step-000002")
    with pytest.raises(TrainingError, match=f"no intact checkpoint in {folder}: .*{message}.*; restore one, or train"):
        train(half_way, ALONE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _state(data_fingerprint="0123"),
            r"was trained on other shards or labels \(0123, now .*\): restore them, or train into",
        ),
        (_state(seed=7), r"was begun with seed 7, now seed 0: use the same"),
    ],
)
def test_a_run_goes_on_only_with_what_it_began_with(half_way: RunConfig, change: Change, message: str) -> None:
    change(Path(half_way.out) / "checkpoints" / "step-000002")
    with pytest.raises(TrainingError, match=message):
        train(half_way, ALONE)


def test_a_pointer_to_nothing_is_told(half_way: RunConfig) -> None:
    shutil.rmtree(Path(half_way.out) / "checkpoints" / "step-000002")
    with pytest.raises(TrainingError, match=r"latest names step-000002, which is not there: restore it"):
        train(half_way, ALONE)


def test_a_broken_newest_one_falls_back_to_the_one_before_it(
    trained: RunConfig, half_way: RunConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(half_way.out) / "checkpoints"
    shutil.copytree(Path(trained.out) / "checkpoints" / "step-000004", folder / "step-000004")
    (folder / "latest").write_text("step-000004", encoding="utf-8")
    _flip("model.safetensors")(folder / "step-000004")
    longer = replace(half_way, steps=5)  # of which step 4 is there, but broken
    assert train(longer, ALONE) == folder / "step-000005"
    told = capfd.readouterr()
    assert "WARNING: step-000004 cannot be used: " in told.err and "does not hold what was written" in told.err
    assert "WARNING: going on from step-000002 instead" in told.out
    # It was trained again, and is whole.
    assert find_corruption(folder / "step-000004") == ""
    assert not list(folder.glob(".*"))


def test_a_run_does_not_go_on_with_another_model_size(half_way: RunConfig) -> None:
    language = replace(half_way.model.language, intermediate_size=48)
    other = replace(half_way, model=replace(half_way.model, language=language))
    with pytest.raises(TrainingError, match=r"of another model size: 6 shapes differ, first language\.llama.*"):
        train(other, ALONE)


def test_a_new_run_does_not_start_from_another_model(trained: RunConfig, tmp_path: Path) -> None:
    language = replace(trained.model.language, layers=1)
    smaller = replace(
        trained, out=str(tmp_path / "new"), init_from=trained.out, model=replace(trained.model, language=language)
    )
    with pytest.raises(TrainingError, match=r"of another model: 0 parameters are missing .* are unknown"):
        train(smaller, ALONE)
    with pytest.raises(TrainingError, match="holds no checkpoint: name a run folder"):
        train(replace(smaller, init_from=str(tmp_path)), ALONE)


def test_a_new_run_starts_from_the_weights_of_another(trained: RunConfig, tmp_path: Path) -> None:
    still = replace(trained, out=str(tmp_path / "new"), init_from=trained.out, seed=3, steps=0)
    new = load_file(train(still, ALONE) / "model.safetensors")
    old = load_file(checkpoint.resolve(Path(trained.out)) / "model.safetensors")
    assert all(torch.equal(new[name], old[name]) for name in old)


@pytest.mark.parametrize("room", ["not for the weights", "not for the optimiser"])
def test_a_full_disk_leaves_the_earlier_checkpoint(half_way: RunConfig, small_disk: Path, room: str) -> None:
    out = small_disk / "run"
    shutil.copytree(half_way.out, out)
    weights = (out / "checkpoints" / "step-000002" / "model.safetensors").stat().st_size
    free = shutil.disk_usage(small_disk).free
    left = weights // 2 if room == "not for the weights" else weights * 3 // 2
    (small_disk / "ballast").write_bytes(bytes(free - left))
    with pytest.raises(TrainingError, match="could not be written|cannot be written") as error:
        train(replace(half_way, out=str(out)), ALONE)
    assert "free some room" in str(error.value) and len(str(error.value).splitlines()) == 1
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["latest", "step-000002"]
    # With room again the run goes on from what was kept.
    (small_disk / "ballast").unlink()
    assert train(replace(half_way, out=str(out)), ALONE).name == "step-000004"


@pytest.mark.parametrize(("call", "arguments"), [("save", ()), ("load", (1,))])
def test_a_lost_rank_is_no_fault_of_the_disk_or_the_checkpoint(
    half_way: RunConfig, monkeypatch: pytest.MonkeyPatch, call: str, arguments: tuple[int, ...]
) -> None:
    def lose(*_: object, **__: object) -> None:
        raise RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1")

    with joined(half_way, ALONE):
        engine = make_engine(half_way, build_for_training(half_way).model, ALONE)
        monkeypatch.setattr(engine._engine, f"{call}_checkpoint", lose)
        with pytest.raises(RuntimeError, match="gloo"):
            getattr(engine, call)(checkpoint.resolve(Path(half_way.out)) / checkpoint.ENGINE, *arguments)
        engine.close()
