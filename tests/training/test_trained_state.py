"""Checkpoints of what is trained: frozen weights lie once next to a run's checkpoints, and in none of them."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from glus.common.errors import TrainingError
from glus.evaluation.predict.model_source import ModelSource
from glus.launch.commands.export import ExportConfig, export
from glus.model.released.safetensors_file import save_tensors
from glus.training.build import build_for_training, build_from_checkpoint
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.base_weights import remove_unneeded
from glus.training.checkpoints.integrity import check_model_files, digest_of_weights, find_corruption, note_digests
from glus.training.checkpoints.resuming import choose_checkpoint
from glus.training.distributed import Rank
from glus.training.run_config import KeepConfig, RunConfig
from glus.training.train import train

ALONE = Rank(0, 0, 1)
TRAINED = ("lora_", "language.mm_projector.", "segmenter.sam2.sam_mask_decoder.")
TABLE = 'trainable=["*lora_*", "language.mm_projector.*", "segmenter.sam2.sam_mask_decoder.*"]'
CHANGES = ("steps=4", "checkpoint_every=2", TABLE, "model.segmenter.train_image_encoder=false")


@pytest.fixture(scope="module", params=["3", "2", "plain"])
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(stage: str, tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of four steps that trains a small part, with a checkpoint after the second and the fourth."""
    config = tiny_run(tmp_path_factory.mktemp("trained") / "run", *CHANGES, f"engine.stage={stage}")
    train(config, ALONE)
    return config


def base_of(config: RunConfig) -> Path:
    """The folder of its only base."""
    [base] = (Path(config.out) / "checkpoints").glob("base-*")
    return base


def complete(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint and its base, by safetensors' own functions."""
    [base] = path.parent.glob("base-*")
    return load_file(base / checkpoint.WEIGHTS) | load_file(path / checkpoint.WEIGHTS)


def written_before(path: Path) -> None:
    """Make a checkpoint one of the form that was written before there were bases."""
    weights = complete(path)
    state = json.loads((path / checkpoint.RUN).read_text(encoding="utf-8"))
    assert state.pop("base") and state.pop("base_bytes") and state["format"] == 2
    save_tensors(weights, path / checkpoint.WEIGHTS)
    (path / checkpoint.RUN).write_text(json.dumps(state | {"format": 1}), encoding="utf-8")
    note_digests(path, 0)


def test_a_checkpoint_holds_what_is_trained_and_the_base_the_rest(trained: RunConfig) -> None:
    folder = Path(trained.out) / "checkpoints"
    base = base_of(trained)
    assert sorted(path.name for path in folder.iterdir()) == [base.name, "latest", "step-000002", "step-000004"]
    parameters = dict(build_for_training(trained, with_weights=False).model.named_parameters())
    frozen = load_file(base / checkpoint.WEIGHTS)
    assert frozen.keys() == {name for name, each in parameters.items() if not each.requires_grad}
    for path in (folder / "step-000002", folder / "step-000004"):
        own = load_file(path / checkpoint.WEIGHTS)
        assert own.keys() & parameters.keys() == parameters.keys() - frozen.keys()
        state = checkpoint.read_state(path)
        assert state.base.startswith(base.name.removeprefix("base-")) and len(state.base) == 64
        assert "adapter" in os.listdir(path)


def test_the_engine_s_state_holds_no_frozen_weights(trained: RunConfig, stage: str) -> None:
    """At most weight, master and two moments of each trained element, and what DeepSpeed says of itself."""
    path = checkpoint.resolve(Path(trained.out))
    parameters = list(build_for_training(trained, with_weights=False).model.parameters())
    elements = sum(each.numel() for each in parameters if each.requires_grad)
    frozen = sum(each.numel() for each in parameters) - elements
    size = sum(file.stat().st_size for file in (path / checkpoint.ENGINE).rglob("*") if file.is_file())
    noted = 600_000 if stage != "plain" else 200_000
    assert size < 16 * elements + noted < 16 * elements + 4 * frozen


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(trained: RunConfig, half_way: RunConfig) -> None:
    before = base_of(half_way).stat().st_mtime_ns, (base_of(half_way) / checkpoint.WEIGHTS).stat().st_ino
    again = complete(train(half_way, ALONE))
    wanted = complete(checkpoint.resolve(Path(trained.out)))
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)
    assert before == (base_of(half_way).stat().st_mtime_ns, (base_of(half_way) / checkpoint.WEIGHTS).stat().st_ino)


