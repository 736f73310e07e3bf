"""A small VideoLISA trained, evaluated and asked about a video by the same commands as GLUS."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from glus.common.errors import EvaluationError
from glus.data_pipeline.sampling.sparse_dense import dense_frames, sparse_frames
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference import predict_video
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import Loaded, ModelSource
from glus.evaluation.predict.predictions import read_masks
from glus.evaluation.predict.video_masks import Asked, masks_of_video
from glus.launch import cli
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.train import train

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CHANGES = (
    "model.method=videolisa",
    "model.loss={contrastive: 0, mask_bce: 0, mask_dice: 4}",
    "sampling.frame_choice=sparse_dense",
    "sampling.context_frames=8",
    "sampling.query_frames=2",
    "sampling.prompts=videolisa_short",
    "optimizer.learning_rate=0.01",
    "steps=6",
)


@pytest.fixture(scope="module")
def run(tiny_run: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = tiny_run(tmp_path_factory.mktemp("videolisa") / "run", *CHANGES)
    train(config, Rank(0, 0, 1))
    return config


@pytest.fixture(scope="module")
def loaded(run: RunConfig) -> Loaded:
    return ModelSource.find(Path(run.out)).load(CPU)


@pytest.fixture
def split(tiny_demo: Path) -> ShardedSplit:
    return ShardedSplit.open(tiny_demo / "shards" / "mevis" / "valid_u")


def test_glus_evaluate_scores_it_and_records_what_was_asked(run: RunConfig, tmp_path: Path) -> None:
    words = ["evaluate", f"checkpoint={run.out}", f"shards={run.shards}", f"out={tmp_path}/eval", "processes=1"]
    assert cli.main([*words, "report=false"]) == 0
    kept = json.loads((tmp_path / "eval" / "predictions.json").read_text(encoding="utf-8"))
    asked = kept["inference"]
    assert (asked["method"], asked["prompts"]) == ("videolisa", "videolisa_short")
    assert (asked["sparse_frames"], asked["dense_frames"]) == (8, 2)
    assert kept["frames"] > 0 and kept["frames_without_seg"] == 0
    scores = json.loads((tmp_path / "eval" / "scores.json").read_text(encoding="utf-8"))
    assert {each["missing"] for each in scores["expressions"]} == {False}


def test_key_frames_end_an_evaluation_before_it_begins(
    run: RunConfig, split: ShardedSplit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [entry] = split.videos
    (tmp_path / "keys.json").write_text(json.dumps({f"{entry.video}_{entry.expressions[0].id}": entry.frame_names[2]}))
    words = ["evaluate", f"checkpoint={run.out}", f"shards={run.shards}", f"out={tmp_path}/eval", "processes=1"]
    assert cli.main([*words, f"inference.key_frames={tmp_path}/keys.json"]) == 2
    assert "VideoLISA segments each frame alone and has none; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "eval" / "predictions").exists()


def test_every_expression_gets_a_mask_for_every_frame(loaded: Loaded, split: ShardedSplit, tmp_path: Path) -> None:
    done = predict_video(loaded, split, 0, tmp_path, InferenceConfig(), None, CPU)
    [entry] = split.videos
    expressions, frames = len(entry.expressions), len(entry.frame_names)
    assert (done.expressions, done.frames, done.frames_without_seg) == (expressions, expressions * frames, 0)
    masks = np.array([read_masks(tmp_path, entry, expression) for expression in entry.expressions])
    assert 0 < masks.mean() < 1
    # One prompt an expression, whatever the frames, and the video's tokens once.
    shown = 8 + 2 * loaded.model.config.vision.tokens_per_frame
    assert done.tokens < 2 * shown + expressions * 40


def asked_about(loaded: Loaded, split: ShardedSplit, texts: list[str], keys: list[int]) -> dict[int, np.ndarray]:
    [entry] = split.videos
    read = lambda index: split.read_frames(0, [index])[0]  # noqa: E731
    asked = Asked(texts, [f"expression {number}" for number in range(len(texts))], keys)
    seen = masks_of_video(loaded, InferenceConfig(), read, len(entry.frame_names), asked, CPU)
    return {each.index: each.masks for each in seen}


def test_expressions_together_are_as_one_by_one(loaded: Loaded, split: ShardedSplit) -> None:
    texts = [expression.text for expression in split.videos[0].expressions][:3]
    together = asked_about(loaded, split, texts, [0] * len(texts))
    for number, text in enumerate(texts):
        alone = asked_about(loaded, split, [text], [0])
        assert all(np.array_equal(alone[index][0], together[index][number]) for index in together)


def test_a_key_frame_is_refused(loaded: Loaded, split: ShardedSplit) -> None:
    with pytest.raises(EvaluationError, match="has no key frame: leave the key frames out"):
        asked_about(loaded, split, ["the red circle"], [2])


def test_the_frames_shown_are_those_of_the_reference(loaded: Loaded, split: ShardedSplit) -> None:
    """What is asked equals asking the model itself with the frames of sparse_dense.py."""
    [entry] = split.videos
    frames = len(entry.frame_names)
    sparse = sparse_frames(frames, 8)
    picture = lambda index: torch.from_numpy(split.read_frames(0, [index])[0]).permute(2, 0, 1)  # noqa: E731
    ids = torch.tensor([loaded.tokenizer.encode("<image>the red circle[SEG].")])
    prompt = (ids, torch.ones_like(ids, dtype=torch.bool))
    due = loaded.model.segment_video(picture, frames, sparse, dense_frames(sparse, 2), prompt)
    found = asked_about(loaded, split, ["The red Circle"], [0])
    for each in due:
        assert np.array_equal((each.logits > 0).numpy(), found[each.index])
