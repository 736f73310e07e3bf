"""How the models of both methods are asked: words by dataset, prompts, what is recorded, what is refused."""

import json
from pathlib import Path

import pytest

from glus.common.errors import DataError, EvaluationError, TrainingError
from glus.data_pipeline.batches.conversations import templates_named
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.raw.annotated_split import parse_video
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.evaluation.predict.asking import ASKING, VideoPrompts
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.model.model_config import LossConfig, ModelConfig
from glus.training.release_info import Release
from glus.training.run_config import RunConfig

PHI3 = Path(__file__).parents[1] / "data" / "parity_videolisa" / "tokenizer"
SPARSE_DENSE = SamplingConfig(frame_choice="sparse_dense", context_frames=32, query_frames=4, prompts="videolisa")


def reason_vos(expression: dict, **video: object) -> Expression:
    said = {"expressions": [{"exp_id": 0, "exp_text": "who wins", "obj_id": 1} | expression], **video}
    return parse_video(Path("meta_expressions.json"), "v", said, "obj_id").expressions[0]


@pytest.mark.parametrize(
    ("expression", "video", "kind", "wording"),
    [
        ({"is_sent": 1}, {}, "sentence", "sentence"),
        ({}, {"is_sent": True}, "sentence", "sentence"),
        ({"is_sent": 0}, {"is_sent": 1}, "phrase", "scene"),
        ({}, {}, "", "scene"),
        ({"is_sent": 1, "kind": "reasoning"}, {}, "reasoning", "scene"),
    ],
)
def test_reason_vos_says_whether_it_asks_by_itself(expression, video, kind, wording):
    said = reason_vos(expression, **video)
    assert said.kind == kind
    assert ASKING["videolisa"].wording("reason_vos", said) == wording
    assert ASKING["videolisa"].wording("mevis", said) == "expression"
    assert ASKING["glus"].wording("reason_vos", said) == "expression"


@pytest.mark.parametrize("is_sent", [2, "yes", [1], 0.5, {}])
def test_an_is_sent_that_is_no_yes_or_no_is_refused(is_sent):
    with pytest.raises(DataError, match=r'expression 0: "is_sent" is .*; wanted is true or false'):
        reason_vos({"is_sent": is_sent})


def prompts(*texts: str, wordings: tuple[str, ...] = ()) -> VideoPrompts:
    tokenizer, words = Tokenizer(PHI3), templates_named("videolisa")
    names = [f"expression {number}" for number in range(len(texts))]
    return VideoPrompts(tokenizer, texts, names, 32, words, True, wordings)


@pytest.mark.parametrize(
    ("dataset", "kind", "wording"),
    [("reason_seg", "sentence", "image_sentence"), ("reason_seg", "phrase", "image_phrase"), ("refcocog", "", "image")],
)
def test_image_benchmarks_have_wordings_of_their_own(dataset, kind, wording):
    assert ASKING["videolisa"].wording(dataset, Expression("0", "the dog", ("1",), kind)) == wording


def test_each_expression_is_asked_in_its_own_wording():
    ids, attention = prompts("the Dog", "Who wins", wordings=("scene", "sentence")).with_given_answers()
    tokenizer = Tokenizer(PHI3)
    words = templates_named("videolisa")
    for row, real, text, wording in zip(ids, attention, ("the Dog", "Who wins"), ("scene", "sentence"), strict=True):
        assert row[real].tolist() == tokenizer.encode(words.ask(text, wording, 32, 4, True))


@pytest.mark.parametrize("text", ["a <image> of a dog", "the [SEG]", "dog " * 2000])
def test_a_text_that_breaks_the_prompt_is_refused(text):
    with pytest.raises(EvaluationError, match=r"expression 1 .* of its own or is too long for 1793 tokens: change or"):
        prompts("the dog", text, wordings=("expression", "sentence")).with_given_answers()


def test_an_empty_text_is_refused():
    with pytest.raises(EvaluationError, match="expression 0 is empty"):
        prompts(" . ")


def test_the_references_layer_scales_are_recorded_where_they_are_used_and_are_of_glus_alone():
    plain, reset = (InferenceConfig(precision="fp32", reference_gamma=each) for each in (False, True))
    assert "reference_gamma" not in ASKING["glus"].recorded(plain, SamplingConfig())
    assert ASKING["glus"].recorded(reset, SamplingConfig())["reference_gamma"] is True
    with pytest.raises(EvaluationError, match=r"inference.reference_gamma: videolisa has no memory of frames"):
        ASKING["videolisa"].recorded(reset, SamplingConfig())


@pytest.mark.parametrize(("switch", "value"), [("prompted_frames", "first"), ("use_memory", False)])
def test_switches_of_the_memory_are_recorded_where_they_are_set_and_are_of_glus_alone(switch, value):
    config = InferenceConfig(precision="fp32", **{switch: value})
    assert switch not in InferenceConfig(precision="fp32").recorded()
    assert ASKING["glus"].recorded(config, SamplingConfig())[switch] == value
    with pytest.raises(EvaluationError, match=f"inference.{switch}: videolisa has no memory of frames; leave it out"):
        ASKING["videolisa"].recorded(config, SPARSE_DENSE)


def test_what_is_asked_is_recorded():
    config = InferenceConfig(precision="fp32")
    assert ASKING["glus"].recorded(config, SamplingConfig()) == config.recorded()
    assert ASKING["videolisa"].recorded(config, SPARSE_DENSE) == {
        "method": "videolisa",
        "prompts": "videolisa",
        "sparse_frames": 32,
        "dense_frames": 4,
        "expressions_together": 16,
        "precision": "fp32",
    }


def test_key_frames_are_refused_for_videolisa(tmp_path: Path):
    (tmp_path / "keys.json").write_text(json.dumps({"v_0": 3}))
    with pytest.raises(EvaluationError, match=r"inference.key_frames: VideoLISA .* leave it out"):
        ASKING["videolisa"].recorded(InferenceConfig(key_frames=tmp_path / "keys.json"), SPARSE_DENSE)


def test_a_release_is_asked_as_its_method_is():
    glus, videolisa = Release(ModelConfig()).sampling, Release(ModelConfig(method="videolisa")).sampling
    assert (glus.frame_choice, glus.prompts, glus.context_frames, glus.query_frames) == ("windows", "glus", 4, 4)
    assert videolisa == SPARSE_DENSE


@pytest.mark.parametrize(
    ("method", "sampling", "message"),
    [
        ("glus", SPARSE_DENSE, "sampling.frame_choice is sparse_dense, but model.method is glus: set it to windows"),
        ("videolisa", SamplingConfig(), "frame_choice is windows, but model.method is videolisa: set it to sparse_d"),
        (
            "videolisa",
            SamplingConfig(frame_choice="sparse_dense", context_frames=32),
            "sampling.prompts is glus, but model.method is videolisa: use one of videolisa, videolisa_short",
        ),
        ("glus", SamplingConfig(prompts="videolisa"), "sampling.prompts is videolisa, but model.method is glus: use"),
    ],
)
def test_a_run_that_mixes_methods_is_refused(method, sampling, message):
    with pytest.raises(TrainingError, match=message):
        RunConfig(model=ModelConfig(method=method, loss=LossConfig(contrastive=0.0)), sampling=sampling)


def test_a_contrastive_loss_without_states_of_frames_is_refused():
    with pytest.raises(TrainingError, match=r"contrastive is 0.1, but videolisa has one state .* set it to 0"):
        RunConfig(model=ModelConfig(method="videolisa"), sampling=SPARSE_DENSE)
