"""`glus segment --key-frame auto --selector DIR`: a selector chooses each expression's key frame."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.segment.clip import open_clip
from glus.evaluation.select.selection_rules import best_frame
from glus.evaluation.select.video_scores import scores_of_video
from glus.launch import cli
from tests.untrained import SELECTOR, write_checkpoint

TEXTS = ("the red circle", "what moves to the left?")


@pytest.fixture(scope="module")
def weights(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "glus": write_checkpoint(tiny_demo, folder / "glus"),
        "selector": write_checkpoint(tiny_demo, folder / "selector", *SELECTOR),
    }


@pytest.fixture
def video(tiny_demo: Path, tmp_path: Path) -> Path:
    """Frames numbered 10, 15, ...: an index is not the number in a name."""
    name = ShardedSplit.open(tiny_demo / "shards" / "mevis" / "valid_u").videos[0].video
    folder = tmp_path / "in" / name
    folder.mkdir(parents=True)
    source = sorted((tiny_demo / "raw" / "mevis" / "valid_u" / "JPEGImages" / name).iterdir())
    for place, frame in enumerate(source):
        shutil.copy(frame, folder / f"{10 + 5 * place:05d}.jpg")
    return folder


@pytest.fixture
def segment(video: Path, weights: dict[str, Path], tmp_path: Path) -> Callable[..., int]:
    def run(*words: str, texts: tuple[str, ...] = TEXTS) -> int:
        given = ["--weights", str(weights["glus"]), "--out", str(tmp_path / "out"), *words]
        return cli.main(["segment", str(video), *texts, *given])

    return run


@pytest.mark.parametrize("frames", [6, 1])
def test_each_expression_is_followed_from_the_frame_that_the_selector_chooses(
    frames: int,
    segment: Callable[..., int],
    video: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place in sorted(video.iterdir())[frames:]:
        place.unlink()
    assert segment("--key-frame", "auto", "--selector", str(weights["selector"])) == 0
    clip, cpu = open_clip(video, tmp_path / "scratch"), torch.device("cpu")
    loaded = ModelSource.find(weights["selector"]).load(cpu)
    scores = scores_of_video(loaded, clip.read, frames, TEXTS, "v", 16, cpu)
    document = json.loads((tmp_path / "out" / "meta_expressions.json").read_text(encoding="utf-8"))
    shown = capsys.readouterr().out
    for number, text in enumerate(TEXTS):
        chosen = best_frame(scores[number].tolist())
        name = clip.frame_names[chosen]
        assert document["videos"][video.name]["expressions"][str(number)]["key_frame"] == name
        assert f"{number}  {text}: key frame {name}, score {scores[number, chosen]:.3f}\n" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key-frame", "auto"], "key_frame=auto: name the key frame selector that chooses it, --selector DIR"),
        (["--selector", "{selector}"], "it chooses key frames with --key-frame auto; add that"),
        (["--key-frame", "3", "--selector", "{selector}"], "it chooses key frames with --key-frame auto; add that"),
        (["--key-frame", "auto", "--selector", "{glus}"], "this is a model of method glus, not a key frame selector"),
        (["--key-frame", "auto", "--selector", "{none}"], "none holds no checkpoint"),
        (["--key-frame", "auto", "--selector", "{glus}", "--weights", "{selector}"], "these weights are a key frame"),
    ],
)
def test_what_cannot_choose_is_told_and_leaves_nothing(
    words: list[str],
    message: str,
    segment: Callable[..., int],
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {**weights, "none": tmp_path / "none"}
    assert segment(*[word.format(**places) for word in words]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert [place.name for place in tmp_path.iterdir()] == ["in"]


def test_an_expression_with_nothing_in_it_is_refused(
    segment: Callable[..., int], weights: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment("--key-frame", "auto", "--selector", str(weights["selector"]), texts=("a circle", " . ")) == 2
    assert "expression 1 is empty (' . ')" in capsys.readouterr().err


def test_videolisa_has_no_key_frame_to_choose(
    segment: Callable[..., int],
    tiny_demo: Path,
    weights: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.tiny_videolisa_run import VIDEOLISA

    other = write_checkpoint(tiny_demo, tmp_path_factory.mktemp("videolisa") / "run", *VIDEOLISA)
    assert segment("--key-frame", "auto", "--selector", str(weights["selector"]), "--weights", str(other)) == 2
    assert "key_frame=auto: videolisa has no key frame; leave it out" in capsys.readouterr().err


def test_pretraining_begins_at_a_key_frame_and_has_a_memory_whose_scales_are_set(
    segment: Callable[..., int], tiny_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_checkpoint(tiny_demo, tmp_path / "pretraining", "model.method=pretraining")
    given = ("--weights", str(weights), "--key-frame", "2", "--inference.reference-gamma", "true")
    assert segment(*given) == 0, capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "meta_expressions.json").read_text("utf-8"))
    [video] = document["videos"].values()
    assert {each["key_frame"] for each in video["expressions"].values()} == {"00020"}
    (tmp_path / "sam2.pt").touch()
    refused = ("--weights", str(weights), "--out", str(tmp_path / "o"), "inference.post_optimise=sam2.pt")
    assert segment(*refused) == 2
    assert "post_optimise: pretraining follows masks by a memory of its own" in capsys.readouterr().err
