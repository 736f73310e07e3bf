"""Tokens, states, losses, gradients and masks against those that the public VideoLISA code computed.

`pytest tests/model --videolisa-fixture FOLDER -rP` holds the model against another recording of the same form.
"""

import zlib
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.model.language.prompt_rows import Reading
from glus.model.losses import mask_bce, mask_dice

from .test_parity import assert_near
from .videolisa_reference import VideoLisaRecording, videolisa_rule

#: SAM at 1024 pixels, forward and backward.
pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
CLIPS = ("infer_landscape", "infer_portrait")


def test_the_rule_gives_the_recorded_weights(videolisa):
    total = 0
    for name in sorted(videolisa.shapes):
        total = zlib.crc32(videolisa_rule(name, videolisa.shapes[name]).astype("<f4").tobytes(), total)
    assert total == videolisa.values["weights_crc32"]


@dataclass(frozen=True)
class Trained:
    """What one forward and backward pass left behind."""

    clip_features: Tensor  # [F, P, C] of all frames of all videos
    video_tokens: Tensor  # [V, N, hidden]
    reading: Reading
    seg_hidden: Tensor
    states: Tensor
    sam_features: Tensor  # [V * 4, C, h, w]
    low: Tensor  # [E, 4, h, w]
    losses: dict[str, float]
    gradients: dict[str, Tensor | None]  # of trained parameters, by our names
    logits: Tensor
    labels: Tensor


def train_once(videolisa: VideoLisaRecording, batch: Batch, share: bool) -> Trained:
    """One forward and backward pass of the recorded model over a recorded batch."""
    model = videolisa.model().train()
    model.config = replace(model.config, share_video_tokens=share)
    seen = {}
    model.language.vision_tower.register_forward_hook(
        lambda *call: seen.update(clip=call[-1].last_hidden_state[:, 1:].detach())
    )
    model.segmenter.register_forward_hook(lambda *call: seen.update(low=call[-1].detach()))
    model.segmenter.sam1.vision_encoder.register_forward_hook(
        lambda *call: seen.update(sam=call[-1].last_hidden_state.detach())
    )
    readings = []
    read_prompts = model.language.read

    def keep(*given, **switches):
        readings.append((given[2].detach(), read_prompts(*given, **switches)))
        return readings[-1][1]

    model.language.read = keep
    out = model(batch)
    out.loss.backward()
    [(tokens, reading)] = readings
    with torch.no_grad():
        read, labels = reading.labelled(batch.answer)
        return Trained(
            clip_features=seen["clip"],
            video_tokens=tokens[:, 0],
            reading=reading,
            seg_hidden=reading.before_first(model.language.seg_id)[0],
            states=out.seg_states[:, 0].detach(),
            sam_features=seen["sam"],
            low=seen["low"],
            losses={name: loss.item() for name, loss in out.losses.items()} | {"loss": out.loss.item()},
            gradients={name: each.grad for name, each in model.named_parameters() if each.requires_grad},
            logits=model.language.logits(read),
            labels=labels,
        )


@pytest.fixture(scope="module")
def train_batch(videolisa: VideoLisaRecording) -> Batch:
    return videolisa.train_batch()


@pytest.fixture(scope="module", params=["shared prefix", "prompt by prompt"])
def trained(request, videolisa: VideoLisaRecording, train_batch: Batch) -> Trained:
    return train_once(videolisa, train_batch, request.param == "shared prefix")


def test_a_frames_features_are_those_of_the_reference(videolisa, train_batch, trained):
    starts = torch.tensor([0, *(len(each) for each in train_batch.frames)]).cumsum(0)[:-1]
    frames = (starts[:, None] + train_batch.context)[train_batch.video_of]
    ours = trained.clip_features[frames][:, ::8, ::16, ::2]
    assert_near("CLIP features", ours, videolisa.tensor("train_clip_features"), 1e-4)


def test_sparse_and_dense_tokens_are_those_of_the_reference(videolisa, train_batch, trained):
    tokens, sparse = trained.video_tokens[train_batch.video_of], train_batch.context.shape[1]
    assert_near("sparse tokens", tokens[:, :sparse, ::2], videolisa.tensor("train_sparse_tokens"), 1e-4)
    assert_near("dense tokens", tokens[:, sparse:][:, ::16, ::4], videolisa.tensor("train_dense_tokens"), 1e-4)


