"""VideoLISA's releases into a model and out of it: every value, what is left out, and each mixture that is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glus.common.errors import ModelError
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.launch.commands.export import write_release
from glus.model.model_config import LanguageConfig, LossConfig, ModelConfig, SegmenterConfig
from glus.model.released.load_release import FreshTokens, load_complete, load_language, load_segmenter, own_tensors
from glus.model.released.release_names import videolisa_names
from glus.model.trainable import add_lora
from glus.model.videolisa.video_lisa import VideoLisa
from glus.training.build import build_for_training
from glus.training.pretrained import check_released, open_release
from glus.training.release_info import read_release
from glus.training.run_config import RunConfig, WeightsConfig

from .releases import write_clip, write_glus, write_sam2, write_shards
from .test_videolisa_release_sizes import NANO
from .videolisa_releases import (
    CARRIED,
    TOWER,
    merged_tensors,
    rule_tensors,
    write_clip336,
    write_llava_phi,
    write_sam1,
    write_tokenizer,
    write_videolisa,
)

pytestmark = pytest.mark.slow

VOCABULARY, SEG = 572, 571
WITHOUT_LORA = replace(NANO, lora=replace(NANO.lora, rank=0))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """merged/, trained/ (LoRA not merged), llava/, clip/, sam1.pth; and of GLUS glus/, sam2.pt, clip224/."""
    root = tmp_path_factory.mktemp("releases")
    write_videolisa(root / "merged")
    write_videolisa(root / "trained", "safetensors", merged=False)
    write_llava_phi(root / "llava")
    write_clip336(root / "clip")
    write_sam1(root / "sam1.pth")
    write_glus(root / "glus", architectures=["GLUSForCausalLM"])
    write_sam2(root / "sam2.pt")
    write_clip(root / "clip224")
    return root


def weights_of(releases: Path, name: str) -> WeightsConfig:
    return WeightsConfig(videolisa=str(releases / name), vision=str(releases / "clip"))


def fives() -> VideoLisa:
    """Every value 5: what is not loaded shows."""
    model = VideoLisa(NANO, VOCABULARY, SEG)
    for tensor in model.state_dict().values():
        tensor.fill_(5.0)
    return model


def differing(model: VideoLisa, *parts: str) -> set[str]:
    """Names below `parts` that do not hold the rule's values, LoRA merged."""
    names = videolisa_names(NANO)
    rule = {str(names.ours(name)): each.float() for name, each in merged_tensors().items() if TOWER not in name}
    own = own_tensors(model)
    return {name for name in own if name.startswith(parts) and not torch.equal(own[name], rule[name])}


@pytest.mark.parametrize("name", ["merged", "trained"])
def test_a_released_videolisa_opens_with_every_value(releases, name):
    model, tokenizer, notes = open_release(weights_of(releases, name))
    assert isinstance(model, VideoLisa) and model.config == WITHOUT_LORA
    assert (tokenizer.vocab_size, tokenizer.seg_id) == (VOCABULARY, SEG)
    assert not differing(model, "language.llama", "language.mm_projector", "language.text_hidden_fcs", "segmenter.")
    said = "\n".join(notes)
    assert "(VideoLISA)" in said and ("LoRA of 2 weights merged (model.lora.alpha 16)" in said) == (name == "trained")


def test_a_release_on_the_recorded_clip_gives_the_recorded_masks(releases):
    expected = json.loads((CARRIED / "expected.json").read_text("utf-8"))
    with np.load(CARRIED / "expected.npz", allow_pickle=False) as stored:
        frames = torch.from_numpy(stored["infer_landscape_frames"]).permute(0, 3, 1, 2)
        bits = stored["infer_landscape_masks"]
    facts = expected["infer_landscape"]
    masks = np.unpackbits(bits, count=int(np.prod(facts["masks_shape"]))).reshape(facts["masks_shape"]).astype(bool)
    model, _, _ = open_release(weights_of(releases, "merged"))
    assert isinstance(model, VideoLisa)
    ids = torch.tensor([facts["input_ids"]])
    sparse = facts["sparse_index"]
    seen = model.segment_video(
        lambda index: frames[index],
        len(frames),
        sparse,
        [sparse[place] for place in facts["dense_index"]],
        (ids, torch.ones_like(ids, dtype=torch.bool)),
    )
    ours = torch.stack([each.logits[0] > 0 for each in seen]).numpy()
    assert (ours != masks).mean() <= 1e-4


