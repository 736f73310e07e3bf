"""Training the key frame selector: what it starts from, whose labels it takes, what it learns, what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from glus.common.errors import EvaluationError, ModelError, TrainingError
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.evaluation.predict.asking import ASKING, check_segments
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_source import ModelSource
from glus.launch import cli
from glus.model.model_config import LossConfig
from glus.model.released.load_release import own_tensors
from glus.model.trainable import build_empty, set_trainable
from glus.training.build import build_for_training
from glus.training.checkpoints import checkpoint
from glus.training.distributed import Rank
from glus.training.metrics.cost import COUNTED_TOKENS, Load, step_cost
from glus.training.metrics.prompt_tokens import READINGS, Shown
from glus.training.run_config import RunConfig, WeightsConfig
from glus.training.train import train
from tests.model.reference import CARRIED, NANO, our_name
from tests.model.releases import rule_tensors, write_clip, write_glus
from tests.model.test_selector import scored_batch, selector_config, small_selector
from tests.model.tiny import SEG, VOCABULARY, WIDE
from tests.tiny_selector_run import OWN_TABLE, SELECTOR, with_labels

Made = Callable[..., RunConfig]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def glus(tiny_run: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the tiny GLUS after a step."""
    run = tiny_run(tmp_path_factory.mktemp("glus") / "run", "steps=1", "optimizer.warmup_steps=0")
    return train(run, Rank(0, 0, 1)).parent.parent


def digest(run: Path) -> str:
    return ModelSource.find(run).digest()


def test_it_starts_from_the_language_half_of_its_glus(tiny_demo: Path, tiny_run: Made, glus: Path, tmp_path: Path):
    selector = with_labels(tiny_demo, tmp_path / "scores", weights=digest(glus))
    run = tiny_run(tmp_path / "run", *selector, OWN_TABLE, f"init_from={glus}", "model.tokenizer=", "steps=1")
    built = build_for_training(run)
    theirs = load_file(checkpoint.resolve(glus) / checkpoint.WEIGHTS)
    own = built.model.state_dict()
    taken = {name for name in own if not name.startswith("score_head.")}
    assert taken == {name for name in theirs if not name.startswith("segmenter.")}
    assert all(torch.equal(own[name], theirs[name]) for name in taken)
    [note] = [line for line in built.notes if "all taken but" in line]
    assert note.endswith("all taken but segmenter.*; freshly drawn: score_head.*")
    # The answer token is that of the GLUS: its row is where [SCORE] starts.
    assert built.tokenizer.decode([built.model.language.seg_id]) == "[SEG]"
    path = train(run, Rank(0, 0, 1))
    assert {"score_head.1.weight", "score_head.1.bias"} <= load_file(path / checkpoint.WEIGHTS).keys()


def test_a_selector_goes_on_from_a_selector_and_a_glus_does_not(
    tiny_demo: Path, tiny_run: Made, glus: Path, tmp_path: Path
):
    selector = with_labels(tiny_demo, tmp_path / "scores")
    first = tiny_run(tmp_path / "first", *selector, "steps=0")
    path = train(first, Rank(0, 0, 1))
    # Its labels need no provenance: it starts from no GLUS.
    second = tiny_run(tmp_path / "second", *selector, "steps=0", f"init_from={first.out}")
    again = load_file(train(second, Rank(0, 0, 1)) / checkpoint.WEIGHTS)
    assert all(torch.equal(again[name], each) for name, each in load_file(path / checkpoint.WEIGHTS).items())
    with pytest.raises(TrainingError, match=r"is of another model: .* are missing .* are unknown"):
        build_for_training(tiny_run(tmp_path / "glus", f"init_from={first.out}"))
    wider = ("model.language.hidden_size=64", f"init_from={glus}", "sampling.frame_scores_of=any")
    with pytest.raises(TrainingError, match=r"is of another model size: .* take the model of"):
        train(tiny_run(tmp_path / "wider", *selector, *wider), Rank(0, 0, 1))


@pytest.mark.parametrize(("weights", "whose"), [("0" * 64, "runs/glus"), ("", "masks whose model is not recorded")])
def test_labels_of_another_checkpoint_are_refused_unless_allowed(
    tiny_demo: Path, tiny_run: Made, glus: Path, tmp_path: Path, weights: str, whose: str
):
    selector = with_labels(tiny_demo, tmp_path / "scores", weights=weights)
    run = tiny_run(tmp_path / "run", *selector, f"init_from={glus}", "steps=0")
    with pytest.raises(TrainingError, match=rf"scores {whose} \(weights .*\), not the checkpoint of init_from, .*any"):
        train(run, Rank(0, 0, 1))
    train(replace(run, sampling=replace(run.sampling, frame_scores_of="any")), Rank(0, 0, 1))


def test_scores_of_an_evaluation_are_labels_of_its_checkpoint(tiny_demo: Path, tiny_run: Made, glus: Path, tmp_path):
    """The real chain: predict the training splits, score them, learn from that folder."""
    split = "[mevis/train, ref_davis17/train]"
    words = ["evaluate", f"checkpoint={glus}", f"shards={tiny_demo}/shards", f"out={tmp_path}/train", f"splits={split}"]
    assert cli.main([*words, "report=false", "processes=1"]) == 0
    run = tiny_run(tmp_path / "run", *SELECTOR, f"sampling.frame_scores={tmp_path}/train", f"init_from={glus}")
    train(run, Rank(0, 0, 1))


def test_what_is_left_out_is_printed(tiny_demo: Path, tiny_run: Made, tmp_path: Path, capsys):
    selector = with_labels(tiny_demo, tmp_path / "scores", lambda entry, n: None if n == 1 else np.full(6, 50.0))
    train(tiny_run(tmp_path / "run", *selector, "steps=0"), Rank(0, 0, 1))
    printed = capsys.readouterr().out
    assert "mevis/train: left out: 2 expressions without scores" in printed


