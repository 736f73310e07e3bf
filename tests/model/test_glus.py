"""The training forward on a tiny model: shapes, gradients, and what must not change a video's result."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.model.glus import Glus, GlusOutput
from glus.model.precision import set_precision
from glus.model.preprocess import for_segmenter, for_vision_tower
from glus.model.trainable import NEVER_TRAINED

from .tiny import HIGH, QUERY, WIDE, tiny_batch, tiny_config, tiny_model

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Result:
    """What the model makes of a batch; logits: float [E, Q, S/4, S/4]."""

    out: GlusOutput
    logits: Tensor


def run(model: Glus, batch: Batch) -> Result:
    seen: list[Tensor] = []
    hook = model.segmenter.register_forward_hook(lambda *call: seen.append(call[-1]))
    out = model(batch)
    hook.remove()
    return Result(out, seen[0])


@pytest.fixture(scope="module")
def model() -> Glus:
    return tiny_model().eval()


@pytest.fixture(scope="module")
def together(model) -> Result:
    with torch.no_grad():
        return run(model, tiny_batch(WIDE, HIGH))


def test_videos_of_different_sizes_give_states_masks_and_finite_losses(together):
    assert together.out.seg_states.shape == (4, QUERY, 32)
    assert together.logits.shape == (4, QUERY, 16, 16)
    assert set(together.out.losses) == {"cross_entropy", "mask_bce", "mask_dice"}
    assert all(loss.shape == () and torch.isfinite(loss) and loss > 0 for loss in together.out.losses.values())
    assert together.out.loss.item() == pytest.approx(sum(loss.item() for loss in together.out.losses.values()))


def test_every_mask_counts_the_same_whatever_its_videos_size_and_number_of_expressions(together):
    batch, start, bce = tiny_batch(WIDE, HIGH), 0, []
    for target in (masks.painted() for masks in batch.masks):
        for row, of_expression in enumerate(target):
            logits = together.logits[start + row].unsqueeze(0)
            full = F.interpolate(logits, size=of_expression.shape[-2:], mode="bilinear", align_corners=False)[0]
            bce += [F.binary_cross_entropy_with_logits(*pair) for pair in zip(full, of_expression.float(), strict=True)]
        start += len(target)
    assert len(bce) == 4 * QUERY
    assert together.out.losses["mask_bce"].item() == pytest.approx(2.0 * torch.stack(bce).mean().item(), rel=1e-5)


@torch.no_grad()
def test_the_language_model_reads_context_then_query_and_the_segmenter_sees_the_query_frames(model):
    batch, seen = tiny_batch(WIDE, HIGH), {}
    hooks = [
        model.language.vision_tower.register_forward_pre_hook(lambda _, given: seen.update(language=given[0])),
        model.segmenter.register_forward_pre_hook(lambda _, given: seen.update(segmenter=given[0])),
    ]
    model(batch)
    for hook in hooks:
        hook.remove()
    vision, sam2 = model.config.vision, model.config.segmenter
    for number, clip in enumerate((WIDE, HIGH)):
        frames = clip.frames()
        read = for_vision_tower(frames[[0, 4, 2, 3]], 32, vision.mean, vision.std)
        assert torch.equal(seen["language"][4 * number : 4 * number + 4], read)
        assert torch.equal(seen["segmenter"][number], for_segmenter(frames[[2, 3]], 64, sam2.mean, sam2.std))


@torch.no_grad()
def test_a_videos_result_does_not_depend_on_the_rest_of_the_batch(model, together):
    wide, high = run(model, tiny_batch(WIDE)), run(model, tiny_batch(HIGH))
    for field in ("logits", "seg_states"):
        alone = torch.cat([getattr(each.out if field == "seg_states" else each, field) for each in (wide, high)])
        mixed = getattr(together.out if field == "seg_states" else together, field)
        torch.testing.assert_close(mixed, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_of_the_videos_does_not_matter(model, together):
    turned = run(model, tiny_batch(HIGH, WIDE))
    torch.testing.assert_close(turned.logits[[1, 2, 3, 0]], together.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turned.out.loss, together.out.loss, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_does_not_change_a_seg_state(model, together):
    padded = run(model, tiny_batch(WIDE, HIGH, padding=9))
    torch.testing.assert_close(padded.out.seg_states, together.out.seg_states, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_expressions_and_frames_of_one_video_end_in_different_states(together):
    states = together.out.seg_states.flatten(0, 1)
    distance = torch.cdist(states, states) + torch.eye(len(states))
    assert distance.min() > 1e-2


def without_gradient(model: Glus) -> set[str]:
    """Parameters that one backward leaves without a gradient, or with nought."""
    model.train()
    model(tiny_batch(WIDE, HIGH)).loss.backward()
    return {name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()}


def below(model: Glus, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def never_trained(model: Glus) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in NEVER_TRAINED)}


def test_from_scratch_every_parameter_learns_but_those_that_never_can():
    model = tiny_model(tiny_config(train_image_encoder=True, train_memory=True))
    assert without_gradient(model) == never_trained(model)
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)


def test_without_their_switches_the_image_encoder_and_the_memory_get_no_gradient():
    model = tiny_model(tiny_config(train_image_encoder=False, train_memory=False))
    sam2 = "segmenter.sam2."
    frozen = below(
        model,
        f"{sam2}image_encoder.",
        f"{sam2}memory_",
        # Part of SAM 2's image features.
        f"{sam2}sam_mask_decoder.conv_s0.",
        f"{sam2}sam_mask_decoder.conv_s1.",
    )
    assert without_gradient(model) == never_trained(model) | frozen


def test_the_memory_learns_without_the_image_encoder():
    model = tiny_model(tiny_config(train_image_encoder=False, train_memory=True))
    silent = without_gradient(model)
    assert below(model, "segmenter.sam2.image_encoder.") <= silent
    assert not silent & below(model, "segmenter.sam2.memory_attention.", "segmenter.sam2.memory_encoder.")


def test_a_batch_goes_forward_and_back_in_bfloat16() -> None:
    model = tiny_model(tiny_config(train_image_encoder=True, train_memory=True))
    set_precision(model, "bf16")
    out = model(tiny_batch(WIDE, HIGH))
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert all(torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None)


def test_fresh_masks_start_at_the_prior() -> None:
    with torch.no_grad():
        start = [
            run(tiny_model(tiny_config(mask_prior=prior)), tiny_batch(WIDE)).logits.mean() for prior in (-4.0, 2.0)
        ]
    assert start[0] == pytest.approx(-4, abs=1)
    assert start[1] == pytest.approx(2, abs=1)


@torch.no_grad()
def test_what_is_void_in_a_video_counts_in_no_mask_loss(model):
    batch = tiny_batch(WIDE, HIGH)
    void = torch.zeros(1, QUERY, WIDE.height, WIDE.width, dtype=torch.bool)
    void[..., : WIDE.width // 2] = True
    runs = [replace(batch.masks[0], void=MaskRuns.of(void)), batch.masks[1]]
    turned = [MaskRuns.of(batch.masks[0].painted() ^ void), batch.masks[1]]
    turned[0] = replace(turned[0], void=runs[0].void)
    plain, first, second = (model(replace(batch, masks=masks)).losses for masks in (batch.masks, runs, turned))
    for name in ("mask_bce", "mask_dice"):
        assert torch.equal(first[name], second[name]) and first[name] != plain[name]
    assert torch.equal(runs[0].to("cpu").void.painted(), void)
