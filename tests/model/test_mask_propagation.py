"""Masks of a few frames followed by SAM 2's memory, against sam2's own video predictor."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glus.common.errors import ModelError
from glus.model.inference.mask_propagation import MaskPropagation

from .tiny import SMALL_SAM2

pytestmark = pytest.mark.slow

SIDE, FRAMES = SMALL_SAM2.image_size, 26


@pytest.fixture(scope="module")
def propagation() -> MaskPropagation:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MaskPropagation(SMALL_SAM2).eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A folder of JPEG frames of SAM 2's own size, on which a square moves, and what they decode to."""
    folder, frames = tmp_path_factory.mktemp("clip"), []
    draw = np.random.Generator(np.random.Philox(key=1))
    ground = draw.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    for index in range(FRAMES):
        picture = ground.copy()
        picture[20:40, index : index + 20] = (230, 60, 20)
        Image.fromarray(picture).save(folder / f"{index:05d}.jpg", quality=95)
        frames.append(np.asarray(Image.open(folder / f"{index:05d}.jpg")))
    return folder, torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def square(index: int, width: int) -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[20:40, index : index + width] = True
    return mask


GIVEN = [4, 9, 20]


def masks() -> torch.Tensor:
    """bool [2, 3, S, S]: the square, and its left half."""
    return torch.stack([torch.stack([square(index, width) for index in GIVEN]) for width in (20, 10)])


def test_masks_go_the_way_of_sam2s_own_predictor(propagation, clip):
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    folder, frames = clip
    ours = {seen.index: seen.logits for seen in propagation.follow(lambda index: frames[index], FRAMES, GIVEN, masks())}
    predictor = propagation.segmenter.sam2
    own_class = predictor.__class__
    predictor.__class__ = SAM2VideoPredictor
    try:
        for name in ("non_overlap_masks", "clear_non_cond_mem_around_input", "add_all_frames_to_correct_as_cond"):
            setattr(predictor, name, False)
        predictor.fill_hole_area = 0
        state = predictor.init_state(str(folder), offload_state_to_cpu=True)
        for row, of_expression in enumerate(masks()):
            for index, mask in zip(GIVEN, of_expression, strict=True):
                predictor.add_new_mask(state, frame_idx=index, obj_id=row, mask=mask)
        theirs = {}
        for reverse in (False, True):
            for index, _, logits in predictor.propagate_in_video(state, reverse=reverse):
                theirs[index] = logits[:, 0]
    finally:
        predictor.__class__ = own_class
    assert set(ours) == set(theirs) == set(range(FRAMES))
    varied = torch.stack([theirs[index] for index in range(FRAMES) if index not in GIVEN])
    assert varied.std() > 0.01
    for index in set(range(FRAMES)) - set(GIVEN):
        # The predictor keeps its memories in bfloat16.
        torch.testing.assert_close(ours[index], theirs[index].float(), atol=0.02 * float(varied.std()), rtol=0.02)
    for place, index in enumerate(GIVEN):
        assert torch.equal(ours[index] > 0, masks()[:, place])


def test_expressions_in_chunks_are_as_all_together_and_each_frame_is_encoded_once(propagation, clip, monkeypatch):
    _, frames = clip
    given = torch.cat([masks(), masks()[:1].flip(-1)])
    encoded = []
    forward = propagation.segmenter.sam2.forward_image
    monkeypatch.setattr(
        propagation.segmenter.sam2, "forward_image", lambda pixels: (encoded.append(len(pixels)), forward(pixels))[1]
    )
    together = [each.logits for each in propagation.follow(lambda index: frames[index], 12, [4, 9], given[:, :2])]
    assert encoded == [1] * 12
    chunks = propagation.follow(lambda index: frames[index], 12, [4, 9], given[:, :2], expressions_together=2)
    order = []
    for seen, expected in zip(chunks, together, strict=True):
        torch.testing.assert_close(seen.logits, expected, atol=1e-4, rtol=1e-4)
        order.append(seen.index)
    assert order == [*range(4, 12), *range(3, -1, -1)]


def test_memory_does_not_grow_with_the_video(propagation, clip):
    """What is held after frame 40 is what was held after frame 60: SAM 2 looks at most 16 frames back."""
    _, frames = clip
    held = []
    for seen in propagation.follow(lambda index: frames[index % FRAMES], 90, [0], masks()[:, :1]):
        if seen.index in (40, 85):
            held.append(sum(isinstance(each, torch.Tensor) for each in gc.get_objects()))
    assert held[1] <= held[0] + 4


@pytest.mark.parametrize("given", [[], [FRAMES], [-1]])
def test_frames_that_the_video_does_not_have_are_refused(propagation, clip, given):
    with pytest.raises(ModelError, match=r"of a video of 26 frames: give at least one that it has"):
        next(propagation.follow(lambda index: clip[1][index], FRAMES, given, masks()[:, : len(given)]))
