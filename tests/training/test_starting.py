"""A model that is read and drawn one parameter at a time starts with the values of one that is built complete."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from glus.model.released.late_values import LEAST
from glus.training.build import Built, build_for_training, build_model
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.engines.choose import joined, make_engine
from glus.training.engines.scatter import scatter
from glus.training.run_config import RunConfig
from tests.model.reference import NANO
from tests.model.releases import write_clip, write_glus, write_lisa, write_sam2
from tests.training.test_released import run as released_run
from tests.untrained import SELECTOR, write_checkpoint

pytestmark = pytest.mark.slow
ALONE = Rank(0, 0, 1)


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


def assert_same(late: Built, complete: Built) -> None:
    """`late` holds no large parameter but what SAM 2 copies or reads as it is built, and becomes `complete`."""
    assert late.values is not None and complete.values is None
    held = {name: each.numel() for name, each in late.model.named_parameters() if not each.is_meta}
    empty = [each for each in late.model.parameters() if each.is_meta]
    assert all(size < LEAST or name.startswith("segmenter.") for name, size in held.items())
    assert empty and late.notes == complete.notes and late.trainable == complete.trainable
    late.values.fill_model(late.model)
    one, other = values_of(late.model), values_of(complete.model)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert [each.requires_grad for each in late.model.parameters()] == [
        each.requires_grad for each in complete.model.parameters()
    ]


@pytest.fixture(scope="module")
def start(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GLUS's checkpoint that was drawn with another seed than runs here have."""
    return write_checkpoint(tiny_demo, tmp_path_factory.mktemp("start") / "run", seed=5)


def test_a_fresh_model_is_the_one_that_torch_draws(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = tiny_run(tmp_path / "run", "model.language.hidden_size=64", "seed=4")
    late, complete = build_for_training(config, late=True), build_for_training(config)
    drawn = values_of(build_model(config.model, complete.tokenizer, 4))
    assert all(torch.equal(each, drawn[name]) for name, each in values_of(complete.model).items())
    assert_same(late, complete)


@pytest.mark.parametrize("method", ["glus", "selector"])
def test_a_checkpoint_is_read_one_parameter_at_a_time(
    tiny_run: Callable[..., RunConfig], start: Path, tmp_path: Path, method: str
) -> None:
    changes = SELECTOR if method == "selector" else ()
    config = tiny_run(tmp_path / "run", f"init_from={start}", *changes)
    complete = build_for_training(config)
    assert_same(build_for_training(config, late=True), complete)
    if method == "glus":
        assert_same(build_for_training(config, start, late=True), build_for_training(config, start))
    stored = values_of(build_for_training(tiny_run(tmp_path / "other", f"init_from={start}")).model)
    own = values_of(complete.model)
    assert all(torch.equal(own[name], stored[name]) for name in own if name.startswith("language."))


@pytest.mark.parametrize("parts", ["complete", "language, tower and segmenter", "language"])
def test_a_release_is_read_one_parameter_at_a_time(tmp_path: Path, parts: str) -> None:
    write_clip(tmp_path / "clip")
    if parts == "complete":
        write_glus(tmp_path / "glus")
        config = released_run(NANO, glus=tmp_path / "glus", vision=tmp_path / "clip")
    else:
        write_lisa(tmp_path / "lisa")
        write_sam2(tmp_path / "sam2.pt")
        others = {"vision": tmp_path / "clip", "segmenter": tmp_path / "sam2.pt"} if "tower" in parts else {}
        config = released_run(NANO, language=tmp_path / "lisa", **others)
    assert_same(build_for_training(config, late=True), build_for_training(config))


@pytest.mark.parametrize("stage", ["3", "plain"])
def test_an_engine_gets_each_parameter_when_it_is_its_turn(
    tiny_run: Callable[..., RunConfig], tmp_path: Path, stage: str
) -> None:
    config = tiny_run(tmp_path / "run", f"engine.stage={stage}", "model.language.tie_embeddings=true")
    wanted = values_of(build_for_training(config).model)
    late = build_for_training(config, late=True)
    with joined(config, ALONE):
        engine = make_engine(config, late.model, ALONE, late.values)
        found = engine.gather()
        engine.close()
    assert found.keys() < wanted.keys()
    assert all(torch.equal(each, wanted[name]) for name, each in found.items())


def test_rank_0_never_sends_what_nobody_made(tiny_run: Callable[..., RunConfig], tmp_path: Path) -> None:
    empty = build_for_training(tiny_run(tmp_path / "run"), with_weights=False).model
    with pytest.raises(KeyError):
        scatter(empty, ALONE, torch.float32, lambda parameter: None)


def test_predicting_reads_a_checkpoint_complete(start: Path) -> None:
    from glus.training.build import build_from_checkpoint

    torch.manual_seed(0)
    before = torch.get_rng_state()
    model, _, _ = build_from_checkpoint(checkpoint.resolve(start))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(each.is_meta for each in (*model.parameters(), *model.buffers()))