def test_answers_are_predicted_and_learnt_as_in_the_reference(videolisa, trained):
    assert trained.labels.tolist() == videolisa.arrays["train_answer_labels"].tolist()
    assert_near("answer logits", trained.logits, videolisa.tensor("train_answer_logits"), 1e-3)


def test_seg_states_are_those_of_the_reference(videolisa, trained):
    assert_near("[SEG] states", trained.seg_hidden, videolisa.tensor("train_seg_hidden"), 1e-4)
    assert_near("[SEG] prompts", trained.states, videolisa.of_all_videos("train_seg_embedding"), 1e-4)


def test_sams_features_and_logits_are_those_of_the_reference(videolisa, trained):
    features = trained.sam_features[:, ::16, ::8, ::8]
    assert_near("SAM features", features, videolisa.of_all_videos("train_sam_features"), 1e-3)
    low = trained.low[..., ::5, ::5]
    assert_near("low-resolution logits", low, videolisa.of_all_videos("train_low_res_logits"), 1e-3)


def check_losses(videolisa: VideoLisaRecording, trained: Trained, kind: str) -> None:
    for ours, theirs in (
        ("cross_entropy", "ce_loss"),
        ("mask_bce", "mask_bce_loss"),
        ("mask_dice", "mask_dice_loss"),
        ("loss", "loss"),
    ):
        expected = torch.tensor([videolisa.values[f"{kind}_{theirs}"]])
        assert_near(f"{kind} {ours}", torch.tensor([trained.losses[ours]]), expected, 1e-4, relative=True)
    norms = videolisa.values[f"{kind}_grad_norm"]
    found = torch.tensor([trained.gradients[videolisa.our_name(name)].norm() for name in norms])
    assert_near(f"{kind} gradient norms", found, torch.tensor(list(norms.values())), 1e-3, relative=True)


def test_losses_and_gradients_are_those_of_the_reference(videolisa, trained):
    check_losses(videolisa, trained, "train")


def test_what_is_trained_and_what_has_no_gradient_is_as_in_the_reference(videolisa, trained):
    values = videolisa.values
    named = {key: {videolisa.our_name(name) for name in values[key]} for key in ("trained", "train_without_gradient")}
    zero = {videolisa.our_name(name) for name in values["train_with_zero_gradient"]}
    # What no loss reaches is frozen here: ZeRO would wait for its gradients. The reference gives it none, or 0.
    assert set(trained.gradients) == named["trained"] - named["train_without_gradient"] - zero
    assert all(each is not None and each.any() for each in trained.gradients.values())


def test_lora_goes_where_the_reference_puts_it(videolisa):
    adapted = [name for name, _ in videolisa.model().named_modules() if name.endswith(".lora_A")]
    targets = [f"language.llama.{name}.lora_A" for name in videolisa.values["lora_targets"]]
    assert sorted(adapted) == sorted(targets)


@pytest.mark.parametrize("share", [True, False])
def test_pictures_and_an_answer_without_seg_train_as_in_the_reference(videolisa, share):
    trained = train_once(videolisa, videolisa.image_batch(), share)
    check_losses(videolisa, trained, "image")
    answered = [number for number, (prompts, *_) in enumerate(videolisa.values["image_prompts_shape"]) if prompts]
    assert 0 < len(answered) < len(videolisa.values["image"])
    for number in answered:
        own = slice(number, number + 1)
        assert_near("[SEG] prompt", trained.states[own], videolisa.tensor(f"image_seg_embedding_{number}"), 1e-4)
        low = videolisa.tensor(f"image_low_res_logits_{number}")
        assert_near("logits", trained.low[own, :, ::5, ::5], low, 1e-3)


def test_the_mask_losses_are_those_of_the_reference(videolisa):
    logits, target = videolisa.tensor("loss_logits"), videolisa.tensor("loss_target").float()
    for ours, key in ((mask_bce, "loss_bce"), (mask_dice, "loss_dice")):
        each = ours(logits, target)
        assert_near(key, torch.cat([each, each.mean()[None]]), torch.tensor(videolisa.values[key]), 1e-6)