def test_what_is_written_opens_bit_by_bit(releases, tmp_path):
    model, tokenizer, _ = open_release(weights_of(releases, "merged"))
    (tmp_path / "out").mkdir()
    sampling = SamplingConfig(frame_choice="sparse_dense", prompts="videolisa", context_frames=32, query_frames=4)
    write_release(model, tokenizer, sampling, tmp_path / "out", torch.float32, "bin", 5_000_000)
    again, same, _ = open_release(WeightsConfig(videolisa=str(tmp_path / "out")))
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert (same.vocab_size, same.seg_id) == (VOCABULARY, SEG)
    release = read_release(WeightsConfig(videolisa=str(tmp_path / "out")))
    assert release.sampling == sampling and release.model == WITHOUT_LORA
    # The reference's own names and shapes, so that its scripts take the folder.
    index = json.loads((tmp_path / "out" / "pytorch_model.bin.index.json").read_text("utf-8"))["weight_map"]
    assert set(index) == {name for name in rule_tensors() if TOWER not in name and ".lora_" not in name}


def test_a_run_starts_from_llava_phi_clip_and_sam1_as_the_reference_does(releases):
    weights = WeightsConfig(
        language=str(releases / "llava"), vision=str(releases / "clip"), segmenter=str(releases / "sam1.pth")
    )
    trainable = ("*lora_*", "language.text_hidden_fcs.*", "segmenter.sam1.mask_decoder.*")
    model = replace(NANO, lora=replace(NANO.lora, targets=("qkv_proj",)), loss=LossConfig(contrastive=0.0))
    sampling = SamplingConfig(frame_choice="sparse_dense", prompts="videolisa")
    built = build_for_training(RunConfig(model=model, weights=weights, trainable=trainable, sampling=sampling))
    rule, own = rule_tensors(), own_tensors(built.model)
    names = videolisa_names(NANO)
    for name, each in rule.items():
        ours = names.ours(name)
        if TOWER in name or ".lora_" in name or ".text_hidden_fcs." in name:
            continue
        # The reference's resize_token_embeddings keeps the first rows: [SEG] gets LLaVA's own unused row.
        expected = each.float()
        assert torch.equal(own[str(ours)][: len(expected)], expected), name
    said = "\n".join(built.notes)
    assert "4 rows above the tokenizer's 572 tokens left out" in said and "rows drawn" not in said
    assert "freshly drawn: text_hidden_fcs" in said and "mm_projector" not in said.split("freshly drawn")[1]
    assert sum(".lora_A." in name for name, _ in built.model.named_parameters()) == 2


def test_llava_in_transformers_layout_fills_language_model_and_projector(tmp_path):
    """xtuner/llava-phi-3-mini-hf's names: a Llama, its projector's layers called linear_1 and linear_2."""
    sizes = LanguageConfig(
        hidden_size=32, intermediate_size=64, layers=1, heads=2, key_value_heads=2, max_positions=4096
    )
    model = VideoLisa(replace(NANO, language=sizes), 20, 19)
    tensors = {"vision_tower.vision_model.post_layernorm.bias": torch.zeros(32)}
    expected = {}
    for name, own in own_tensors(model).items():
        for ours, theirs in (
            ("language.llama.", "language_model."),
            ("language.mm_projector.0.", "multi_modal_projector.linear_1."),
            ("language.mm_projector.2.", "multi_modal_projector.linear_2."),
        ):
            if name.startswith(ours):
                expected[name] = torch.randn(own.shape)
                tensors[theirs + name.removeprefix(ours)] = expected[name]
    write_shards(tensors, tmp_path, "safetensors")
    notes = load_language(model, tmp_path, FreshTokens(0, 0.02, 0))
    assert len(expected) > 10 and all(torch.equal(own_tensors(model)[name], each) for name, each in expected.items())
    assert "1 ignored: vision_tower.*" in "\n".join(notes)


