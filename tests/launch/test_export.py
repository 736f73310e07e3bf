"""`glus export`: a checkpoint of ours in the released layout, and back."""

from pathlib import Path

import pytest
import torch

from glus.launch.cli import main
from glus.model.released_export import merge_lora
from glus.training.build import build_from_checkpoint
from glus.training.distributed import Rank
from glus.training.released import open_glus
from glus.training.train import train


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
    assert same.encode_with_images(text) == tokenizer.encode_with_images(text)
    assert sorted(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "out={there}"], "is there already: name a new folder in `out`, or remove it"),
        (["{run}", "out={new}", "shard_gigabytes=0"], "shard_gigabytes=0: give more than 0"),
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
