"""Prompts, features, losses and gradients against those that the public GLUS code computed (tests/data/parity).

`pytest tests/model/test_parity.py -rP` prints the largest differences (docs/fidelity.md has them).
"""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from glus.data_pipeline.batches.conversations import conversation, inference_prompt
from glus.data_pipeline.sampling.sample_plan import middle_context

from .reference import CONTEXT, QUERY, Recording, our_name, rule_weight

#: Forward and backward at 1024 pixels take 25 s on two free cores, and minutes on busy ones.
pytestmark = pytest.mark.timeout(900)

#: Ways through the recorded video: from its start, and forward and backward from a key frame.
WINDOWS = ("infer_kf0_forward", "infer_kf_forward", "infer_kf_backward")


def assert_near(what: str, ours: Tensor, theirs: Tensor, most: float, relative: bool = False) -> None:
    """Print the largest difference, absolute or relative, and refuse one above `most`. Shapes must be equal."""
    assert ours.shape == theirs.shape and ours.isfinite().all()
    difference = (ours.double() - theirs.double()).abs()
    if relative:
        difference = difference / theirs.double().abs()
    print(f"{what}: largest difference {difference.max().item():.1e}")
    assert difference.max() <= most


def conversations(recording: Recording) -> list[str]:
    return [
        conversation(text, CONTEXT, templates)
        for video in recording.values["train"]
        for text, templates in zip(video["expressions"], video["qa_template_index"], strict=True)
    ]


def test_training_conversations_read_as_in_the_reference(recording):
    assert conversations(recording) == recording.values["train_conversations"]


def test_training_conversations_have_the_ids_of_the_reference(recording):
    expected, mask = recording.arrays["train_input_ids"], recording.arrays["train_attention_mask"]
    for text, ids, real in zip(conversations(recording), expected, mask, strict=True):
        ours = recording.tokenizer.encode(text)
        assert ours == ids[real].tolist()
        assert (ids[~real] == recording.tokenizer.pad_id).all()


def test_labels_are_those_of_the_reference_at_seg_and_absent_elsewhere(recording):
    for text, labels in zip(conversations(recording), recording.arrays["train_labels"], strict=True):
        ids = recording.tokenizer.encode(text)
        ours = [each if each == recording.tokenizer.seg_id else -100 for each in ids]
        of_seg = np.where(labels == recording.tokenizer.seg_id, labels, -100)[: len(ours)]
        assert ours == of_seg.tolist() and (of_seg != -100).sum() == QUERY


@pytest.mark.parametrize("window", WINDOWS)
def test_every_step_of_inference_has_the_ids_of_the_reference(recording, window):
    steps = recording.values[window]
    text = recording.values["infer_expression"]
    for ids, given in zip(steps["input_ids"], steps["rel_pos"], strict=True):
        prompt = inference_prompt(text, CONTEXT, len(given))
        assert recording.tokenizer.encode(prompt) == ids


@pytest.mark.parametrize("window", WINDOWS)
def test_inference_takes_the_context_frames_of_the_reference(recording, window):
    frames = len(recording.arrays["infer_frames"])
    assert list(middle_context(frames, CONTEXT)) == recording.values[window]["context_index"]


@dataclass(frozen=True)
class Segmented:
    """What our model makes of the recorded video from one key frame; logits: {frame: float [H, W]}."""

    key_frame: int
    logits: dict[int, Tensor]
    answered: bool
    order: list[int]


@pytest.fixture(scope="module")
def segmented(recording: Recording) -> list[Segmented]:
    """The recorded expression from each recorded key frame; they go through the video together."""
    keys = sorted({recording.values[window]["key_frame"] for window in WINDOWS})
    frames = torch.from_numpy(recording.arrays["infer_frames"]).permute(0, 3, 1, 2)
    text = recording.values["infer_expression"]

    def prompts(queries: int) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([recording.tokenizer.encode(inference_prompt(text, CONTEXT, queries))])
        return ids.repeat(len(keys), 1), torch.ones_like(ids, dtype=torch.bool).repeat(len(keys), 1)

    context = middle_context(len(frames), CONTEXT)
    model = recording.model().eval()
    followed = list(model.segment_video(lambda index: frames[index], len(frames), context, prompts, key_frame=keys))
    seen = []
    for row, key in enumerate(keys):
        of_key = [(masks, masks.expressions.tolist().index(row)) for masks in followed if row in masks.expressions]
        seen.append(
            Segmented(
                key,
                {masks.index: masks.logits[place] for masks, place in of_key},
                all(bool(masks.answered[place]) for masks, place in of_key),
                [masks.index for masks, _ in of_key],
            )
        )
    return seen


def test_each_frame_of_the_recorded_video_is_answered_once(recording, segmented):
    frames = len(recording.arrays["infer_frames"])
    for each in segmented:
        assert each.answered
        assert each.order == [*range(each.key_frame, frames), *range(each.key_frame - 1, -1, -1)]


