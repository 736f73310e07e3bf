"""An image encoder taught by words: which words count, where they stand, and that it learns them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glus.common.errors import TrainingError
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.demo.pretrain_encoder import EncoderTraining, pretrain_image_encoder, video_words
from glus.launch import cli
from glus.model.sam2_parts import draw_image_encoder
from glus.model.segmenter import Segmenter
from glus.training.build import build_for_training
from glus.training.run_config import WeightsConfig
from tests.conftest import TINY_RUN
from tests.data_pipeline.tiny_splits import write_splits


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[ShardedSplit]:
    return write_splits(tmp_path_factory.mktemp("splits"))


def test_words_count_where_they_tell_objects_of_a_video_apart(splits: list[ShardedSplit]) -> None:
    words, told = video_words(splits, 1000)
    videos = {splits[each.split].videos[each.video].video: each for each in told}
    assert set(videos) == {"groups", "no_pair", "long"}  # of one object nothing can be told apart
    groups = videos["groups"]
    assert groups.objects == ("1", "4", "7")
    place = {word: number for number, word in enumerate(words)}
    assert groups.words[:, place["4"]].tolist() == [0, 1, 0]
    assert "thing" not in place and "groups" not in place  # said of all objects
    assert np.isnan(videos["no_pair"].words[:, place["7"]]).all()


def test_only_the_most_frequent_words_are_learned(splits: list[ShardedSplit]) -> None:
    words, told = video_words(splits, 2)
    assert len(words) == 2 and all(each.words.shape[1] == 2 for each in told)


def test_splits_that_tell_nothing_apart_are_refused(splits: list[ShardedSplit], tiny_run, tmp_path: Path) -> None:
    alone = replace(splits[0].videos[0], expressions=splits[0].videos[0].expressions[:1])
    with pytest.raises(TrainingError, match="no video of these splits has two objects"):
        video_words([_Holding([alone])], 10)  # type: ignore[list-item]


class _Holding:
    def __init__(self, videos: list[object]) -> None:
        self.videos = videos


def taught(splits: list[ShardedSplit], tiny_run, out: Path, steps: int) -> tuple[Segmenter, list[float]]:
    torch.manual_seed(0)
    segmenter = Segmenter(replace(tiny_run(out).model.segmenter, train_image_encoder=True))
    draw_image_encoder(segmenter.sam2.image_encoder.trunk)
    losses: list[float] = []
    config = EncoderTraining(steps=steps, frames=4, learning_rate=3e-3)
    pretrain_image_encoder(segmenter, splits, config, 0, lambda step, loss: losses.append(loss))
    return segmenter, losses


def test_the_encoder_learns_and_the_rest_of_sam_2_stays(tiny_demo: Path, tiny_run, tmp_path: Path) -> None:
    splits = open_splits(tiny_demo / "shards", ["mevis/train", "ref_davis17/train"])
    fresh, _ = taught(splits, tiny_run, tmp_path, 1)
    after, losses = taught(splits, tiny_run, tmp_path, 60)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    same = {name for name, one in fresh.state_dict().items() if torch.equal(one, after.state_dict()[name])}
    changed = set(fresh.state_dict()) - same
    assert all("image_encoder" in name for name in changed) and len(changed) > 40


def test_an_encoder_that_gets_no_gradient_is_refused(splits: list[ShardedSplit], tiny_run, tmp_path: Path) -> None:
    segmenter = Segmenter(replace(tiny_run(tmp_path).model.segmenter, train_image_encoder=False))
    with pytest.raises(TrainingError, match="would learn nothing"):
        pretrain_image_encoder(segmenter, splits, EncoderTraining(steps=1), 0, lambda step, loss: None)


def test_the_same_seed_teaches_the_same(tiny_demo: Path, tiny_run, tmp_path: Path) -> None:
    splits = open_splits(tiny_demo / "shards", ["mevis/train"])
    (one, first), (other, second) = (taught(splits, tiny_run, tmp_path, 3) for _ in range(2))
    assert first == second
    assert all(torch.equal(each, other.state_dict()[name]) for name, each in one.state_dict().items())


def test_the_command_writes_a_sam_2_that_a_run_starts_from(tiny_demo: Path, tiny_run, tmp_path: Path) -> None:
    out = tmp_path / "sam2.pt"
    words = ["pretrain-encoder", f"out={out}", f"run={TINY_RUN}", "training.steps=2", "training.frames=2"]
    assert cli.main([*words, f"run_changes=[shards={tiny_demo}/shards]"]) == 0
    config = replace(tiny_run(tmp_path / "run"), weights=WeightsConfig(segmenter=str(out)))
    model = build_for_training(config).model
    stored = torch.load(out, weights_only=True)["model"]
    own = dict(model.segmenter.sam2.state_dict())
    assert all(torch.equal(own[name], tensor) for name, tensor in stored.items() if name in own) and len(stored) > 100


def test_steps_below_one_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain-encoder", f"out={tmp_path}/x.pt", f"run={TINY_RUN}", "training.steps=0"]) == 2
    assert "training.steps=0: it must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "x.pt").exists()
