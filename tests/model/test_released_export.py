"""LoRA merged and a model written as GLUS is released: the same names, shapes and masks, read back."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.data_pipeline.batches.conversations import inference_prompt
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.launch.commands.export import write_release
from glus.model.glus import Glus
from glus.model.precision import set_precision
from glus.model.released.release_files import ReleasedWeights
from glus.model.released.write_release import merge_lora, released_tensors, write_shards
from glus.model.trainable import add_lora
from glus.training.release_info import VISION_TOWER

from .reference import CARRIED, NANO, Recording
from .releases import SEG, VOCABULARY, open_glus
from .tiny import WIDE, tiny_batch, tiny_model

pytestmark = pytest.mark.slow

TOWER = "model.vision_tower.vision_tower."


def with_lora(model: Glus, rank: int = 4) -> Glus:
    """LoRA beside all projections of attention, drawn so that it changes what comes out."""
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    add_lora(model, dataclasses.replace(model.config.lora, rank=rank, targets=targets))
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(0.0, 0.2, generator=draw)
    return model


@torch.no_grad()
def test_a_merged_model_computes_what_it_did_with_lora_beside():
    plain = tiny_model().eval()(tiny_batch(WIDE)).seg_states
    model = with_lora(tiny_model()).eval()
    before = model(tiny_batch(WIDE)).seg_states
    assert (before - plain).abs().max() > 1e-2
    assert merge_lora(model) == 8
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in tiny_model().named_parameters()]
    torch.testing.assert_close(model(tiny_batch(WIDE)).seg_states, before, atol=1e-4, rtol=1e-4)


def test_lora_that_is_not_merged_is_not_left_out_unsaid():
    with pytest.raises(ModelError, match="LoRA is not merged"):
        list(released_tensors(with_lora(tiny_model())))


def test_broken_lora_weights_are_refused_by_the_layer_that_has_them():
    model = with_lora(tiny_model())
    name = "model.layers.1.self_attn.k_proj.lora_B.default.weight"
    model.language.llama.get_parameter(name).data[0] = float("nan")
    with pytest.raises(ModelError, match=r"model\.layers\.1\.self_attn\.k_proj: LoRA cannot be merged"):
        merge_lora(model)


@dataclasses.dataclass(frozen=True)
class Exported:
    """The recorded model with LoRA, merged, and where it was written by each form."""

    model: Glus
    bin: Path
    safetensors: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root, recorded = tmp_path_factory.mktemp("exported"), Recording.open(CARRIED).model()
    # No weight depends on the size of SAM 2's images; small ones take less time.
    small = dataclasses.replace(NANO.segmenter, image_size=256)
    model = Glus(dataclasses.replace(NANO, segmenter=small), VOCABULARY, SEG)
    model.load_state_dict(recorded.state_dict())
    merge_lora(with_lora(model))
    for form in ("bin", "safetensors"):
        (root / form).mkdir()
        write_release(model, Tokenizer(CARRIED), SamplingConfig(), root / form, torch.float32, form, 8_000_000)
    return Exported(model.eval(), root / "bin", root / "safetensors")


def places_of_parameters() -> list[Path]:
    """tests/data/parity/parameters.json, and where it is there the one beside the recorded model."""
    beside = Path(__file__).parents[2].parent / "shared" / "parity"
    return [place / "parameters.json" for place in (CARRIED, beside) if (place / "parameters.json").is_file()]


@pytest.mark.parametrize("form", ["bin", "safetensors"])
@pytest.mark.parametrize("listed", places_of_parameters(), ids=["carried", "beside"][: len(places_of_parameters())])
def test_names_and_shapes_are_those_of_the_reference(exported, form, listed):
    expected = {name: tuple(shape) for name, shape in json.loads(listed.read_text("utf-8")).items()}
    released = ReleasedWeights.open(getattr(exported, form))
    assert released.shapes == {name: shape for name, shape in expected.items() if not name.startswith(TOWER)}
    assert len(released.shards) > 1 and all(file.stat().st_size < 9_000_000 for file in released.shards)
    tower = ReleasedWeights.open(getattr(exported, form) / VISION_TOWER)
    of_tower = {name.removeprefix(TOWER): shape for name, shape in expected.items() if name.startswith(TOWER)}
    assert tower.shapes == of_tower


def test_the_folder_holds_what_a_released_one_does(exported):
    names = {file.name for file in exported.bin.iterdir()}
    assert names >= {
        *("config.json", "pytorch_model.bin.index.json", "tokenizer.model", "tokenizer_config.json"),
        *("added_tokens.json", "special_tokens_map.json"),
    }
    config = json.loads((exported.bin / "config.json").read_text("utf-8"))
    assert (config["architectures"], config["model_type"]) == (["GLUSForCausalLM"], "llava")
    assert (config["vocab_size"], config["rms_norm_eps"], config["out_dim"]) == (563, 1e-6, 256)
    added = json.loads((exported.bin / "added_tokens.json").read_text("utf-8"))
    assert added == {"[SEG]": 560, "<im_start>": 561, "<im_end>": 562}
    index = json.loads((exported.bin / "pytorch_model.bin.index.json").read_text("utf-8"))
    total = sum(tensor.numel() for _, tensor in released_tensors(exported.model))
    assert index["metadata"]["total_size"] == 4 * total


def masks(model: Glus, tokenizer: Tokenizer) -> list[Tensor]:
    """Logits of two expressions in the first two frames of the recorded clip."""
    recording = Recording.open(CARRIED)
    frames = torch.from_numpy(recording.arrays["infer_frames"]).permute(0, 3, 1, 2)[:2]

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        texts = [inference_prompt(text, 2, queries) for text in ("the red bird", "the blue bird")]
        ids = torch.tensor([tokenizer.encode(text) for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)

    return [seen.logits for seen in model.segment_video(lambda index: frames[index], 2, (0, 1), prompts)]


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_loaded_again_it_answers_bit_by_bit_as_before(exported, form):
    loaded, tokenizer, _ = open_glus(getattr(exported, form))
    before, after = exported.model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    if form == "bin":
        pairs = list(zip(masks(exported.model, Tokenizer(CARRIED)), masks(loaded, tokenizer), strict=True))
        assert len(pairs) == 2 and all(torch.equal(*pair) for pair in pairs)
        assert pairs[0][0].std() > 0


def test_the_exported_vision_tower_ends_at_the_same_layer_in_transformers(exported):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    folder = exported.bin / VISION_TOWER
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["num_hidden_layers"] == NANO.vision.layers == 3
    theirs = CLIPVisionModel(CLIPVisionConfig(**config)).eval()
    stored = {name.removeprefix("vision_model."): each for name, each in ReleasedWeights.open(folder).tensors()}
    theirs.load_state_dict(stored)
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        read = theirs(pixels, output_hidden_states=True).hidden_states[NANO.vision.select_layer]
        torch.testing.assert_close(exported.model.language.vision_tower(pixels).last_hidden_state, read)


def test_half_precision_is_that_of_the_language_model_and_told_in_its_config(tmp_path):
    """As GLUS is released: SAM 2 (its positional encoding among it) and text_hidden_fcs stay in float32."""
    model = tiny_model()
    written = [
        write_release(model, Tokenizer(CARRIED), SamplingConfig(), _made(tmp_path / str(dtype)), dtype, "bin", 10**9)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    sizes = [each.size for each in written]
    stored = dict(ReleasedWeights.open(tmp_path / "torch.bfloat16").tensors())
    whole = {name for name, tensor in stored.items() if tensor.dtype is torch.float32}
    assert whole == {name for name in stored if name.startswith(("model.visual_model.", "model.text_h", "transform."))}
    assert {tensor.dtype for name, tensor in stored.items() if name not in whole} == {torch.bfloat16}
    assert sizes[0] - sizes[1] == 2 * sum(tensor.numel() for name, tensor in stored.items() if name not in whole)
    index = json.loads((tmp_path / "torch.bfloat16" / "pytorch_model.bin.index.json").read_text("utf-8"))
    assert index["metadata"]["total_size"] == sizes[1]
    assert json.loads((tmp_path / "torch.bfloat16" / "config.json").read_text("utf-8"))["torch_dtype"] == "bfloat16"


def test_a_model_trained_in_bf16_is_exported_in_it_without_loss(exported, tmp_path):
    model = copy.deepcopy(exported.model)
    set_precision(model, "bf16")
    set_precision(model, "fp32")
    before = model.state_dict()
    write_release(
        model, Tokenizer(CARRIED), SamplingConfig(), _made(tmp_path / "bf16"), torch.bfloat16, "safetensors", 10**9
    )
    after = open_glus(tmp_path / "bf16")[0].state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [name for name, each in before.items() if not torch.equal(each, exported.model.state_dict()[name])]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_tensor_larger_than_a_shard_has_one_of_its_own(tmp_path):
    tensors = [("a", torch.zeros(10)), ("b", torch.ones(1000)), ("c", torch.zeros(10))]
    write_shards(tensors, tmp_path, torch.float32, "bin", shard_bytes=100)
    released = ReleasedWeights.open(tmp_path)
    assert list(released.shards.values()) == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_a_value_that_float16_cannot_hold_is_refused_by_its_name(tmp_path, form):
    tensors = [("model.norm.weight", torch.tensor([1.0, -1e6]))]
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds 1e\+06, which float16 cannot .*dtype=bfloat16"):
        write_shards(tensors, tmp_path, torch.float16, form, shard_bytes=100)
    assert not list(tmp_path.iterdir())
    write_shards(tensors, tmp_path, torch.bfloat16, form, shard_bytes=100)
    [stored] = [tensor for _, tensor in ReleasedWeights.open(tmp_path).tensors()]
    assert stored.tolist() == [1.0, torch.tensor(-1e6).bfloat16().item()]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_never_exported(tmp_path, value):
    with pytest.raises(ModelError, match=r"lm_head\.weight holds NaN or infinite values"):
        write_shards([("lm_head.weight", torch.tensor([0.0, value]))], tmp_path, torch.float32, "bin", 100)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_values_too_small_for_float16_are_counted_with_the_parameter_that_loses_most(tmp_path, form):
    tensors = [
        ("model.norm.weight", torch.tensor([1.0, 1e-9, -1e-9, 0.0])),
        ("lm_head.weight", torch.tensor([[1.0, 1e-9], [6e-8, -1.0]])),
        ("model.text_hidden_fcs.0.0.bias", torch.tensor([1e-9, 1.0])),  # stays float32
    ]
    written = write_shards(tensors, tmp_path, torch.float16, form, shard_bytes=100)
    assert written.underflows == {"model.norm.weight": (2, 4), "lm_head.weight": (1, 4)}
    [line] = written.lost()
    assert line.startswith("3 values of 2 parameters became 0") and "most of all model.norm.weight (2 of 4)" in line
    for kept in (torch.bfloat16, torch.float32):
        assert write_shards(tensors, _made(tmp_path / str(kept)), kept, form, shard_bytes=100).lost() == []


def test_a_parameter_of_which_float16_keeps_nothing_is_refused(tmp_path):
    tensors = [("model.zeros", torch.zeros(2)), ("model.norm.weight", torch.tensor([0.0, 1e-9]))]
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds at most 1e-09, .* 0 in float16: export"):
        write_shards(tensors, tmp_path, torch.float16, "bin", shard_bytes=100)
    assert write_shards(tensors, tmp_path, torch.bfloat16, "bin", shard_bytes=100).lost() == []
