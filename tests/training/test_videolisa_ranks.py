"""VideoLISA under ZeRO-3: two gloo ranks with Phi-3 and SAM 1 train as one process does, go on, and resume."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplePlan
from glus.data_pipeline.shards.reader import open_splits
from glus.training.run_config import RunConfig
from tests.tiny_videolisa_run import VIDEOLISA

from .rank_story import (
    COMPARED,
    RESUMED,
    Story,
    assert_as_alone,
    assert_resumed,
    assert_unlike_go_on,
    in_one_process,
    of_two_ranks,
)
from .test_zero3 import Steps

pytestmark = [pytest.mark.timeout(900), pytest.mark.ranks]


def one_without_seg(batch: Batch, seg_id: int) -> Batch:
    """One expression of one video, and no [SEG] in its answer, as of a picture without a target."""
    [masks] = batch.masks
    first = {name: getattr(batch, name)[:1] for name in ("video_of", "attention", "answer", "names", "split")}
    first |= {name: getattr(batch, name)[:1] for name in ("video_key", "expression", "objects")}
    ids = torch.where(batch.ids == seg_id, 5, batch.ids)[:1]
    return replace(batch, ids=ids, masks=[MaskRuns.of(masks.painted()[:1])], **first)


@pytest.fixture(scope="module")
def story(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("videolisa_ranks")
    shared = tiny_run(folder / "unused", *VIDEOLISA, "engine.gradient_checkpointing=true")
    prompt_by_prompt = replace(shared, model=replace(shared.model, share_video_tokens=False))
    configs = {"shared": shared, "prompt_by_prompt": prompt_by_prompt}
    run = tiny_run(folder / "run", *VIDEOLISA, *RESUMED)
    seg_id = Tokenizer(Path(run.model.tokenizer)).seg_id
    return of_two_ranks(folder, configs, run, "shared", partial(one_without_seg, seg_id=seg_id))


@pytest.fixture(scope="module")
def alone(story: Story, tmp_path_factory: pytest.TempPathFactory) -> tuple[Steps, dict[str, Tensor]]:
    """The compared steps in one process, each prompt read from its first token, activations kept."""
    return in_one_process(story.configs["prompt_by_prompt"], tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("which", ["shared", "prompt_by_prompt"])
def test_two_ranks_train_as_one_plain_process_does(story, alone, which):
    """With the shared prefix too: it is switched off in the one process."""
    assert_as_alone(story, which, *alone, {"cross_entropy", "mask_bce", "mask_dice"})


def test_the_compared_batches_have_a_beginning_to_share(tiny_run, tmp_path):
    config = tiny_run(tmp_path / "run", *VIDEOLISA)
    splits = open_splits(Path(config.shards), list(config.sampling.mixture))
    plan = SamplePlan(splits, config.sampling, config.seed, config.global_batch_size)
    slots = [slot for step in range(COMPARED) for slot in plan.global_batch(step)]
    assert sum(len(slot.expressions) > 1 for slot in slots) > len(slots) / 2


def test_what_is_trained_changes_and_the_projector_does_not(story):
    trained = set(story.ranks[0]["shared"]["trained"])
    before, after = story.weights("shared", "before"), story.weights("shared", "after")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= trained and not any("mm_projector" in name for name in changed)
    # A bias of keys moves all scores of a query alike, which softmax takes out.
    assert all(name.endswith("k_proj.bias") for name in trained - changed)
    assert any("qkv_proj.lora_B" in name for name in changed)


def test_ranks_of_which_one_has_no_seg_go_on_together(story):
    """It reads one prompt as it is, the other rank a packed row of four."""
    assert_unlike_go_on(story)


def test_a_resumed_run_ends_as_one_that_never_stopped(story):
    assert_resumed(story, atol=1e-6)
