"""VideoLISA: what stands for a video, the prefix that expressions share, frames decoded each alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.model.methods import METHODS, model_class
from glus.model.model_config import Method, ModelConfig
from glus.model.precision import set_precision
from glus.model.videolisa.video_lisa import VideoLisa, video_tokens

from .tiny import HIGH, IMAGE, SEG, VOCABULARY, WIDE
from .tiny_videolisa import BEGIN, SHOWN, prompts_of, small_batch, small_config, small_videolisa

TEXTS = [[7, 8, 9, 10], [11, 12], [13, 14, 15], [7, 8, 20], [21], [22, 23], [24, 25, 26], [27, 28]]


def test_sparse_tokens_are_means_and_dense_ones_all_patches_of_their_frames():
    tokens = torch.arange(3 * 4 * 2, dtype=torch.float32).view(3, 4, 2)
    found = video_tokens(tokens, torch.tensor([0, 0, 2]), torch.tensor([2]))
    assert torch.equal(found[:3], torch.stack([tokens[0].mean(0), tokens[0].mean(0), tokens[2].mean(0)]))
    assert torch.equal(found[3:], tokens[2])


def test_every_method_has_its_class():
    assert model_class("videolisa") is VideoLisa and set(METHODS) == set(get_args(Method))


def trained(config: ModelConfig, share: bool, **batch: object) -> tuple[dict[str, float], dict[str, Tensor], list[int]]:
    """Losses, gradients, and tokens of each pass of the language model, of one step."""
    model = small_videolisa(replace(config, share_video_tokens=share)).train()
    read: list[int] = []
    model.language.llama.model.register_forward_pre_hook(
        lambda _, args, keys: read.append(keys["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    out = model(small_batch(WIDE, HIGH, **batch))
    out.loss.backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {name: loss.item() for name, loss in out.losses.items()}, gradients, read


@pytest.mark.parametrize(("family", "window"), [("phi3", 0), ("phi3", 9), ("llama", 0), ("qwen3", 0)])
@pytest.mark.parametrize("batch", [{"padding": 3}, {"silent": (1, 3)}])
def test_a_shared_prefix_gives_the_losses_and_gradients_of_separate_prompts(family, window, batch):
    config = small_config(family, sliding_window=window)
    losses, gradients, read = trained(config, True, **batch)
    alone, of_alone, read_alone = trained(config, False, **batch)
    assert losses == pytest.approx(alone, rel=1e-5)
    assert gradients.keys() == of_alone.keys()
    for name, gradient in of_alone.items():
        torch.testing.assert_close(gradients[name], gradient, atol=2e-5, rtol=1e-4)
    # One row a video, the longer has expressions of 3, 5 and 4 words; separately one an expression, 8 words at most.
    assert read == [2 * (len(BEGIN) + SHOWN + 3 * 4 + 3 + 5 + 4)]
    assert read_alone == [4 * (len(BEGIN) + SHOWN + 4 + 8)]


def test_one_expression_a_video_is_read_as_it_is():
    model = small_videolisa(small_config()).train()
    rows = []
    model.language.llama.model.register_forward_pre_hook(
        lambda _, args, keys: rows.append((len(keys["inputs_embeds"]), keys.get("position_ids"))), with_kwargs=True
    )
    model(small_batch(HIGH, replace(HIGH, seed=5)))
    assert rows == [(2, None)]


def test_a_batch_without_any_seg_has_mask_losses_of_0_and_a_gradient_everywhere():
    """Under ZeRO-3 a parameter without gradient on one rank would leave the others waiting."""
    model = small_videolisa(small_config()).train()
    answered, silent = small_batch(WIDE), small_batch(WIDE, silent=(0, 1, 2))
    found = []
    for batch in (answered, silent):
        model.zero_grad()
        out = model(batch)
        out.loss.backward()
        found.append({name for name, each in model.named_parameters() if each.grad is not None})
    assert out.losses["mask_bce"].item() == 0 and out.losses["mask_dice"].item() == 0
    assert found[0] == found[1] and any("mask_decoder" in name for name in found[1])


def segmented(model: VideoLisa, texts: Sequence[list[int]], **options: object) -> tuple[Tensor, list[int], list[int]]:
    """Logits [E, T, H, W], tokens of each pass of the language model, and rows of each pass of SAM's encoder."""
    frames = WIDE.frames()
    read: list[int] = []
    encoded: list[int] = []
    hooks = [
        model.language.llama.model.register_forward_pre_hook(
            lambda _, args, keys: read.append(keys["inputs_embeds"].shape[:2].numel()), with_kwargs=True
        ),
        model.segmenter.sam1.vision_encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0]))),
    ]
    ids, attention = prompts_of(list(texts), padding=2)
    sparse, dense = [0, 0, 1, 2, 3, 4], [1, 3]
    seen = list(model.segment_video(lambda i: frames[i], len(frames), sparse, dense, (ids, attention), **options))
    for hook in hooks:
        hook.remove()
    assert [each.index for each in seen] == list(range(len(frames)))
    return torch.stack([each.logits for each in seen], dim=1), read, encoded