def test_a_run_does_not_go_on_with_other_labels(tiny_demo: Path, tiny_run: Made, tmp_path: Path):
    selector = with_labels(tiny_demo, tmp_path / "scores")
    train(tiny_run(tmp_path / "run", *selector, "steps=1"), Rank(0, 0, 1))
    selector = with_labels(tiny_demo, tmp_path / "scores", lambda entry, _: np.full(6, 50.0))
    with pytest.raises(TrainingError, match="was trained on other shards or labels"):
        train(tiny_run(tmp_path / "run", *selector, "steps=2"), Rank(0, 0, 1))


def test_it_learns_the_labels_of_a_few_videos(tiny_demo: Path, tiny_run: Made, tmp_path: Path):
    """Half of the expressions are worth 0.9 in every frame, the others 0.1: the text alone says which."""
    selector = with_labels(tiny_demo, tmp_path / "scores", lambda entry, n: np.full(6, 90.0 if n % 2 else 10.0))
    steps = ("steps=100", "overfit=2", "engine.stage=plain", "optimizer.learning_rate=0.003", "log_every=1")
    path = train(tiny_run(tmp_path / "run", *selector, *steps), Rank(0, 0, 1))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert path.name == checkpoint.name_of(100) and lines
    losses = [json.loads(line)["score_l1"] for line in lines if "score_l1" in line]
    # Always the median, or 0.5, is 0.4 away.
    assert np.mean(losses[:4]) > 0.3 and np.mean(losses[-10:]) < 0.1


def test_it_starts_from_the_language_half_of_a_release(tmp_path: Path):
    write_glus(tmp_path / "glus")
    write_clip(tmp_path / "clip")
    model = replace(NANO, method="selector", loss=LossConfig(contrastive=0.0))
    sampling = SamplingConfig(frame_choice="references", query_frames=1, prompts="selector")
    places = {"glus": str(tmp_path / "glus"), "vision": str(tmp_path / "clip")}
    built = build_for_training(RunConfig(model=model, sampling=sampling, weights=WeightsConfig(**places)))
    own = own_tensors(built.model)
    tensors = {name: each for name, each in rule_tensors().items() if not name.startswith("transform.")}
    rule = {our_name(name): each.float() for name, each in tensors.items()}
    assert all(torch.equal(each, rule[name]) for name, each in own.items() if not name.startswith("score_head."))
    assert any("the key frame selector has no segmenter" in note for note in built.notes)
    with pytest.raises(ModelError, match=r"weights.segmenter: model.method is selector, which has no segmenter; leave"):
        weights = WeightsConfig(vision=places["vision"], segmenter="sam2.pt")
        build_for_training(RunConfig(model=replace(model, tokenizer=str(CARRIED)), sampling=sampling, weights=weights))


def test_flop_of_a_step_are_those_that_torch_counts(monkeypatch: pytest.MonkeyPatch):
    config = selector_config()
    batch = scored_batch(replace(WIDE, words=(5, 5, 5)))
    tokens = 4 * config.vision.tokens_per_frame + 8
    monkeypatch.setitem(COUNTED_TOKENS, "selector", tokens)
    model, alone = small_selector().train(), replace(config, share_video_tokens=False)
    model.config = alone
    set_trainable(model, ["*"])
    # The target is one of the references: frames are counted as references.
    frames = [each[:3] for each in batch.frames]
    batch = replace(batch, frames=frames, context=torch.tensor([[0, 1, 2]]), query=torch.tensor([[1]]))
    with FlopCounterMode(display=False) as counter:
        model(batch).loss.backward()
    empty = build_empty(replace(config, lora=replace(config.lora, rank=0)), VOCABULARY, SEG)
    set_trainable(empty, ["*"])
    shown, reading = Shown(3, 1), READINGS["selector"]
    assert reading.tokens(alone, shown, 1, 3, text=8) == 3 * tokens
    assert reading.images(shown) == 4 and reading.frames(shown) == 3
    load = Load(1, reading.frames(shown), 1, 3, 3 * tokens, 0)
    assert step_cost(empty).model_flop(load) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_it_makes_no_masks_and_has_no_release(tiny_demo: Path, tiny_run: Made, tmp_path: Path, capsys):
    run = tiny_run(tmp_path / "run", *with_labels(tiny_demo, tmp_path / "scores"), "steps=0")
    train(run, Rank(0, 0, 1))
    source = ModelSource.find(Path(run.out))
    assert source.method == "selector"
    with pytest.raises(EvaluationError, match="a key frame selector, which has no segmenter: name a GLUS as weights"):
        check_segments(source.method)
    with pytest.raises(EvaluationError, match="has no segmenter"):
        ASKING["selector"].recorded(InferenceConfig(), source.sampling)
    shards = f"shards={tiny_demo}/shards"
    assert cli.main(["evaluate", f"checkpoint={run.out}", shards, f"out={tmp_path}/masks"]) == 2
    assert "has no segmenter" in capsys.readouterr().err
    assert cli.main(["export", f"checkpoint={run.out}", f"out={tmp_path}/release"]) == 2
    assert "a selector has no released layout: none was published" in capsys.readouterr().err


def test_glus_plan_knows_it(capsys):
    config = Path(__file__).parents[2] / "configs" / "glus_s_kfs.yaml"
    assert cli.main(["plan", f"config={config}"]) == 0
    printed = capsys.readouterr().out
    assert "selector on 1 x 8 GPUs" in printed and "2,000 steps" in printed