def test_a_checkpoint_of_the_form_before_bases_goes_on_too(trained: RunConfig, half_way: RunConfig) -> None:
    written_before(Path(half_way.out) / "checkpoints" / "step-000002")
    shutil.rmtree(base_of(half_way))
    again = complete(train(half_way, ALONE))
    wanted = complete(checkpoint.resolve(Path(trained.out)))
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)
    # It stays complete, and the next one has a base.
    folder = Path(half_way.out) / "checkpoints"
    assert not checkpoint.read_state(folder / "step-000002").base and checkpoint.read_state(folder / "step-000004").base


class TestOnOneEngine:
    """What does not depend on the engine."""

    @pytest.fixture(autouse=True)
    def of_zero_3(self, stage: str) -> None:
        if stage != "3":
            pytest.skip("the same for all engines")

    def test_predicting_exporting_and_starting_read_both_forms(self, trained: RunConfig, tmp_path: Path) -> None:
        shutil.copytree(Path(trained.out) / "checkpoints", tmp_path / "old")
        new, old = checkpoint.resolve(Path(trained.out)), tmp_path / "old" / "step-000004"
        written_before(old)
        wanted = load_file(old / checkpoint.WEIGHTS)
        shutil.rmtree(next((tmp_path / "old").glob("base-*")))
        for path in (new, old):
            model, _, _ = build_from_checkpoint(path)
            started = build_for_training(replace(trained, init_from=str(path), out=str(tmp_path / "next"))).model
            for found in (model.state_dict(), started.state_dict()):
                assert all(torch.equal(found[name], each) for name, each in wanted.items())
            export(ExportConfig(path, tmp_path / f"release of {path.parent.name}"))
        releases = [tmp_path / f"release of {path.parent.name}" for path in (new, old)]
        files = [sorted(file.relative_to(each) for file in each.rglob("*.bin")) for each in releases]
        assert files[0] == files[1] and len(files[0]) > 1
        for name in files[0]:
            one, other = (torch.load(each / name, weights_only=True) for each in releases)
            assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)

    def test_the_digest_of_weights_covers_the_base(self, half_way: RunConfig) -> None:
        path = checkpoint.resolve(Path(half_way.out))
        digest = digest_of_weights(path)
        assert ModelSource.find(path).digest() == digest
        state = json.loads((path / checkpoint.RUN).read_text(encoding="utf-8"))
        state["base"] = "0" * 64
        (path / checkpoint.RUN).write_text(json.dumps(state), encoding="utf-8")
        assert digest_of_weights(path) != digest

    def test_a_checkpoint_that_was_copied_away_alone_says_what_is_missing(
        self, trained: RunConfig, tmp_path: Path
    ) -> None:
        path = checkpoint.resolve(Path(trained.out))
        alone = tmp_path / "away" / path.name
        shutil.copytree(path, alone)
        name = base_of(trained).name
        message = rf"step-000004 holds only what was trained; .*away/{name}/model\.safetensors, are not there: copy the"
        for read in (build_from_checkpoint, ModelSource.find, check_model_files):
            with pytest.raises(TrainingError, match=message):
                read(alone)
        with pytest.raises(TrainingError, match=message):
            build_for_training(replace(trained, init_from=str(alone), out=str(tmp_path / "next")))
        shutil.copytree(base_of(trained), alone.parent / name)
        build_from_checkpoint(alone)
        linked = tmp_path / "linked"
        linked.symlink_to(path)
        build_from_checkpoint(linked)

    @pytest.mark.parametrize("fault", ["gone", "cut", "other bytes"])
    def test_a_base_that_cannot_be_used_is_named(self, half_way: RunConfig, fault: str) -> None:
        base = base_of(half_way)
        file = base / checkpoint.WEIGHTS
        if fault == "gone":
            shutil.rmtree(base)
            message = rf"frozen weights, .*{base.name}/model\.safetensors, are not there: copy the folder {base.name}"
        elif fault == "cut":
            os.truncate(file, file.stat().st_size - 4)
            message = rf"{base.name}/model\.safetensors has \d+ bytes of \d+: .*copy {base.name} again"
        else:  # of the same size: of another run, say
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
            message = rf"{base.name}/model\.safetensors does not hold what was written .*copy {base.name} again"
        with pytest.raises(TrainingError, match=f"no intact checkpoint in .*{message}.*; restore one, or train into"):
            train(half_way, ALONE)
        with pytest.raises(TrainingError, match=message):
            ModelSource.find(half_way.out).digest()

    def test_other_ranks_see_a_missing_base_too(self, half_way: RunConfig) -> None:
        path = checkpoint.resolve(Path(half_way.out))
        assert find_corruption(path, 1, 2) == ""
        shutil.rmtree(base_of(half_way))
        assert "are not there: copy the folder" in find_corruption(path, 1, 2)

    def test_other_frozen_weights_get_a_base_of_their_own(self, half_way: RunConfig) -> None:
        former = base_of(half_way)
        fewer = replace(half_way, trainable=("*lora_*", "segmenter.sam2.sam_mask_decoder.*"))
        shutil.rmtree(checkpoint.resolve(Path(half_way.out)) / checkpoint.ENGINE)  # of what was trained then
        path = checkpoint.resolve(Path(half_way.out))
        start = replace(fewer, out=str(Path(half_way.out).with_name("start")), init_from=str(path), steps=0)
        before = complete(path)
        newest = train(start, ALONE)
        base = base_of(start)
        assert base.name != former.name
        assert {name for name in load_file(base / checkpoint.WEIGHTS) if "mm_projector" in name}
        after = complete(newest)
        assert all(torch.equal(after[name], before[name]) for name in before)

    def test_a_base_that_vanishes_while_a_run_goes_on_is_written_again(
        self, half_way: RunConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import glus.training.train as training

        load = training._load_state

        def lose(*words: object) -> int:
            step = load(*words)  # type: ignore[arg-type]
            shutil.rmtree(base_of(half_way))
            return step

        monkeypatch.setattr(training, "_load_state", lose)
        assert find_corruption(train(half_way, ALONE)) == ""

    def test_a_base_stays_as_long_as_a_checkpoint_names_it(self, half_way: RunConfig) -> None:
        folder, base = Path(half_way.out) / "checkpoints", base_of(half_way)
        (folder / "base-0123456789abcdef").mkdir()
        state = folder / "step-000002" / checkpoint.RUN
        content = state.read_text(encoding="utf-8")
        state.write_text("{", encoding="utf-8")
        assert remove_unneeded(folder) == []  # nobody knows what it needs
        state.write_text(content, encoding="utf-8")
        assert remove_unneeded(folder) == ["base-0123456789abcdef"]
        assert find_corruption(folder / "step-000002") == ""
        written_before(folder / "step-000002")
        assert remove_unneeded(folder) == [base.name]
        assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-000002"]

    def test_keeping_removes_checkpoints_and_not_their_base(self, half_way: RunConfig) -> None:
        kept = replace(half_way, keep=KeepConfig(last=1), steps=3)
        newest = train(kept, ALONE)
        folder = Path(kept.out) / "checkpoints"
        assert sorted(path.name for path in folder.iterdir()) == [base_of(kept).name, "latest", "step-000003"]
        assert find_corruption(newest) == "" and choose_checkpoint(folder, ALONE) == newest

    @pytest.mark.parametrize("base", ["../../etc", "0" * 63, "G" * 64])
    def test_a_name_that_is_no_digest_is_refused(self, half_way: RunConfig, base: str) -> None:
        file = checkpoint.resolve(Path(half_way.out)) / checkpoint.RUN
        state = json.loads(file.read_text(encoding="utf-8"))
        for changes in ({"base": base}, {"base": "", "format": 2}, {"format": 1}):
            file.write_text(json.dumps(state | changes), encoding="utf-8")
            with pytest.raises(TrainingError, match="is no digest; use another checkpoint"):
                checkpoint.read_state(file.parent)


def test_a_checkpoint_without_a_base_has_the_form_that_earlier_versions_read() -> None:
    state = checkpoint.RunState(3, 0, "data", "run", "code", 1)
    known = {"step", "seed", "data_fingerprint", "tracking_run", "code_version", "ranks", "loss", "written", "format"}
    assert state.fields.keys() == known and state.fields["format"] == 1
    assert asdict(state).keys() - known == {"base", "base_bytes"}
