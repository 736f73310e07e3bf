"""A run that starts from released weights: sizes first, then each part, LoRA beside it, then a checkpoint of ours."""

import dataclasses
import json
import resource
import shutil
from pathlib import Path

import pytest
import torch

from glus.common.errors import ModelError, TrainingError
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.model.model_config import ModelConfig, SegmenterConfig
from glus.model.released.load_release import own_tensors
from glus.model.released.release_sam2 import Hiera
from glus.training.build import build_for_training
from glus.training.release_info import AskedConfig, read_release
from glus.training.run_config import EngineConfig, RunConfig, WeightsConfig
from tests.model.reference import CARRIED, NANO, our_name
from tests.model.releases import open_glus, rule_tensors, write_clip, write_glus, write_lisa, write_sam2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lisa/, glus/, clip/ and sam2.pt, by the rule."""
    root = tmp_path_factory.mktemp("releases")
    write_lisa(root / "lisa")
    write_glus(root / "glus")
    write_clip(root / "clip")
    write_sam2(root / "sam2.pt")
    return root


def run(model: ModelConfig = NANO, **weights: Path) -> RunConfig:
    return RunConfig(model=model, weights=WeightsConfig(**{part: str(place) for part, place in weights.items()}))


def expected() -> dict[str, torch.Tensor]:
    return {our_name(name): each.float() for name, each in rule_tensors().items() if not name.startswith("transform.")}


def test_a_run_starts_from_lisa_clip_and_sam_2_as_the_reference_does(releases):
    config = run(language=releases / "lisa", vision=releases / "clip", segmenter=releases / "sam2.pt")
    built = build_for_training(config)
    rule, own = expected(), own_tensors(built.model)
    other = {name for name, each in own.items() if not torch.equal(each, rule[name])}
    assert other == {name for name in own if ".text_hidden_fcs." in name}
    assert built.tokenizer.path == releases / "lisa" / "tokenizer.model"
    assert sum(".lora_A." in name for name, _ in built.model.named_parameters()) == 4
    told = "\n".join(built.notes)
    assert "SAM 1, which GLUS replaces by SAM 2" in told and "freshly drawn: text_hidden_fcs" in told
    assert {row.pattern for row in built.trainable} == set(config.trainable)
    again = own_tensors(build_for_training(config).model)
    assert all(torch.equal(own[name], again[name]) for name in own)


def test_a_run_starts_from_a_glus_checkpoint_whole(releases):
    built = build_for_training(run(glus=releases / "glus", vision=releases / "clip"))
    rule = expected()
    assert all(torch.equal(each, rule[name]) for name, each in own_tensors(built.model).items())


def test_a_resumed_run_takes_its_checkpoint_and_not_the_release(releases, tiny_run, tmp_path):
    from glus.training.distributed import Rank
    from glus.training.train import train

    config = tiny_run(tmp_path / "run", "steps=0")
    folder = train(config, Rank(0, 0, 1))
    gone = dataclasses.replace(config, weights=WeightsConfig(segmenter="/nowhere/sam2.pt"))
    assert build_for_training(gone, folder).notes == ()
    with pytest.raises(ModelError, match=r"/nowhere/sam2\.pt is not there"):
        build_for_training(gone)


def test_a_run_with_tied_embeddings_trains_saves_and_is_read_back(tiny_run, tmp_path):
    from glus.training.build import build_from_checkpoint
    from glus.training.checkpoints import checkpoint
    from glus.training.distributed import Rank
    from glus.training.train import train

    tied = ["model.language.tie_embeddings=true", "model.language.key_value_heads=1"]
    table = 'trainable=["*lora_*", "language.llama.lm_head.*", "segmenter.sam2.sam_mask_decoder.*"]'
    folder = train(tiny_run(tmp_path / "run", "steps=1", *tied, table), Rank(0, 0, 1))
    model, _, config = build_from_checkpoint(checkpoint.resolve(tmp_path / "run"))
    assert config.model.language.tie_embeddings and folder.is_dir()
    assert model.language.llama.lm_head.weight is model.language.llama.get_input_embeddings().weight
    fresh = build_for_training(tiny_run(tmp_path / "other", *tied)).model
    assert not torch.equal(model.language.llama.lm_head.weight, fresh.language.llama.lm_head.weight)


def test_a_glus_without_its_vision_tower_is_refused(releases):
    with pytest.raises(
        ModelError, match=r"holds no vision tower, as GLUS is released: .*weights\.vision=FOLDER in training"
    ):
        build_for_training(run(glus=releases / "glus"))


def test_a_tokenizer_without_seg_beside_a_glus_checkpoint_is_refused(releases, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((CARRIED / "tokenizer.model").read_bytes())
    model = dataclasses.replace(NANO, tokenizer=str(tmp_path))
    with pytest.raises(
        ModelError, match=r"has no \[SEG\], <im_start>, <im_end>, with which a GLUS .*added_tokens\.json"
    ):
        build_for_training(run(model, glus=releases / "glus", vision=releases / "clip"))


def test_sizes_are_checked_before_the_model_is_built(releases):
    with pytest.raises(ModelError, match=r"model\.language\.hidden_size is 4096, its hidden_size is 64"):
        build_for_training(run(ModelConfig(), glus=releases / "glus", vision=releases / "clip"))
    for place in ({"glus": releases / "glus", "vision": releases / "clip"}, {"segmenter": releases / "sam2.pt"}):
        with pytest.raises(ModelError, match=r"model\.segmenter\.memory_layers is 4, its own is 1"):
            build_for_training(
                run(dataclasses.replace(NANO, tokenizer=str(CARRIED), segmenter=SegmenterConfig()), **place)
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"glus": "a", "language": "b"}}, "weights.glus and weights.language hold the same part"),
        ({"weights": {"glus": "a", "segmenter": "b"}}, "weights.glus and weights.segmenter hold the same part"),
        ({"weights": {"vision": "a"}, "init_from": "b"}, "init_from and weights.vision both say where"),
    ],
)
def test_two_places_for_the_same_part_are_refused(changes, message):
    with pytest.raises(TrainingError) as caught:
        RunConfig(weights=WeightsConfig(**changes["weights"]), init_from=changes.get("init_from", ""))
    assert message in str(caught.value)


def test_flash_attention_in_fp32_is_refused():
    language = dataclasses.replace(NANO.language, attention="flash_attention_2")
    with pytest.raises(TrainingError, match="computes in bf16 only: set engine.precision to bf16"):
        RunConfig(model=dataclasses.replace(NANO, language=language), engine=EngineConfig(precision="fp32"))


def test_sizes_of_a_release_come_from_its_own_files(releases, tmp_path):
    folder = write_glus(tmp_path / "glus")
    weights = WeightsConfig(glus=str(folder), vision=str(releases / "clip"))
    # Dropout is a setting of training.
    segmenter = dataclasses.replace(NANO.segmenter, dropout=SegmenterConfig.dropout)
    read = read_release(weights).model
    assert (read.language, read.vision, read.segmenter) == (NANO.language, NANO.vision, segmenter)
    assert read_release(weights, Hiera(1, (0,))).model.segmenter.global_attention_blocks == (0,)
    sizes = {"segmenter": dataclasses.asdict(NANO.segmenter), "language": dataclasses.asdict(NANO.language)}
    (folder / "glus_model.json").write_text(json.dumps(sizes | {"vision": dataclasses.asdict(NANO.vision)}))
    assert dataclasses.replace(read_release(weights).model, loss=NANO.loss) == NANO
    with pytest.raises(ModelError, match=r"hiera: .*glus_model\.json says all sizes already; leave it out"):
        read_release(weights, Hiera(1, (2,)))


def test_a_glus_checkpoint_is_opened_ready_to_predict(releases):
    model, tokenizer, told = open_glus(releases / "glus", str(releases / "clip"), NANO)
    assert not model.training and isinstance(tokenizer, Tokenizer) and len(told) >= 2
    assert not any(".lora_" in name for name, _ in model.named_parameters())


def test_a_damaged_description_of_an_export_is_refused(releases, tmp_path):
    folder = write_glus(tmp_path / "glus")
    (folder / "glus_model.json").write_text(json.dumps({"language": {"layers": "many"}}))
    with pytest.raises(ModelError, match=r"glus_model\.json: language\.layers: .*export the checkpoint again"):
        open_glus(folder, str(releases / "clip"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompts": "long"}, r"asked: prompts is 'long': use one of glus, short"),
        ({"query_frames": 0}, r"asked: query_frames is 0: it must be from 1 to 1000"),
        ({"context_frames": 10**9}, r"asked: context_frames is 1000000000: it must be from 0"),
        ({"context_frames": "two"}, r"asked: context_frames: "),
        ([], r"asked: a JSON list where an object is wanted"),
    ],
)
def test_an_impossible_way_of_asking_is_refused_by_its_key(releases, tmp_path, asked, message):
    folder = write_glus(tmp_path / "glus")
    (folder / "glus_model.json").write_text(json.dumps({"asked": asked}))
    with pytest.raises(ModelError, match=message):
        read_release(WeightsConfig(glus=str(folder), vision=str(releases / "clip")))


def test_a_release_says_how_it_is_asked_or_is_asked_as_the_reference(releases, tmp_path):
    folder = write_glus(tmp_path / "glus")
    weights = WeightsConfig(glus=str(folder), vision=str(releases / "clip"))
    silent = read_release(weights)
    assert silent.asked is None and silent.sampling == SamplingConfig()
    (folder / "glus_model.json").write_text(json.dumps({"asked": {"prompts": "short", "query_frames": 2}}))
    assert read_release(weights).asked == AskedConfig("short", 4, 2)
    (folder / "glus_model.json").write_text(json.dumps({"askd": {}}))
    with pytest.raises(ModelError, match=r"glus_model\.json: askd: unknown key"):
        read_release(weights)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language": {"layers": 10**9}}, r"model\.language\.layers=1000000000: it must be from 1 to 512"),
        ({"language": {"hidden_size": 65_536}}, r"does not hold the parameters|another model size|another size"),
        ({"language": {"heads": 0}}, r"model\.language\.heads=0: it must be from 1"),
        ({"language": {"rms_norm_eps": -1.0}}, r"rms_norm_eps=-1.0: it must be from 0 to 1"),
        ({"segmenter": {"stages": [10**9, 1, 1, 1]}}, r"model\.segmenter\.stages=.*from 1 to 256"),
        ({"vision": {"layers": 500}}, r"does not hold the parameters|another size"),
    ],
)
def test_sizes_that_the_weights_do_not_have_take_no_memory(releases, tmp_path, changes, message):
    """Of a release whose own description lies, whatever it names; 65,536 squared is 17 GB a matrix."""
    folder = write_glus(tmp_path / "glus")
    sizes = {part: dataclasses.asdict(getattr(NANO, part)) for part in ("language", "vision", "segmenter")}
    for part, changed in changes.items():
        sizes[part] |= changed
    config = json.loads((folder / "config.json").read_text())
    for key in ("hidden_size", "num_hidden_layers", "rms_norm_eps"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "glus_model.json").write_text(json.dumps(sizes))
    clip = tmp_path / "clip"
    shutil.copytree(releases / "clip", clip)
    (clip / "config.json").write_text("{}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=message):
        open_glus(folder, str(clip))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