@pytest.mark.parametrize("window", [0, 9])
def test_expressions_asked_together_get_the_masks_that_they_get_alone(window):
    model = small_videolisa(small_config(sliding_window=window)).eval()
    together, read, encoded = segmented(model, TEXTS, expressions_together=3)
    assert encoded == [1] * 5
    assert read[0] == len(BEGIN) + SHOWN and len(read) == 1 + 3
    alone = torch.cat([segmented(model, [text])[0] for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    without_prefix, rows, _ = segmented(model, TEXTS, reuse_prefix=False)
    torch.testing.assert_close(together, without_prefix, atol=1e-4, rtol=1e-4)
    assert len(rows) == 1
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_eight_expressions_take_at_most_015_of_the_tokens_of_asking_each_anew():
    """With VideoLISA's 2,336 video tokens; the sizes of the frames are what makes that number."""
    base = small_config(max_positions=4096)
    config = replace(base, vision=replace(base.vision, image_size=192, patch_size=8))
    model = small_videolisa(config).eval()
    sparse, dense = [i * 5 // 32 for i in range(32)], [0, 1, 3, 4]
    shown = 32 + 4 * 576
    frames, read = WIDE.frames(), []
    model.language.llama.model.register_forward_pre_hook(
        lambda _, args, keys: read.append(keys["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    texts = [[number % 30 + 7] * 14 for number in range(8)]
    prompt = prompts_of(texts)
    next(model.segment_video(lambda i: frames[i], 5, sparse, dense, prompt))
    # The reference reads each prompt from its first token to its last.
    reference = sum(int(row.sum()) - 1 + shown for row in prompt[1])
    print(f"{sum(read)} tokens, {sum(read) / reference:.3f} of the reference's {reference}")
    assert sum(read) <= 0.15 * reference
    assert read[0] == len(BEGIN) + shown and len(read) == 2
    # Training: one packed row.
    batch = small_batch(replace(WIDE, words=(14,) * 8))
    masks = [MaskRuns.of(torch.zeros(8, 4, 24, 40, dtype=torch.bool))]
    read.clear()
    model(replace(batch, context=torch.tensor([sparse]), query=torch.tensor([dense]), masks=masks))
    assert len(read) == 1
    assert sum(read) <= 0.15 * reference


def test_a_frame_alone_decides_its_mask():
    model = small_videolisa(small_config()).eval()
    frames = WIDE.frames()
    other = frames.clone()
    other[2] = 255 - other[2]
    masks = []
    for given in (frames, other):
        # Frame 2 is not shown to the language model.
        def frame(index: int, given: Tensor = given) -> Tensor:
            return given[index]

        seen = model.segment_video(frame, 5, [0, 1, 3, 4], [1, 3], prompts_of(TEXTS[:1]))
        masks.append(torch.stack([each.logits[0] for each in seen]))
    same = [torch.equal(one, two) for one, two in zip(*masks, strict=True)]
    assert same == [True, True, False, True, True]


@pytest.mark.parametrize("kind", ["sam1", "sam2"])
def test_videolisa_segments_with_either_sam(kind):
    model = small_videolisa(small_config("llama", kind)).eval()
    frames = HIGH.frames()
    seen = list(model.segment_video(lambda i: frames[i], 5, [0, 4], [4], prompts_of(TEXTS[:2])))
    assert all(each.logits.shape == (2, 36, 20) and each.logits.isfinite().all() for each in seen)
    assert model.train()(small_batch(WIDE)).loss.isfinite()


def asked(ids: list[list[int]], **changes: object) -> None:
    model = small_videolisa(small_config(max_positions=64)).eval()
    given = torch.tensor(ids, dtype=torch.int64).view(len(ids), len(ids[0]) if ids else 4)
    frames = WIDE.frames()
    arguments = {"frames": 5, "sparse": [0, 1], "dense": [1]} | changes
    prompt = given, torch.ones_like(given, dtype=torch.bool)
    next(model.segment_video(lambda i: frames[i], prompt=prompt, **arguments))


@pytest.mark.parametrize(
    ("ids", "changes", "message"),
    [
        ([[1, IMAGE, 5, SEG]], {"frames": 0}, "the video has no frames"),
        ([[1, IMAGE, 5, SEG]], {"dense": [7]}, r"outside the video \[7\]: show at least one of each, from 0 to 4"),
        ([[1, IMAGE, 5, SEG]], {"sparse": []}, "0 sparse and 1 dense frames"),
        ([], {}, "no expression was given"),
        ([[1, IMAGE, 5, SEG], [1, IMAGE, IMAGE, SEG]], {}, "expression 2 of 2: its prompt holds 2 <image> where one"),
        ([[1, IMAGE, 5, 6]], {}, r"expression 1 of 1: its prompt holds 0 \[SEG\]"),
        ([[1, IMAGE, SEG, SEG]], {}, r"its prompt holds 2 \[SEG\]"),
        ([[1, SEG, IMAGE, 5]], {}, r"its prompt holds 1 \[SEG\] where the answer after the video has one"),
        ([[1, IMAGE, *[5] * 50, SEG]], {}, "too long: its prompt takes 70 positions, the language model has 64"),
    ],
)
def test_what_cannot_be_asked_is_refused(ids, changes, message):
    with pytest.raises(ModelError, match=message):
        asked(ids, **changes)


def test_the_vocabulary_may_have_no_room_for_images():
    """-200 is no row of the table, with a prefix or without."""
    model = small_videolisa(small_config())
    assert model.language.llama.get_input_embeddings().num_embeddings == VOCABULARY
    model.train()(small_batch(WIDE)).loss.backward()
    gradient = model.language.llama.get_input_embeddings().weight.grad
    assert not gradient[0].any()  # padding and <image> are clamped to 0 and not read


@pytest.mark.parametrize("share", [True, False])
def test_bf16_trains_and_segments_near_float32(share):
    config = replace(small_config(sliding_window=9), share_video_tokens=share)
    losses, masks = [], []
    for precision in ("fp32", "bf16"):
        model = small_videolisa(config)
        set_precision(model, precision)
        out = model.train()(small_batch(WIDE))
        out.loss.backward()
        losses.append({name: loss.item() for name, loss in out.losses.items()})
        masks.append(segmented(model.eval(), TEXTS[:2])[0] > 0)
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert (masks[0] != masks[1]).float().mean() < 0.1