def test_sam1_comes_from_its_own_file(releases):
    model = fives()
    notes = load_segmenter(model, releases / "sam1.pth")
    assert not differing(model, "segmenter.")
    assert notes == [f"{releases / 'sam1.pth'}: 174 tensors taken (SAM 1)"]


def test_lora_of_a_run_stays_as_it_was_drawn_over_unmerged_weights(releases):
    model = VideoLisa(NANO, VOCABULARY, SEG)
    add_lora(model, replace(NANO.lora, rank=2, targets=("qkv_proj",)))
    before = {name: each.clone() for name, each in model.named_parameters() if ".lora_" in name}
    load_complete(model, releases / "trained")
    assert not differing(model, "language.llama")
    assert before and all(torch.equal(model.get_parameter(name), each) for name, each in before.items())


GLUS_SIZES = ModelConfig()


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        (GLUS_SIZES, {"videolisa": "merged"}, "weights.videolisa is a VideoLISA checkpoint, but model.method is glus"),
        (NANO, {"glus": "glus"}, "weights.glus is a GLUS checkpoint, but model.method is videolisa"),
        (GLUS_SIZES, {"glus": "merged"}, "merged is a VideoLISA checkpoint: give it as weights.videolisa"),
        (NANO, {"videolisa": "glus"}, "glus is a GLUS checkpoint: give it as weights.glus, with model.method=glus"),
        (NANO, {"language": "merged"}, "merged is a VideoLISA checkpoint: give it as weights.videolisa"),
        (
            NANO,
            {"segmenter": "sam2.pt"},
            "holds SAM 2, but model.segmenter.kind is sam1: set it to sam2, or name a SAM 1",
        ),
        (
            replace(NANO, segmenter=SegmenterConfig()),
            {"segmenter": "sam1.pth"},
            "holds SAM 1, but model.segmenter.kind is sam2: set it to sam1, or name a SAM 2",
        ),
        (NANO, {"vision": "clip224"}, "model.vision.image_size is 336, its image_size is 224"),
    ],
)
def test_methods_and_weights_that_do_not_go_together_are_refused(releases, config, weights, message):
    given = WeightsConfig(**{key: str(releases / name) for key, name in weights.items()})
    if given.complete and not given.vision:
        given = replace(given, vision=str(releases / "clip"))
    with pytest.raises(ModelError, match=message):
        check_released(given, config, Tokenizer(releases / "merged"))


def test_a_phi3_tokenizer_without_seg_is_refused_with_a_videolisa_checkpoint(releases, tmp_path):
    write_tokenizer(tmp_path, seg=False)
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.fresh == ("[SEG]",)
    message = r"has no \[SEG\], with which a VideoLISA checkpoint is trained: copy added_tokens.json"
    with pytest.raises(ModelError, match=message):
        check_released(weights_of(releases, "merged"), NANO, tokenizer)


def test_a_release_with_a_parameter_too_few_is_refused_before_anything_is_loaded(releases, tmp_path):
    folder = write_videolisa(tmp_path / "less")
    tensors = {name: each for name, each in merged_tensors().items() if TOWER not in name}
    gone = "model.visual_model.mask_decoder.iou_token.weight"
    for file in folder.glob("pytorch_model*"):
        file.unlink()
    write_shards({name: each for name, each in tensors.items() if name != gone}, folder)
    with pytest.raises(ModelError, match=rf"1 missing: {gone}"):
        open_release(WeightsConfig(videolisa=str(folder), vision=str(releases / "clip")))