@dataclass(frozen=True)
class Segmented:
    """Our masks of a recorded clip: logits float [T, H, W]; low float [T, h, w]; the prompt of the decoder [C]."""

    logits: Tensor
    low: Tensor
    tokens: Tensor
    prompt: Tensor
    hidden: Tensor


def segment(videolisa: VideoLisaRecording, clip: str, key: str) -> Segmented:
    """Segment a recorded clip with the window of the entry `key`, asked twice so that the prefix is reused."""
    facts = videolisa.values[key]
    frames = videolisa.frames(f"{clip}_frames")
    model = videolisa.model(merged=True, sliding_window=facts["sliding_window"] or 0).eval()
    sparse = facts["sparse_index"]
    dense = [sparse[place] for place in facts["dense_index"]]
    ids = torch.tensor([facts["input_ids"]]).repeat(2, 1)
    low, hidden, prompts, tokens = [], [], [], []
    decode, project, encode = model.segmenter.decode, model.language.seg_states, model.language.frame_tokens

    def keep(into, function):
        def kept(*given):
            out = function(*given)
            into.append((given, out))
            return out

        return kept

    model.segmenter.decode = keep(low, decode)
    model.language.seg_states = keep(hidden, project)
    model.language.frame_tokens = keep(tokens, encode)
    attention = torch.ones_like(ids, dtype=torch.bool)
    followed = list(model.segment_video(lambda index: frames[index], len(frames), sparse, dense, (ids, attention)))
    assert [each.index for each in followed] == list(range(len(frames)))
    assert all(each.answered.all() and each.expressions.tolist() == [0, 1] for each in followed)
    [((read,), prompts)] = hidden
    [(_, encoded)] = tokens
    for both in (prompts, *(each.logits for each in followed)):
        assert torch.equal(both[0], both[1])
    distinct = sorted({*sparse, *dense})
    means = encoded.mean(1)[[distinct.index(index) for index in sparse]]
    details = encoded[[distinct.index(index) for index in dense]].flatten(0, 1)
    return Segmented(
        logits=torch.stack([each.logits[0] for each in followed]),
        low=torch.stack([out[0] for _, out in low]),
        tokens=torch.cat([means, details]),
        prompt=prompts[0],
        hidden=read[0],
    )


def check_masks(videolisa: VideoLisaRecording, ours: Segmented, key: str, shape: list[int], step: int) -> None:
    assert_near(f"{key}, [SEG] state", ours.hidden, videolisa.tensor(f"{key}_seg_hidden"), 1e-4)
    assert_near(f"{key}, prompt", ours.prompt, videolisa.tensor(f"{key}_seg_embedding"), 1e-4)
    expected = videolisa.masks(f"{key}_masks", shape)
    differ = (ours.logits > 0) != expected
    print(f"{key}: {int(differ.sum())} of {differ.numel()} pixels differ")
    assert differ.float().mean() <= 1e-4
    logits = ours.logits[:, ::step, ::step]
    assert_near(f"{key}, logits", logits, videolisa.tensor(f"{key}_mask_logits"), 1e-3)


@pytest.mark.parametrize("clip", CLIPS)
def test_a_clips_masks_are_those_of_the_reference(videolisa, clip):
    facts, ours = videolisa.values[clip], segment(videolisa, clip, clip)
    sparse = len(facts["sparse_index"])
    assert_near("sparse tokens", ours.tokens[:sparse, ::2], videolisa.tensor(f"{clip}_sparse_tokens"), 1e-4)
    assert_near("dense tokens", ours.tokens[sparse:][::16, ::4], videolisa.tensor(f"{clip}_dense_tokens"), 1e-4)
    low = ours.low[:, ::5, ::5]
    assert_near("low-resolution logits", low, videolisa.tensor(f"{clip}_low_res_logits"), 1e-3)
    check_masks(videolisa, ours, clip, facts["masks_shape"], 2)


def test_with_every_recorded_sliding_window_masks_are_those_of_the_reference(videolisa):
    keys = sorted(key for key in videolisa.values if "_window_" in key)
    assert keys
    for key in keys:
        ours = segment(videolisa, key[: key.index("_window_")], key)
        check_masks(videolisa, ours, key, videolisa.values[key]["masks_shape"], 7)
