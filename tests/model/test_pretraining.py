"""Losses that stand in for released weights: what they reward, and which parts of the model a stage runs."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.data_pipeline.batches.batch import Batch
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.model.glus import Glus
from glus.model.model_config import LossConfig, ModelConfig, VisionConfig
from glus.model.pretraining.pretraining_glus import PretrainingGlus, StandIns, point_prompts, without_later
from glus.model.pretraining.stand_in_config import StandInConfig

from .tiny import HIGH, IMAGE, SEG, VOCABULARY, WIDE, tiny_batch, tiny_config

HEADS = StandInConfig(attributes=(3, 2), place_cells=4)
NOTHING = LossConfig(cross_entropy=0, mask_bce=0, mask_dice=0, contrastive=0)


def config(loss: LossConfig = NOTHING, **stand_ins: float | tuple[int, ...]) -> ModelConfig:
    sizes = tiny_config()
    return replace(
        sizes,
        method="pretraining",
        vision=replace(sizes.vision, pool=1, spread=0.3),
        language=replace(sizes.language, max_positions=512),
        loss=loss,
        stand_ins=replace(HEADS, **stand_ins),
    )


def model(loss: LossConfig = NOTHING, **stand_ins: float | tuple[int, ...]) -> PretrainingGlus:
    torch.manual_seed(0)
    return PretrainingGlus(config(loss, **stand_ins), VOCABULARY, SEG)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Two videos whose expressions' targets are their objects; the first word of each group is said of the first."""
    made = tiny_batch(WIDE, HIGH)
    attributes = [torch.tensor([[0, 1]] + [[2, -1]] * (len(masks.set_of) - 1)) for masks in made.masks]
    return replace(made, object_masks=made.masks, attributes=attributes)


def touched(built: PretrainingGlus, batch: Batch) -> set[str]:
    """The parts of the model that a step's gradient reaches."""
    loss = built(batch).loss
    built.zero_grad()
    loss.backward()
    names = [name for name, each in built.named_parameters() if each.grad is not None and each.grad.any()]
    return {".".join(name.split(".")[:2]) for name in names}


def one_mask(rows: slice, columns: slice, objects: int = 1) -> MaskRuns:
    mask = torch.zeros(objects, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, rows, columns] = True
    return MaskRuns.of(mask)


def place_loss(cell: int | None, masks: MaskRuns, certainty: float = 50.0) -> float:
    """Loss of [SEG] states that name a cell of 4 x 4 (None: none)."""
    heads = StandIns(config())
    with torch.no_grad():
        heads.place.weight.zero_()
        heads.place.bias.zero_()
        if cell is not None:
            heads.place.bias[cell] = certainty
        return heads.place_loss(torch.zeros(len(masks.set_of), 1, 32), [masks]).item()


def test_the_place_loss_rewards_the_cell_that_the_object_covers() -> None:
    in_one_cell = one_mask(slice(2, 4), slice(6, 8))  # second row, last column
    assert place_loss(7, in_one_cell) == pytest.approx(0, abs=1e-6)
    assert place_loss(6, in_one_cell) == pytest.approx(50)
    assert place_loss(None, in_one_cell) == pytest.approx(math.log(16))


def test_an_object_over_two_cells_asks_for_both_by_their_shares() -> None:
    over_two = one_mask(slice(0, 2), slice(0, 4))
    assert place_loss(0, over_two) == pytest.approx(25) == place_loss(1, over_two)
    assert place_loss(None, over_two) == pytest.approx(math.log(16))


def test_frames_without_the_object_count_for_nothing() -> None:
    half = one_mask(slice(0, 2), slice(0, 2), objects=2)  # the second object is nowhere
    assert place_loss(None, half) == pytest.approx(math.log(16))
    nowhere = one_mask(slice(0, 0), slice(0, 0))
    assert place_loss(3, nowhere) == 0


def named(tower: Tensor, masks: MaskRuns, attributes: list[list[int]]) -> Tensor:
    heads = StandIns(config())

    class Labelled:
        object_masks = (masks,)

    Labelled.attributes = (torch.tensor(attributes),)
    with torch.no_grad():
        heads.tower.weight.copy_(torch.eye(7, 16))
        heads.tower.bias.zero_()
        return heads.tower_loss(tower, Labelled())


def test_a_patch_names_the_words_of_its_object_and_patches_without_one_name_nothing() -> None:
    masks = one_mask(slice(0, 4), slice(0, 4))  # the first of 2 x 2 patches
    right = torch.zeros(1, 1, 4, 16)
    right[0, 0, 0, [1, 4]] = 50.0  # word 1 of 3 (and none); word 0 of 2 (and none)
    right[0, 0, 1:, [3, 6]] = 50.0
    assert named(right, masks, [[1, 0]]) == pytest.approx(0, abs=1e-6)
    wrong = right.clone()
    wrong[0, 0, 0] = right[0, 0, 1]
    assert named(wrong, masks, [[1, 0]]) == pytest.approx(100)
    assert named(wrong, masks, [[-1, 0]]) == pytest.approx(50), "an unknown word counts for nothing"
    filled = right.clone()
    filled[0, 0, 1:] = right[0, 0, 0]
    assert named(filled, masks, [[1, 0]]) == pytest.approx(25), "a quarter for patches without an object, in each group"


