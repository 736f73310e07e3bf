"""Released weights: each takes its place by name, what has none is told, and what is damaged is refused."""

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.model.glus import Glus
from glus.model.released.load_release import (
    FreshTokens,
    load_complete,
    load_language,
    load_segmenter,
    load_vision,
    own_tensors,
)
from glus.model.released.release_files import ReleasedWeights
from glus.model.released.release_sizes import check_language, check_vision, language_of, vision_of
from glus.model.trainable import add_lora

from .reference import NANO, our_name
from .releases import (
    SEG,
    VOCABULARY,
    lisa_tensors,
    rule_tensors,
    sam2_tensors,
    write_clip,
    write_glus,
    write_lisa,
    write_sam2,
    write_shards,
)

pytestmark = pytest.mark.slow

NONE_FRESH = FreshTokens(0, 0.02, seed=0)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """glus/ (bin), glus-safe/, lisa/, clip/, clip-whole/, sam2.pt, sam2.1.pt."""
    root = tmp_path_factory.mktemp("releases")
    write_glus(root / "glus")
    write_glus(root / "glus-safe", "safetensors")
    write_lisa(root / "lisa")
    write_clip(root / "clip")
    write_clip(root / "clip-whole", whole=True)
    write_sam2(root / "sam2.pt")
    write_sam2(root / "sam2.1.pt", newer=True)
    return root


@pytest.fixture
def model() -> Glus:
    """The recorded sizes, every value 5: what is not loaded shows."""
    return fives()


def fives(**changed: object) -> Glus:
    made = Glus(dataclasses.replace(NANO, **changed), VOCABULARY, SEG)
    for tensor in made.state_dict().values():
        tensor.fill_(5.0)
    return made


def differing(model: Glus, *parts: str) -> set[str]:
    """Names of the model below `parts` that do not hold the rule's values."""
    own = own_tensors(model)
    expected = {our_name(name): each.float() for name, each in rule_tensors().items() if not name.startswith("transfo")}
    return {name for name, each in own.items() if name.startswith(parts) and not torch.equal(each, expected[name])}


@pytest.mark.parametrize("form", ["glus", "glus-safe"])
def test_a_glus_checkpoint_fills_everything_but_the_vision_tower(model, releases, form):
    told = load_complete(model, releases / form)
    assert not differing(model, "language.llama", "language.mm_projector", "language.text_hidden_fcs", "segmenter.")
    assert all((each == 5).all() for name, each in own_tensors(model).items() if "vision_tower" in name)
    assert told[0] == f"{releases / form}: 324 tensors taken (GLUS)"


def test_lora_stays_as_it_was_drawn_beside_the_loaded_weights(releases):
    model = fives()
    add_lora(model, dataclasses.replace(NANO.lora, rank=2))
    before = {name: each.clone() for name, each in model.named_parameters() if ".lora_" in name}
    load_complete(model, releases / "glus")
    assert not differing(model, "language.llama")
    assert before and all(torch.equal(model.get_parameter(name), each) for name, each in before.items())


@pytest.mark.parametrize("whole", ["clip", "clip-whole"])
def test_the_vision_tower_comes_from_clip_up_to_the_layer_that_is_read(model, releases, whole):
    told = load_vision(model, releases / whole)
    assert not differing(model, "language.vision_tower")
    assert any(
        "16 ignored: vision_model.encoder.layers.2.* (above the hidden state that is read" in line for line in told
    )
    assert any("text_model.*" in line for line in told) == (whole == "clip-whole")


@pytest.mark.parametrize(("file", "ignored"), [("sam2.pt", 0), ("sam2.1.pt", 2)])
def test_sam_2_and_2_1_fill_the_segmenter_and_what_2_1_has_more_is_told(model, releases, file, ignored):
    told = load_segmenter(model, releases / file)
    assert not differing(model, "segmenter.")
    assert sum(" ignored: " in line for line in told) == ignored
    assert any("no_obj_embed_spatial" in line for line in told) == bool(ignored)


