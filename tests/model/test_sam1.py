"""SAM 1 as VideoLISA's segmenter, against numbers recorded from the reference, against Pillow, and by hand."""

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glus.common.errors import ModelError
from glus.model.model_config import ModelConfig, Sam1Config, SegmenterConfig
from glus.model.precision import set_precision
from glus.model.preprocess import for_sam1, sam1_size
from glus.model.released.release_names import sam1_names
from glus.model.trainable import set_trainable
from glus.model.videolisa.frame_segmenter import Sam1Frames, Sam2Frames, build_frame_segmenter

from .tiny import SMALL_SAM2
from .videolisa_reference import recorded_sam1

CARRIED = Path(__file__).parents[1] / "data" / "parity_videolisa"
WHERE = "model.visual_model."


def tiny(**sizes: Any) -> ModelConfig:
    """A SAM 1 of 64 pixels, one windowed and one global block."""
    given = {"image_size": 64, "width": 16, "depth": 2, "heads": 2, "window": 3, "hidden_dim": 32}
    sam1 = Sam1Config(**{**given, "global_attention_blocks": (1,), "decoder_feedforward": 64, **sizes})
    return ModelConfig("videolisa", segmenter=SegmenterConfig(kind="sam1"), sam1=sam1)


class Recorded:
    """A recording of the reference: `values`, `arrays`, and our segmenter with its weights."""

    def __init__(self, folder: Path):
        self.values = json.loads((folder / "expected.json").read_text("utf-8"))
        with np.load(folder / "expected.npz", allow_pickle=False) as stored:
            self.arrays = {name: torch.from_numpy(stored[name]) for name in stored}
        sam1 = recorded_sam1(json.loads((folder / "sam.json").read_text("utf-8")))
        self.config = ModelConfig(method="videolisa", segmenter=SegmenterConfig(kind="sam1"), sam1=sam1)
        shapes = json.loads((folder / "parameters.json").read_text("utf-8"))
        self.names = [name for name in shapes if name.startswith(WHERE)]
        named = sam1_names(self.config.sam1, WHERE)
        self.segmenter = Sam1Frames(self.config)
        self.segmenter.load_state_dict(
            {str(named.ours(name)).removeprefix("segmenter."): _by_rule(name, shapes[name]) for name in self.names}
        )
        self.segmenter.eval()

    def pixels(self, name: str, index: list[int] | None = None) -> torch.Tensor:
        frames = self.arrays[name].permute(0, 3, 1, 2)
        return self.segmenter.pixels(frames if index is None else frames[index], torch.float32)

    def masks(self, name: str, shape: list[int]) -> np.ndarray:
        bits = np.unpackbits(self.arrays[name].numpy(), count=int(np.prod(shape)))
        return bits.reshape(shape).astype(bool)


def _by_rule(name: str, shape: list[int]) -> torch.Tensor:
    x = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
    if not name.endswith("positional_encoding_gaussian_matrix"):
        if len(shape) <= 1:
            x = 0.1 * x + (1 if name.endswith("weight") else 0)
        else:
            x = x * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(x.astype(np.float16).astype(np.float32))


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded(CARRIED)


def test_every_parameter_of_the_reference_has_a_name_in_ours_and_back(recorded):
    names = sam1_names(recorded.config.sam1, WHERE)
    ours = {name: names.ours(name) for name in recorded.names}
    assert {str(each).removeprefix("segmenter.") for each in ours.values()} == set(recorded.segmenter.state_dict())
    assert {name: names.released(str(each)) for name, each in ours.items()} == {name: name for name in ours}


def test_the_names_of_vit_h_are_those_of_its_file():
    """Names and shapes of sam_vit_h_4b8939.pth: 594 tensors (segment_anything's build_sam_vit_h)."""
    with torch.device("meta"):
        segmenter = Sam1Frames(ModelConfig("videolisa", segmenter=SegmenterConfig(kind="sam1")))
    names = sam1_names(Sam1Config())
    released = {names.released(f"segmenter.{name}"): tuple(each.shape) for name, each in segmenter.state_dict().items()}
    assert len(released) == 594 and None not in released
    assert released["image_encoder.pos_embed"] == (1, 64, 64, 1280)
    assert released["image_encoder.blocks.31.attn.rel_pos_h"] == (127, 80)
    assert released["image_encoder.blocks.30.attn.rel_pos_w"] == (27, 80)
    assert released["mask_decoder.output_hypernetworks_mlps.3.layers.2.weight"] == (32, 256)
    assert sum(int(np.prod(shape)) for shape in released.values()) == 641_090_864


