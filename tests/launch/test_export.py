"""`glus export`: a checkpoint of ours in the released layout, and back."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import torch

from glus.common.errors import InputError, ModelError, TrainingError
from glus.data_pipeline.shards.reader import open_splits
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.video_masks import Asked, ShownFrame, masks_of_video
from glus.launch.cli import main
from glus.launch.commands.export import ExportConfig, export
from glus.model.released.write_release import merge_lora
from glus.training.build import build_for_training, build_from_checkpoint
from glus.training.distributed import Rank
from glus.training.train import train
from tests.model.releases import open_glus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint_folder(tiny_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's checkpoint after one step, LoRA beside its language model."""
    return train(tiny_run(tmp_path_factory.mktemp("run") / "run", "steps=1"), Rank(0, 0, 1))


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_a_run_is_exported_and_opened_again_with_the_same_weights(checkpoint_folder, tmp_path, form, capsys):
    out = tmp_path / "release"
    assert main(["export", str(checkpoint_folder.parents[1]), "--out", str(out), f"form={form}"]) == 0
    assert "merged 4 LoRA layers" in capsys.readouterr().out
    model, tokenizer, config = build_from_checkpoint(checkpoint_folder)
    merge_lora(model)
    loaded, same, _ = open_glus(out)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.config.segmenter == config.model.segmenter
    text = "USER: <im_start><image><im_end>\nthe red square ASSISTANT: Sure, [SEG].</s>"
    assert same.encode(text) == tokenizer.encode(text)
    assert sorted(tmp_path.iterdir()) == [out]


def predicted(place: Path, shards: Path) -> tuple[list[ShownFrame], torch.Tensor]:
    """Masks of the first video of mevis/valid_u by the model at a place, as `glus evaluate` makes them, and logits."""
    loaded = ModelSource.find(place).load(torch.device("cpu"))
    [split] = open_splits(shards, ["mevis/valid_u"])
    texts = [each.text for each in split.videos[0].expressions]
    logits, segment_video = [], loaded.model.segment_video

    def noting(*given, **named):
        for seen in segment_video(*given, **named):
            logits.append(seen.logits)
            yield seen

    loaded.model.segment_video = noting
    shown = masks_of_video(
        loaded,
        InferenceConfig(),
        lambda index: split.read_frames(0, [index])[0],
        len(split.videos[0].frame_names),
        Asked(texts, texts, [0] * len(texts)),
        torch.device("cpu"),
    )
    return list(shown), torch.cat(logits)


def test_a_checkpoint_and_its_export_predict_the_same_masks(tiny_run, tiny_demo, tmp_path, capsys):
    """A model that is asked in another way than GLUS: its words, its context frames, its query frames."""
    changes = ["steps=12", "optimizer.learning_rate=0.01", "model.loss.mask_bce=0", "model.loss.mask_dice=4"]
    asked = ["sampling.prompts=short", "sampling.context_frames=1", "sampling.query_frames=3"]
    folder = train(tiny_run(tmp_path / "run", *changes, *asked), Rank(0, 0, 1))
    out = tmp_path / "release"
    export(ExportConfig(folder, out))
    stored = json.loads((out / "glus_model.json").read_text())
    assert stored["asked"] == {"prompts": "short", "context_frames": 1, "query_frames": 3}
    (before, logits), (after, of_export) = (predicted(place, tiny_demo / "shards") for place in (folder, out))
    assert len(before) == len(after) > 0 and any(frame.masks.any() for frame in before)
    for one, other in zip(before, after, strict=True):
        assert (one.index, one.answered) == (other.index, other.answered) and (one.masks == other.masks).all()
    torch.testing.assert_close(of_export, logits, rtol=0, atol=2e-5)
    assert ModelSource.find(out).notes == ()
    # Without that section it is asked as GLUS, which is said and gives other logits.
    del stored["asked"]
    (out / "glus_model.json").write_text(json.dumps(stored))
    [line] = ModelSource.find(out).notes
    assert "does not say how it is asked" in line and "prompts glus, 4 context frames, 4 query frames" in line
    assert (predicted(out, tiny_demo / "shards")[1] - logits).abs().max() > 2e-4