def test_lisa_gives_language_model_and_projector_and_its_sam_1_is_told(model, releases):
    told = load_language(model, releases / "lisa", NONE_FRESH)
    assert not differing(model, "language.llama", "language.mm_projector")
    assert all((each == 5).all() for name, each in own_tensors(model).items() if name.startswith("segmenter."))
    for part, count in {"image_encoder": 2, "prompt_encoder": 1, "mask_decoder": 1}.items():
        assert (
            f"{releases / 'lisa'}: {count} ignored: model.visual_model.{part}.* (SAM 1, which GLUS replaces by SAM 2)"
            in told
        )
    assert any("model.layers.*.self_attn.rotary_emb.inv_freq" in line for line in told)


def test_text_hidden_fcs_starts_as_torch_draws_a_linear_layer_whatever_lisa_holds(releases):
    models = [fives(), fives(), fives()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        told = load_language(model, releases / "lisa", FreshTokens(0, 0.02, seed))
    assert told[-1].endswith("freshly drawn: text_hidden_fcs")
    first, again, other = ([p.detach() for p in model.language.text_hidden_fcs.parameters()] for model in models)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, other, strict=True))
    bound = 1 / math.sqrt(NANO.language.hidden_size)
    for parameter in first:  # uniform within the bound: reaches near it, with the deviation of a uniform draw
        assert 0.9 * bound < parameter.abs().max() <= bound
        assert parameter.std() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def small_llama(folder: Path, rows: int, **changed: object) -> Callable[[Tensor], Tensor]:
    """A Llama that transformers itself saved; returns its logits of ids."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(vocab_size=rows, max_position_embeddings=128, initializer_range=0.3, **sizes | changed)
        made = LlamaForCausalLM(config).eval()
    made.save_pretrained(folder)
    return lambda ids: made(ids).logits


KINDS = {
    "vicuna": {},
    "tinyllama": {"num_key_value_heads": 2, "rms_norm_eps": 1e-5},
    "smollm2": {"num_key_value_heads": 3, "tie_word_embeddings": True, "rope_theta": 100_000.0},
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_llama_of_transformers_computes_the_same_in_our_model(tmp_path, kind):
    theirs = small_llama(tmp_path / kind, VOCABULARY, **KINDS[kind])
    config = language_of(tmp_path / kind)
    assert config.tie_embeddings == (kind == "smollm2")
    model = fives(language=config)
    check_language(tmp_path / kind, model.config)
    told = load_language(model, tmp_path / kind, NONE_FRESH)
    assert told[-1].endswith("freshly drawn: text_hidden_fcs, mm_projector")
    ids = torch.tensor([[1, 50, 7, 300, 562]])
    tokens = torch.zeros(1, 0, 64, config.hidden_size)
    hidden = model.eval().language.read(ids, ids > 0, tokens).hidden
    torch.testing.assert_close(model.language.logits(hidden), theirs(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vicuna", "smollm2"])
def test_rows_of_added_tokens_are_drawn_as_the_reference_draws_them(tmp_path, kind):
    small_llama(tmp_path / kind, VOCABULARY - 3, **KINDS[kind])
    drawn = []
    for _ in range(2):
        model = fives(language=language_of(tmp_path / kind))
        told = load_language(model, tmp_path / kind, FreshTokens(3, 0.25, seed=4))
        drawn.append(model.language.llama.get_input_embeddings().weight.detach().clone())
    stored = dict(ReleasedWeights.open(tmp_path / kind).tensors())["model.embed_tokens.weight"]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0][:-3], stored)
    assert drawn[0][-3:].std() == pytest.approx(0.25, rel=0.2)
    tables = ["model.embed_tokens.weight"] + ["lm_head.weight"] * (kind == "vicuna")
    for table in tables:
        assert f"{tmp_path / kind}: {table}: 3 rows drawn for added tokens (deviation 0.25)" in told


def test_rows_above_the_tokenizers_tokens_are_left_out_and_told(tmp_path):
    small_llama(tmp_path / "padded", VOCABULARY + 13)
    model = fives(language=language_of(tmp_path / "padded"))
    told = load_language(model, tmp_path / "padded", FreshTokens(3, 0.02, seed=0))
    assert sum("13 rows above the tokenizer's 563 tokens left out" in line for line in told) == 2


def test_a_language_model_with_too_few_rows_for_the_tokenizer_is_refused(tmp_path):
    small_llama(tmp_path / "other", VOCABULARY - 40)
    model = fives(language=language_of(tmp_path / "other"))
    with pytest.raises(ModelError, match=r"has 523 rows, but the tokenizer has 563 tokens, 3 of them added: the tok"):
        load_language(model, tmp_path / "other", FreshTokens(3, 0.02, seed=0))


def test_a_glus_checkpoint_given_as_language_model_is_refused(model, releases):
    with pytest.raises(ModelError, match=r"is a GLUS checkpoint: give it as weights\.glus"):
        load_language(model, releases / "glus", NONE_FRESH)


def test_every_missing_and_every_unknown_name_is_told(model, tmp_path):
    tensors = sam2_tensors()
    del tensors["no_mem_embed"], tensors["memory_encoder.out_proj.bias"]
    torch.save({"model": tensors | {"extra.weight": torch.zeros(2)}}, tmp_path / "sam2.pt")
    with pytest.raises(ModelError) as caught:
        load_segmenter(model, tmp_path / "sam2.pt")
    assert "2 missing: no_mem_embed, memory_encoder.out_proj.bias; 1 unknown: extra.weight" in str(caught.value)


def test_many_missing_names_are_told_with_a_star_and_their_number(model, tmp_path):
    tensors = {name: each for name, each in lisa_tensors().items() if ".layers." not in name}
    (tmp_path / "lisa").mkdir()
    write_shards(tensors, tmp_path / "lisa")
    with pytest.raises(ModelError, match=r"18 missing: .*model\.layers\.\*\.self_attn\.q_proj\.weight \(2\)"):
        load_language(model, tmp_path / "lisa", NONE_FRESH)


def test_nothing_is_loaded_where_shapes_differ_and_every_one_is_told(model, tmp_path):
    tensors = sam2_tensors()
    tensors["no_mem_embed"] = torch.zeros(1, 1, 128)
    tensors["memory_encoder.out_proj.bias"] = torch.zeros(32)
    torch.save({"model": tensors}, tmp_path / "sam2.pt")
    with pytest.raises(ModelError) as caught:
        load_segmenter(model, tmp_path / "sam2.pt")
    assert "no_mem_embed has [1, 1, 128], the config makes [1, 1, 256]" in str(caught.value)
    assert "memory_encoder.out_proj.bias has [32], the config makes [64]" in str(caught.value)
    assert all((each == 5).all() for each in model.state_dict().values())


def test_sizes_of_config_json_that_differ_are_told_by_both_their_keys(tmp_path, releases):
    folder = write_glus(tmp_path / "glus", rms_norm_eps=1e-5, num_hidden_layers=3, out_dim=128)
    with pytest.raises(ModelError) as caught:
        check_language(folder, NANO, VOCABULARY)
    for part in (
        "model.language.rms_norm_eps is 1e-06, its rms_norm_eps is 1e-05",
        "model.language.layers is 2, its num_hidden_layers is 3",
        "model.segmenter.hidden_dim is 256, its out_dim is 128",
    ):
        assert part in str(caught.value)
    with pytest.raises(ModelError, match=r"the tokenizer's number of tokens is 560, its vocab_size is 563"):
        check_language(releases / "glus", NANO, 560)
    with pytest.raises(ModelError, match=r"model\.vision\.heads is 2, its num_attention_heads is 4"):
        check_vision(releases / "clip-whole", dataclasses.replace(NANO.vision, heads=2))
    with pytest.raises(ModelError, match=r"model\.vision\.mean is \(0.5, 0.5, 0.5\), its image_mean is"):
        check_vision(releases / "clip", dataclasses.replace(NANO.vision, mean=(0.5, 0.5, 0.5)))


def test_sizes_can_be_taken_from_the_releases(releases):
    assert language_of(releases / "glus") == NANO.language
    assert vision_of(releases / "clip") == vision_of(releases / "clip-whole") == NANO.vision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "its model_type is 'qwen2'; this code runs a plain Llama"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "its rope_scaling is"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "its rope_scaling is"),
        ({"attention_bias": True}, "its attention_bias is True"),
        ({"head_dim": 128}, "head_dim 128 times 4 heads is not its hidden_size"),
    ],
)
def test_another_architecture_is_refused_by_the_key_that_shows_it(tmp_path, change, message):
    folder = write_glus(tmp_path / "glus", **change)
    with pytest.raises(ModelError) as caught:
        check_language(folder, NANO)
    assert message in str(caught.value)


@pytest.mark.parametrize(("stored", "head_dim"), [({"head_dim": 24}, 24), ({"head_dim": 16}, 0), ({}, 128)])
def test_qwen3_says_how_wide_its_heads_are(tmp_path, stored, head_dim):
    folder = write_glus(tmp_path / "qwen3", model_type="qwen3", hidden_size=64, num_attention_heads=4, **stored)
    assert language_of(folder).head_dim == head_dim
    config = dataclasses.replace(NANO, language=language_of(folder))
    check_language(folder, config)
    other = dataclasses.replace(config, language=dataclasses.replace(config.language, head_dim=32))
    with pytest.raises(ModelError, match=rf"model\.language\.head_dim is 32, its head_dim is {head_dim}"):
        check_language(folder, other)


def mapped_file(tensor: Tensor) -> Path | None:
    """The file of which a tensor's memory is a mapping."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(each, 16) for each in fields[0].split("-"))
        if start <= tensor.data_ptr() < end and len(fields) == 6:
            return Path(fields[5])
    return None


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no table of this process's mappings here")
@pytest.mark.parametrize("place", ["glus", "glus-safe", "sam2.pt"])
def test_files_are_mapped_not_read(releases, place):
    released = ReleasedWeights.open(releases / place)
    tensors = released.tensors()
    _, tensor = next(tensors)
    assert mapped_file(tensor) in released.shards
    assert mapped_file(tensor.clone()) not in released.shards