def test_a_single_frame_is_not_asked_for_motion(batch: Batch) -> None:
    """The language loss names the groups that it is told to: in a batch, all is the sum of the first and the rest."""

    def loss(*groups: int) -> float:
        pretraining = model(language=1.0, language_layer=1, language_groups=groups)
        with torch.no_grad():
            return pretraining(batch).losses["words_of_language"].item()

    assert loss(0) > 0 and loss(1) > 0
    assert loss(0) + loss(1) == pytest.approx(loss(), rel=1e-5)
    with pytest.raises(ModelError, match="language_groups=.*2 is none of the 2 groups"):
        StandInConfig(attributes=(3, 2), language_groups=(2,))


def test_points_name_the_middle_of_each_object_once() -> None:
    segmenter = model().segmenter
    masks = torch.zeros(2, 3, 8, 16, dtype=torch.bool)
    masks[0, :, 2:4, 8:12] = True
    masks[1, 1:] = True  # not in the first frame
    prompts = point_prompts(segmenter, [MaskRuns.of(masks)], 2.0)
    assert prompts.shape == (2, 3, 32)
    middle = torch.tensor([[10 / 16, 3 / 8]])
    expected = 2.0 * segmenter.sam2.sam_prompt_encoder.pe_layer._pe_encoding(middle)[0]
    assert torch.allclose(prompts[0, 0], expected, atol=1e-6)
    assert not prompts[0, 1:].any() and not prompts[1].any()


def test_a_stage_runs_what_its_losses_need(batch: Batch) -> None:
    tower = touched(model(tower=1.0), batch)
    assert tower == {"language.vision_tower", "stand_ins.tower"}
    language = touched(model(language=1.0, language_layer=1), batch)
    assert language == {"language.vision_tower", "language.mm_projector", "language.llama", "stand_ins.language"}
    place = touched(model(place=1.0), batch)
    assert {"stand_ins.place", "language.text_hidden_fcs"} <= place and "segmenter.sam2" not in place
    points = touched(model(LossConfig(0, contrastive=0), points=4.0), batch)
    assert points == {"segmenter.sam2"}


def test_states_inside_the_language_model_see_what_stands_before_a_frame_and_not_what_follows(batch: Batch) -> None:
    built = model(language=1.0, language_layer=2).eval()
    ids = batch.ids.clone()
    for row in ids:
        last = int((row == IMAGE).nonzero()[-1])
        row[last + 1 : last + 3] = (row[last + 1 : last + 3] + 1) % SEG
    before = batch.ids.clone()
    before[:, 0] = 3
    with torch.no_grad():
        one, after, other = (built(replace(batch, ids=each)).loss for each in (batch.ids, ids, before))
    assert not torch.equal(ids, batch.ids)
    assert torch.equal(one, after) and not torch.equal(one, other)


def test_with_the_losses_of_glus_alone_it_is_glus(batch: Batch) -> None:
    loss = LossConfig(contrastive=0)
    built = model(loss)
    torch.manual_seed(0)
    glus = Glus(replace(config(loss), method="glus"), VOCABULARY, SEG)
    glus.load_state_dict({k: v for k, v in built.state_dict().items() if not k.startswith("stand_ins.")})
    own, theirs = built(batch), glus(batch)
    assert own.losses == theirs.losses
    assert torch.equal(own.seg_states, theirs.seg_states)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StandInConfig(tower=1.0), "attributes is empty"),
        (lambda: StandInConfig(place=1.0), "place_cells is 0"),
        (lambda: PretrainingGlus(replace(config(language=1.0), vision=VisionConfig(pool=4)), 40, 37), "pool is 4"),
        (lambda: model(language=1.0, language_layer=9), "language_layer is 9, but the language model has 2"),
        (lambda: model(tower=1.0)(tiny_batch(WIDE)), "set sampling.attributes"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(make, message) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_later_query_frames_lose_their_prompt_in_the_share_that_is_asked() -> None:
    torch.manual_seed(0)
    left = without_later(torch.ones(500, 4, 3), 0.3).any(-1)
    assert left[:, 0].all()
    assert left[:, 1:].float().mean() == pytest.approx(0.7, abs=0.04)


def test_prompts_are_left_out_in_training_alone(batch: Batch) -> None:
    """Without any later prompt the masks of the first query frame stay, and those of the second change."""
    loss = replace(NOTHING, mask_bce=1.0)
    with_all, without = (model(loss, unprompted=share) for share in (0.0, 1.0))
    assert with_all.eval()(batch).loss == without.eval()(batch).loss
    assert with_all.train()(batch).loss != without.train()(batch).loss
