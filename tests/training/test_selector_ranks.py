"""The key frame selector under ZeRO-3: two gloo ranks train as one process does, with unlike batches, and resume."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glus.data_pipeline.batches.batch import Batch
from glus.training.run_config import RunConfig
from tests.tiny_selector_run import OWN_TABLE, with_labels

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


def one_expression(batch: Batch) -> Batch:
    """The first expression alone."""
    names = ("video_of", "ids", "attention", "answer", "names", "split", "video_key", "expression", "objects", "score")
    return replace(batch, **{name: getattr(batch, name)[:1] for name in names})


@pytest.fixture(scope="module")
def story(tiny_demo: Path, tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("selector_ranks")
    selector = with_labels(tiny_demo, folder / "scores")
    everything = tiny_run(folder / "unused", *selector, "engine.gradient_checkpointing=true")
    configs = {"everything": everything, "table": tiny_run(folder / "unused", *selector, OWN_TABLE)}
    run = tiny_run(folder / "run", *selector, OWN_TABLE, *RESUMED)
    return of_two_ranks(folder, configs, run, "table", one_expression)


@pytest.mark.parametrize("which", ["everything", "table"])
def test_two_ranks_train_as_one_plain_process_does(story: Story, which: str, tmp_path: Path) -> None:
    """The ranks read the prompts of a video in one packed row, the one process each from its first token."""
    config = story.configs[which]
    config = replace(config, model=replace(config.model, share_video_tokens=False))
    assert_as_alone(story, which, *in_one_process(config, tmp_path), {"cross_entropy", "score_l1"})


def test_the_methods_own_table_is_trained_and_nothing_else(story: Story) -> None:
    trained = set(story.ranks[0]["table"]["trained"])
    before, after = story.weights("table", "before"), story.weights("table", "after")
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained
    wanted = ("lora_", "embed_tokens", "lm_head", "text_hidden_fcs", "score_head")
    assert all(any(part in name for part in wanted) for name in trained)
    assert all(any(part in name for name in trained) for part in wanted)


def test_ranks_with_unlike_batches_go_on_together(story: Story) -> None:
    assert_unlike_go_on(story)


def test_a_resumed_run_ends_with_the_bits_of_one_that_never_stopped(story: Story) -> None:
    assert_resumed(story)