def test_an_export_is_readable_by_all_whom_the_umask_lets(checkpoint_folder, tmp_path):
    former = os.umask(0o027)
    try:
        export(ExportConfig(checkpoint_folder, tmp_path / "release", form="safetensors"))
    finally:
        os.umask(former)
    places = [tmp_path / "release", *(tmp_path / "release").rglob("*")]
    modes = {(place.is_dir(), stat.S_IMODE(place.stat().st_mode)) for place in places}
    assert modes == {(True, 0o750), (False, 0o640)}


@pytest.mark.parametrize("name", ["*.bin", "glus_model.json", "tokenizer.model", "clip_vision_tower/*.bin"])
def test_a_flipped_byte_in_an_export_is_found_before_anything_is_predicted(checkpoint_folder, tmp_path, name):
    out = tmp_path / "release"
    export(ExportConfig(checkpoint_folder, out))
    digest = ModelSource.find(out).digest()
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=False).returncode == 0
    source = ModelSource.find(out)
    [file] = out.glob(name)
    flip(file)
    with pytest.raises(ModelError, match=rf"{file.name} does not hold what was exported"):
        source.digest()
    flip(file)
    assert ModelSource.find(out).digest() == digest
    (out / "SHA256SUMS").rename(out / "sums")
    (out / "SHA256SUMS").mkdir()
    with pytest.raises(InputError, match="a folder instead of a regular file"):
        ModelSource.find(out).digest()
    (out / "SHA256SUMS").rmdir()
    assert "no SHA256SUMS there" in ModelSource.find(out).notes[0]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer/tokenizer.model"])
def test_a_flipped_byte_in_a_checkpoint_ends_every_command_that_reads_it(
    checkpoint_folder, tiny_run, tiny_demo, tmp_path, name, capsys
):
    place = tmp_path / "step-000001"
    shutil.copytree(checkpoint_folder, place)
    flip(place / name)
    shards = f"shards={tiny_demo}/shards"
    commands = {
        "export": ["export", str(place), f"out={tmp_path}/release"],
        "evaluate": ["evaluate", f"checkpoint={place}", shards, f"out={tmp_path}/evaluation", "record=false"],
        "segment": [
            "segment",
            str(tiny_demo / "raw"),
            "dog",
            "--weights",
            str(place),
            "--out",
            f"{tmp_path}/segmented",
        ],
    }
    for command in commands.values():
        assert main(command) == 2
        assert f"{name} does not hold what was written" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="does not hold what was written"):
        build_for_training(tiny_run(tmp_path / "next", f"init_from={place}", "model.tokenizer="))
    assert not any((tmp_path / left).exists() for left in ("release", "segmented", "evaluation/scores.json"))
    shutil.rmtree(place / "digests")
    if name == "model.safetensors":
        os.truncate(place / name, 2**40)  # a hole, of which a digest would take minutes
        with pytest.raises(TrainingError, match="the checkpoint is damaged, use another"):
            ModelSource.find(place).digest()
    if name == "model.safetensors":
        assert "no digests/ there" in ModelSource.find(place).notes[0]


def flip(file: Path) -> None:
    """Flip one bit in the middle: of JSON within a number or a word, so that it may still be read."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "out={there}"], "is there already: name a new folder in `out`, or remove it"),
        (["{run}", "out={new}", "shard_gigabytes=0"], "shard_gigabytes=0: give more than 0"),
        (["{run}", "out={new}", "shard_gigabytes=.nan"], "shard_gigabytes=nan: give more than 0 and at most"),
        (["{run}", "out={new}", "shard_gigabytes=.inf"], "shard_gigabytes=inf: give more than 0 and at most"),
        (["{new}", "out={new}"], "holds no checkpoint"),
        (
            ["{run}", "{run}", "out={new}"],
            "is neither a .yaml file nor key=value; usage: glus export [CONFIG.yaml] [CHE",
        ),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_left(checkpoint_folder, tmp_path, words, message, capsys):
    (tmp_path / "there").mkdir()
    places = {"run": checkpoint_folder, "there": tmp_path / "there", "new": tmp_path / "new"}
    assert main(["export", *(word.format(**places) for word in words)]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "there"]