@pytest.mark.parametrize("window", WINDOWS)
def test_inference_masks_are_those_of_the_reference_each_under_its_own_frames_name(recording, segmented, window):
    steps = recording.values[window]
    [ours] = [each.logits for each in segmented if each.key_frame == steps["key_frame"]]
    expected = recording.masks(f"{window}_masks", steps["masks_shape"])
    masks = torch.stack([ours[frame] > 0 for frame in steps["query_order"]]).numpy()
    print(f"{window}: {(masks != expected).sum()} of {masks.size} pixels differ")
    assert (masks != expected).mean() <= 1e-4
    logits = torch.stack([ours[frame] for frame in steps["query_order"]])[:, ::2, ::2]
    assert_near(f"{window}, logits", logits, torch.from_numpy(recording.arrays[f"{window}_mask_logits"]), 1e-3)


@dataclass(frozen=True)
class Trained:
    """What one forward and backward of our model left behind."""

    image_tokens: Tensor  # [V, F, P, hidden]
    seg_states: Tensor  # [E, Q, C]
    low_res_logits: Tensor  # [E, Q, S/4, S/4]
    losses: dict[str, float]
    gradient_norms: dict[str, float]  # by our names


@pytest.fixture(scope="module", params=["packed rows", "prompt by prompt"])
def trained(request: pytest.FixtureRequest, recording: Recording) -> Trained:
    model = recording.model().train()
    model.config = replace(model.config, share_video_tokens=request.param == "packed rows")
    seen: dict[str, Tensor] = {}
    model.language.mm_projector.register_forward_hook(lambda *call: seen.update(image_tokens=call[-1].detach()))
    model.segmenter.register_forward_hook(lambda *call: seen.update(low_res_logits=call[-1].detach()))
    out = model(recording.batch())
    out.loss.backward()
    return Trained(
        image_tokens=seen["image_tokens"].unflatten(0, (recording.videos, CONTEXT + QUERY)),
        seg_states=out.seg_states.detach(),
        low_res_logits=seen["low_res_logits"],
        losses={name: loss.item() for name, loss in out.losses.items()} | {"loss": out.loss.item()},
        gradient_norms={
            name: each.grad.norm().item() for name, each in model.named_parameters() if each.grad is not None
        },
    )


def test_image_tokens_are_those_of_the_reference(recording, trained):
    # The reference encodes the frames of a video again for each of its expressions.
    expected = torch.from_numpy(recording.arrays["train_image_tokens"])
    ours = trained.image_tokens[recording.video_of].flatten(0, 1)[:, ::8, ::4]
    assert_near("image tokens", ours, expected, 1e-4)


def test_seg_states_are_those_of_the_reference(recording, trained):
    assert_near("[SEG] states", trained.seg_states, recording.of_all_videos("train_seg_embedding"), 1e-4)


def test_mask_logits_are_those_of_the_reference(recording, trained):
    ours = trained.low_res_logits[..., ::4, ::4]
    assert_near("low-resolution logits", ours, recording.of_all_videos("train_low_res_logits"), 1e-3)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("cross_entropy", "train_ce_loss"),
        ("mask_bce", "train_mask_bce_loss"),
        ("mask_dice", "train_mask_dice_loss"),
        ("loss", "train_loss"),
    ],
)
def test_losses_are_those_of_the_reference(recording, trained, ours, theirs):
    found, expected = (torch.tensor([each]) for each in (trained.losses[ours], recording.values[theirs]))
    assert_near(ours, found, expected, 1e-4, relative=True)


def test_gradients_have_the_norms_of_the_reference(recording, trained):
    expected = {our_name(name): norm for name, norm in recording.values["train_grad_norm"].items()}
    ours = torch.tensor([trained.gradient_norms[name] for name in expected])
    assert_near("gradient norms", ours, torch.tensor(list(expected.values())), 1e-3, relative=True)


def test_the_reference_gives_no_gradient_to_the_image_encoder_nor_to_the_memory(trained):
    frozen = ("image_encoder", "memory_attention", "memory_encoder")
    assert not [
        name for name in trained.gradient_norms if name.startswith(tuple(f"segmenter.sam2.{x}" for x in frozen))
    ]


def test_the_rule_gives_the_weights_that_were_recorded(shared_parity, recording):
    seg_id = recording.values["seg_token_id"]
    index = json.loads((shared_parity / "GLUS-nano" / "pytorch_model.bin.index.json").read_text())
    compared = 0
    for file in sorted(set(index["weight_map"].values())):
        stored = torch.load(shared_parity / "GLUS-nano" / file, weights_only=True)
        for name, value in stored.items():
            assert np.array_equal(value.float().numpy(), rule_weight(name, tuple(value.shape), seg_id)), name
            compared += 1
    assert compared == len(index["weight_map"]) > 300