def cut(file: Path, kept: float = 0.6) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_truncated_weights_are_refused_with_their_file(tmp_path, form):
    folder = write_glus(tmp_path / "glus", form)
    [first, _] = sorted(folder.glob(f"*-of-*.{form}"))
    cut(first)
    with pytest.raises(ModelError, match=rf"{first.name} cannot be read .*incomplete, download it again"):
        ReleasedWeights.open(folder)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "sam2.pt").touch()
    with pytest.raises(ModelError, match=r"sam2\.pt cannot be read .*download it again"):
        ReleasedWeights.open(tmp_path / "sam2.pt")


def test_a_missing_shard_is_named_with_the_index_that_names_it(tmp_path):
    folder = write_glus(tmp_path / "glus")
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelError, match=r"names pytorch_model-00002-of-00002\.bin \(163 parameters\), which is not"):
        ReleasedWeights.open(folder)


@pytest.mark.parametrize("shard", ["../elsewhere.bin", "/etc/passwd", 7])
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path, shard):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match=r"a lies in .*, which is no file of that folder"):
        ReleasedWeights.open(tmp_path)


def test_shards_that_do_not_belong_to_their_index_are_refused(tmp_path):
    folder = write_glus(tmp_path / "glus")
    torch.save({"strange": torch.zeros(1)}, folder / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(ModelError, match="00002-of-00002.bin holds other parameters than its index says .164, first"):
        ReleasedWeights.open(folder)


class Harmful:
    """A pickle that runs a command where it is opened carelessly."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_its_code_not_run(tmp_path, zipped):
    file = tmp_path / "pytorch_model.bin"
    torch.save({"w": Harmful(tmp_path / "ran")}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"holds more than tensors \(posix\.system\).*pickle with code, which"):
        ReleasedWeights.open(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"step": 3, "w": torch.zeros(1)}, [1, 2], {}])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="name a file of weights"):
        ReleasedWeights.open(tmp_path / "w.pt")


def test_an_absent_place_and_a_folder_without_weights_are_refused(tmp_path):
    with pytest.raises(ModelError, match="nowhere is not there: name the folder or file"):
        ReleasedWeights.open(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"holds no weights: there is neither of model\.safetensors\.index\.json, "):
        ReleasedWeights.open(tmp_path)
    with pytest.raises(ModelError, match=r"config\.json: no such table of settings: correct the path"):
        language_of(tmp_path)


def test_the_recorded_files_load_to_the_rules_values(model, shared_parity):
    check_language(shared_parity / "GLUS-nano", NANO, VOCABULARY)
    check_vision(shared_parity / "clip-nano", NANO.vision)
    load_complete(model, shared_parity / "GLUS-nano")
    load_vision(model, shared_parity / "clip-nano")
    assert not differing(model, "")
    for parameter in model.segmenter.parameters():
        parameter.data.fill_(5.0)
    load_segmenter(model, shared_parity / "sam2_hiera_nano.pt")
    assert not differing(model, "segmenter.")
