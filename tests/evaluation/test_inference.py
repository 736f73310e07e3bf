"""Masks on disk for every frame, once; together or one by one, and whichever frame is begun with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glus.common.errors import EvaluationError, TrainingError
from glus.data_pipeline.batches.conversations import inference_prompt
from glus.data_pipeline.sampling.sample_plan import middle_context
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference import predict_video
from glus.evaluation.predict.inference_config import InferenceConfig, Predicted
from glus.evaluation.predict.key_frames import KeyFrames
from glus.evaluation.predict.model_source import Loaded, ModelSource
from glus.evaluation.predict.predictions import expression_folder, read_masks
from glus.training.checkpoints.integrity import note_digests

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded(answering_run: Path) -> Loaded:
    return ModelSource.find(answering_run).load(CPU)


def test_a_model_is_loaded_with_the_references_layer_scales(answering_run: Path, loaded: Loaded) -> None:
    reset = ModelSource.find(answering_run).load(CPU, reference_gamma=True)
    trained = dict(loaded.model.named_parameters())
    changed = {name for name, each in reset.model.named_parameters() if not torch.equal(each, trained[name])}
    assert changed and all("memory_encoder.fuser" in name and name.endswith(".gamma") for name in changed)


@pytest.fixture
def split(tiny_demo: Path) -> ShardedSplit:
    return ShardedSplit.open(tiny_demo / "shards" / "mevis" / "valid_u")


def test_every_expression_gets_a_mask_for_every_frame(loaded: Loaded, split: ShardedSplit, tmp_path: Path) -> None:
    done = predict_video(loaded, split, 0, tmp_path, InferenceConfig(), None, CPU)
    [entry] = split.videos
    expressions, frames = len(entry.expressions), len(entry.frame_names)
    assert (done.expressions, done.found, done.frames) == (expressions, 0, expressions * frames)
    written = [read_masks(tmp_path, entry, expression) for expression in entry.expressions]
    assert all(masks is not None and masks.shape == (frames, entry.height, entry.width) for masks in written)
    # More than the texts alone: the frames' tokens are read too.
    assert done.tokens > expressions * frames
    # The model answered, and its masks are neither nothing nor everything.
    assert done.frames_without_seg == 0
    assert 0 < np.mean(np.array(written)) < 1


def test_what_is_on_disk_is_not_predicted_again(loaded: Loaded, split: ShardedSplit, tmp_path: Path) -> None:
    [entry] = split.videos
    first, *others = entry.expressions
    predict_video(loaded, split, 0, tmp_path, InferenceConfig(), None, CPU)
    for expression in others:
        for picture in expression_folder(tmp_path, entry, expression).iterdir():
            picture.unlink()
        expression_folder(tmp_path, entry, expression).rmdir()
    kept = {each: each.stat().st_mtime_ns for each in expression_folder(tmp_path, entry, first).iterdir()}
    again = predict_video(loaded, split, 0, tmp_path, InferenceConfig(), None, CPU)
    assert (again.expressions, again.found) == (len(others), 1)
    assert all(each.stat().st_mtime_ns == when for each, when in kept.items())
    nothing = predict_video(loaded, split, 0, tmp_path, InferenceConfig(), None, CPU)
    assert nothing == Predicted(0, len(entry.expressions), 0, 0)


def test_expressions_together_are_as_one_by_one(loaded: Loaded, split: ShardedSplit, tmp_path: Path) -> None:
    [entry] = split.videos
    for number in (1, 4, 100):
        config = InferenceConfig(expressions_together=number)
        predict_video(loaded, split, 0, tmp_path / str(number), config, None, CPU)
    shown = 0.0
    for expression in entry.expressions:
        alone, some, every = (read_masks(tmp_path / str(number), entry, expression) for number in (1, 4, 100))
        assert alone is not None and some is not None and every is not None
        # A pixel whose logit is 0 to the last bit may fall either way.
        assert (alone != some).mean() < 1e-3 and (alone != every).mean() < 1e-3
        shown += alone.mean()
    assert 0 < shown < len(entry.expressions)


def test_masks_in_bf16_are_nearly_those_in_fp32(
    answering_run: Path, loaded: Loaded, split: ShardedSplit, tmp_path: Path
) -> None:
    half = ModelSource.find(answering_run).load(CPU, "bf16")
    assert {each.dtype for each in half.model.parameters()} == {torch.bfloat16}
    for model, name in ((loaded, "fp32"), (half, "bf16")):
        done = predict_video(model, split, 0, tmp_path / name, InferenceConfig(precision=name), None, CPU)
        assert done.frames_without_seg == 0
    [entry] = split.videos
    whole, rounded = (
        np.array([read_masks(tmp_path / name, entry, expression) for expression in entry.expressions])
        for name in ("fp32", "bf16")
    )
    print(f"pixels that differ in bf16: {(whole != rounded).mean():.2%}")
    assert 0 < whole.mean() < 1 and (whole != rounded).mean() < 0.03


def test_a_videos_frames_are_encoded_once_for_all_of_its_expressions(
    loaded: Loaded, split: ShardedSplit, tmp_path: Path
) -> None:
    seen: list[int] = []
    encoder = loaded.model.segmenter.sam2.image_encoder.trunk
    hook = encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    predict_video(loaded, split, 0, tmp_path, InferenceConfig(expressions_together=2), None, CPU)
    hook.remove()
    assert len(split.videos[0].expressions) > 2
    assert seen == [1] * len(split.videos[0].frame_names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mevis/valid_u video \w+ expression 0 is empty \(''\): say in words"),
        (" . ", "expression 0 is empty"),
        (
            "red " * 1250,
            r"video \w+: expression 1 of \d+ is too long: with \d query frames its prompt takes \d+ ",
        ),
    ],
    ids=["empty", "a full stop", "5,000 characters"],
)
def test_an_expression_that_cannot_be_asked_is_told_and_leaves_nothing(
    loaded: Loaded, split: ShardedSplit, tmp_path: Path, text: str, message: str
) -> None:
    [entry] = split.videos
    first, *others = entry.expressions
    split.videos = [replace(entry, expressions=(replace(first, text=text), *others))]
    with pytest.raises(EvaluationError, match=message):
        predict_video(loaded, split, 0, tmp_path, InferenceConfig(), None, CPU)
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("key_frame", [0, 3, 5])
def test_each_frame_is_shown_once_whichever_is_begun_with(loaded: Loaded, split: ShardedSplit, key_frame: int) -> None:
    texts = [expression.text for expression in split.videos[0].expressions[:2]]

    def frame(index: int) -> torch.Tensor:
        return torch.from_numpy(split.read_frames(0, [index])[0]).permute(2, 0, 1)

    def prompts(queries: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [loaded.tokenizer.encode(inference_prompt(text, 2, queries)) for text in texts]
        length = max(map(len, rows))
        ids = torch.tensor([row + [loaded.tokenizer.pad_id] * (length - len(row)) for row in rows])
        return ids, torch.tensor([[place < len(row) for place in range(length)] for row in rows])

    context = middle_context(6, 2)
    seen = list(loaded.model.segment_video(frame, 6, context, prompts, window=2, key_frame=key_frame))
    order = [*range(key_frame, 6), *range(key_frame - 1, -1, -1)]
    assert [masks.index for masks in seen] == order
    assert all(masks.logits.shape == (2, 48, 64) and masks.logits.isfinite().all() for masks in seen)


def test_a_loaded_model_is_the_one_that_was_trained(answering_run: Path, loaded: Loaded) -> None:
    source = ModelSource.find(answering_run)
    assert source == ModelSource.find(answering_run / "checkpoints" / "step-000012")
    assert source.step == 12 and source.title.endswith(", step 12") and source.tracking_run
    assert not loaded.model.training and loaded.notes == ()


def test_a_checkpoint_of_other_code_is_told(answering_run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "step-000012"
    shutil.copytree(answering_run / "checkpoints" / "step-000012", copied)
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["engine"]["precision"] = "fp8"
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    note_digests(copied, 0)
    with pytest.raises(TrainingError, match=r"config\.json: engine\.precision: .*; use the version of the code that"):
        ModelSource.find(copied)
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        ModelSource.find(tmp_path)


def test_an_expression_begins_at_the_key_frame_that_a_file_gives_it(
    loaded: Loaded, split: ShardedSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [entry] = split.videos
    first, *others = entry.expressions
    for each in others:
        expression_folder(tmp_path, entry, each).mkdir(parents=True)  # done already
    read: list[int] = []
    reading = split.read_frames

    def read_frames(video: int, frames: list[int]) -> np.ndarray:
        read.extend(frames)
        return reading(video, frames)

    monkeypatch.setattr(split, "read_frames", read_frames)
    (tmp_path / "keys.json").write_text(json.dumps({f"{entry.video}_{first.id}": 4}), encoding="utf-8")
    config = InferenceConfig(key_frames=tmp_path / "keys.json")
    done = predict_video(loaded, split, 0, tmp_path, config, KeyFrames.read(tmp_path / "keys.json"), CPU)
    assert done == Predicted(1, len(others), 6, 0)
    assert read == [*middle_context(6, 2), 4, 5, 3, 2, 1, 0]
    masks = read_masks(tmp_path, entry, first)
    assert masks is not None and masks.any()