@pytest.mark.slow
def test_training_computes_the_recorded_logits(recorded):
    for video, facts in enumerate(recorded.values["train"]):
        sparse, dense = facts["sparse_index"], facts["dense_index"]
        pixels = recorded.pixels(f"train_frames_{video}", [sparse[place] for place in dense])
        with torch.no_grad():
            features = recorded.segmenter.encode(pixels).embedding
        thinned = recorded.arrays[f"train_sam_features_{video}"]
        torch.testing.assert_close(features[:, ::16, ::8, ::8], thinned, atol=1e-3, rtol=1e-3)
        prompts = recorded.arrays[f"train_seg_embedding_{video}"]
        with torch.no_grad():
            logits = recorded.segmenter(pixels[None], prompts, torch.zeros(len(prompts), dtype=torch.int64))
        expected = recorded.arrays[f"train_low_res_logits_{video}"]
        torch.testing.assert_close(logits[..., ::5, ::5], expected, atol=1e-3, rtol=1e-4)
        print(f"video {video}: logits differ by {float((logits[..., ::5, ::5] - expected).abs().max()):.1e}")
        height, width = facts["size"][:2] if isinstance(facts["size"], list) else facts["size"]
        assert list(sam1_size(height, width, 1024)) == list(facts["resized"])


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["infer_landscape", "infer_portrait"])
def test_inference_computes_the_recorded_masks(recorded, clip):
    facts = recorded.values[clip]
    prompt = recorded.arrays[f"{clip}_seg_embedding"][None]
    frames, height, width = facts["masks_shape"]
    with torch.no_grad():
        features = recorded.segmenter.encode(recorded.pixels(f"{clip}_frames"))
        low = recorded.segmenter.decode(features, prompt.expand(frames, -1))
    full = recorded.segmenter.full_size(low, height, width)
    torch.testing.assert_close(low[:, ::5, ::5], recorded.arrays[f"{clip}_low_res_logits"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(full[:, ::2, ::2], recorded.arrays[f"{clip}_mask_logits"], atol=1e-3, rtol=1e-4)
    expected = recorded.masks(f"{clip}_masks", facts["masks_shape"])
    assert ((full > 0).numpy() != expected).mean() <= 1e-4
    assert 0.01 < expected.mean() < 0.99
    assert list(sam1_size(height, width, 1024)) == list(facts["resized"])


@pytest.mark.parametrize(("height", "width"), [(48, 64), (90, 61), (301, 223), (33, 401), (64, 64), (64, 50), (3, 5)])
@pytest.mark.parametrize("size", [64, 1024])
def test_sam1_sees_the_very_pixels_that_pillow_makes(height, width, size):
    random = np.random.Generator(np.random.Philox(key=height * 1000 + width))
    frame = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    sizes = Sam1Config()
    ours = for_sam1(torch.from_numpy(frame).permute(2, 0, 1)[None], size, sizes.mean, sizes.std)[0]
    scale = size / max(height, width)
    new = (int(height * scale + 0.5), int(width * scale + 0.5))
    assert sam1_size(height, width, size) == new and max(new) == size
    resized = np.asarray(Image.fromarray(frame).resize(new[::-1], Image.Resampling.BILINEAR))
    expected = np.zeros((3, size, size))
    expected[:, : new[0], : new[1]] = ((resized - np.array(sizes.mean)) / np.array(sizes.std)).transpose(2, 0, 1)
    # One level is 0.017.
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["sam1", "sam2"])
def test_a_frame_of_a_batch_is_segmented_as_it_is_alone(kind):
    """Each kind keeps its contract: the one call of training equals encoding and decoding frame by frame."""
    torch.manual_seed(0)
    config = tiny() if kind == "sam1" else ModelConfig(segmenter=SMALL_SAM2)
    segmenter = build_frame_segmenter(config)
    assert isinstance(segmenter, (Sam1Frames, Sam2Frames))
    segmenter.eval()
    frames = torch.randint(0, 256, (6, 3, 40, 56), dtype=torch.uint8)
    prompts, video_of = torch.randn(3, 32), torch.tensor([0, 1, 1])
    pixels = segmenter.pixels(frames, torch.float32)
    together = segmenter(pixels.unflatten(0, (2, 3)), prompts, video_of)
    assert together.shape == (3, 3, 16, 16) and together.requires_grad
    alone = [
        segmenter.decode(segmenter.encode(pixels[[video * 3 + frame]]), prompts[[row]])
        for row, video in enumerate(video_of.tolist())
        for frame in range(3)
    ]
    torch.testing.assert_close(together.flatten(0, 1), torch.cat(alone), atol=1e-5, rtol=1e-5)
    full = segmenter.full_size(together, 40, 56)
    assert full.shape == (3, 3, 40, 56) and torch.equal(full[1, 2], segmenter.full_size(together[1, 2:], 40, 56)[0])


def test_sam1_in_bf16_returns_bf16_logits():
    segmenter = Sam1Frames(tiny())
    set_precision(segmenter, "bf16")
    assert segmenter.sam1.prompt_encoder.shared_embedding.positional_embedding.dtype == torch.float32
    frames = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    pixels = segmenter.pixels(frames, torch.bfloat16)
    logits = segmenter(pixels[None], torch.randn(1, 32, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int64))
    assert logits.dtype == torch.bfloat16 and bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("train_encoder", [False, True])
def test_every_trained_parameter_gets_a_gradient(train_encoder):
    """ZeRO would wait for one that gets none; NEVER_TRAINED says which these are."""
    config = tiny()
    config = replace(config, segmenter=replace(config.segmenter, train_image_encoder=train_encoder))
    model = torch.nn.Module()
    model.segmenter = Sam1Frames(config)
    everything = ["segmenter.sam1.mask_decoder.*", "segmenter.sam1.prompt_encoder.*"]
    set_trainable(model, everything + ["segmenter.sam1.vision_encoder.*"] * train_encoder)
    frames = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    pixels = model.segmenter.pixels(frames, torch.float32)
    logits = model.segmenter(pixels[None], torch.randn(2, 32), torch.zeros(2, dtype=torch.int64))
    logits.square().sum().backward()
    learn = {name for name, each in model.named_parameters() if each.requires_grad}
    # no_mask_embed is the one of the prompt encoder that is read.
    assert {name for name in learn if "prompt_encoder" in name} == {
        "segmenter.sam1.prompt_encoder.no_mask_embed.weight"
    }
    assert {name for name, each in model.named_parameters() if each.grad is not None} == learn


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"patch_size": 15}, "image_size 64 must be a multiple of patch_size 15"),
        ({"width": 17}, "width 17 must be a multiple of heads 2"),
        ({"hidden_dim": 24}, "hidden_dim 24 must be a multiple of 16"),
        ({"global_attention_blocks": (2,)}, "2 is none of the 2 blocks"),
        ({"depth": 0}, "model.sam1.depth=0: it must be from 1 to 256"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ModelError, match=message):
        tiny(**sizes)
