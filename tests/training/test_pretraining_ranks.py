"""Pretraining stages under ZeRO-3: two gloo ranks train as one process does, with unlike batches, and resume.

A GLUS then starts from such a checkpoint without the heads of its losses.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from glus.data_pipeline.batches.batch import Batch
from glus.training.build import build_for_training
from glus.training.checkpoints import checkpoint
from glus.training.run_config import RunConfig

from .rank_story import (
    RESUMED,
    Story,
    assert_as_alone,
    assert_resumed,
    assert_unlike_go_on,
    in_one_process,
    of_two_ranks,
)

pytestmark = [pytest.mark.timeout(900), pytest.mark.ranks]

HEADS = (
    "model.method=pretraining",
    "model.vision.pool=1",
    "model.stand_ins.attributes=[5, 6]",
    "model.stand_ins.place_cells=4",
    "sampling.attributes={motion: [left, right, up|upwards, down|downwards, still|stays|not],"
    " colour: [red, green, blue, yellow, purple, orange]}",
    "model.loss.contrastive=0",
)
#: All losses at once; and a stage that runs the vision tower alone.
EVERYTHING = (
    *HEADS,
    *("model.stand_ins.place=1", "model.stand_ins.tower=1", "model.stand_ins.language=1"),
    "engine.gradient_checkpointing=true",
)
TOWER = (
    *HEADS,
    "model.stand_ins.tower=1",
    *("model.loss.cross_entropy=0", "model.loss.mask_bce=0", "model.loss.mask_dice=0"),
    'trainable=["language.vision_tower.*", "stand_ins.tower.*"]',
)
#: And one whose loss is taken between the layers of the language model.
LANGUAGE = (
    *HEADS,
    *("model.stand_ins.language=1", "model.stand_ins.language_layer=1"),
    *("model.loss.cross_entropy=0", "model.loss.mask_bce=0", "model.loss.mask_dice=0"),
    'trainable=["language.llama.model.layers.0.*", "language.vision_tower.*", "stand_ins.language.*"]',
)


def without_words(batch: Batch) -> Batch:
    """The same batch, nothing of whose objects is known."""
    return replace(batch, attributes=[torch.full_like(each, -1) for each in batch.attributes])


@pytest.fixture(scope="module")
def story(tiny_demo: Path, tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("pretraining_ranks")
    stages = {"all": EVERYTHING, "tower": TOWER, "language": LANGUAGE}
    configs = {name: tiny_run(folder / "unused", *words) for name, words in stages.items()}
    return of_two_ranks(folder, configs, tiny_run(folder / "run", *EVERYTHING, *RESUMED), "all", without_words)


@pytest.mark.parametrize(
    ("which", "losses"),
    [
        ("all", {"words_of_tower", "words_of_language", "place", "cross_entropy", "mask_bce", "mask_dice"}),
        ("tower", {"words_of_tower"}),
        ("language", {"words_of_language"}),
    ],
)
def test_two_ranks_train_as_one_plain_process_does(story: Story, which: str, losses: set[str], tmp_path: Path) -> None:
    assert_as_alone(story, which, *in_one_process(story.configs[which], tmp_path), losses)


@pytest.mark.parametrize(
    ("which", "parts"),
    [
        ("tower", ("language.vision_tower.", "stand_ins.tower.")),
        ("language", ("language.llama.model.layers.0.", "language.vision_tower.", "stand_ins.language.")),
    ],
)
def test_a_stage_changes_what_it_names_and_nothing_else(story: Story, which: str, parts: tuple[str, ...]) -> None:
    before, after = story.weights(which, "before"), story.weights(which, "after")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(story.ranks[0][which]["trained"])
    assert all(name.startswith(parts) for name in moved) and all(any(part in name for name in moved) for part in parts)


def test_ranks_with_unlike_batches_go_on_together(story: Story) -> None:
    assert_unlike_go_on(story)


def test_a_resumed_run_ends_with_the_bits_of_one_that_never_stopped(story: Story) -> None:
    assert_resumed(story)


def test_a_glus_starts_from_it_without_its_heads_and_it_from_a_glus(
    story: Story, tiny_run: Callable[..., RunConfig], tmp_path: Path
) -> None:
    start = f"init_from={story.run.out}"
    built = build_for_training(tiny_run(tmp_path / "glus", start, "model.vision.pool=1", "model.tokenizer="))
    theirs = load_file(checkpoint.resolve(Path(story.run.out)) / checkpoint.WEIGHTS)
    own = built.model.state_dict()
    assert own.keys() == {name for name in theirs if not name.startswith("stand_ins.")}
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    assert any("all taken but stand_ins.*" in note for note in built.notes)
