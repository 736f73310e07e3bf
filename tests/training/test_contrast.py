"""The contrastive loss over several ranks: four real processes, and one that has everything."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from glus.common.errors import TrainingError, UserError
from glus.model.contrastive import SegTokens, object_contrastive_loss
from glus.model.model_config import LossConfig
from glus.training.contrast import ContrastiveLoss, pool_shape
from glus.training.distributed import Rank
from tests.forked import run_processes

RANKS, QUERIES, WIDTH = 4, 2, 8
WEIGHT = 0.3
CONFIG = LossConfig(contrastive=WEIGHT, contrastive_frames="all")
BANK = LossConfig(contrastive_pool="bank", bank_size=16, bank_negatives=2)


@dataclass(frozen=True)
class Said:
    """What the loss reads of a batch."""

    query_numbers: Tensor
    video_of: Tensor
    split: Tensor
    video_key: Tensor
    expression: Tensor
    objects: Tensor


def batch_of(rank: int) -> Said:
    """Rank 0: a pair and a rival; 1: more of that video; 2: one expression, no partner; 3: none that takes part."""
    split, videos, objects, expressions = (
        (0, [3, 3, 3], ["10", "10", "01"], [0, 1, 2]),
        (0, [3, 3, 9, 9], ["100", "001", "100", "110"], [3, 4, 0, 1]),
        (0, [5], ["1"], [0]),
        (1, [6, 6], ["1", "1"], [0, 1]),
    )[rank]
    sets = torch.tensor([[digit == "1" for digit in row] for row in objects])
    rows = torch.arange(len(videos))
    query_numbers = rows[:, None] * 0 + torch.arange(QUERIES)
    return Said(query_numbers, rows, rows * 0 + split, torch.tensor(videos), torch.tensor(expressions), sets)


def states_of(rank: int) -> Tensor:
    shape = (len(batch_of(rank).split), QUERIES, WIDTH)
    return torch.randn(shape, generator=torch.Generator().manual_seed(rank), requires_grad=True)


def one_rank(number: int, folder: Path) -> None:
    """Losses and gradients of this rank: all four ranks together, and two pools of two."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/meet", rank=number, world_size=RANKS, timeout=timedelta(seconds=60)
    )
    found = {}
    for wide in (RANKS, 2):
        states = states_of(number)
        told = ContrastiveLoss(CONFIG, Rank(number, number, RANKS), 0, wide).loss([(states, batch_of(number))], 0, 0)
        told.loss.backward()
        found[wide] = (told.loss.detach(), states.grad, int(told.anchors), told.states)
    torch.save(found, folder / f"{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, tuple[Tensor, Tensor, int, int]]]:
    folder = tmp_path_factory.mktemp("ranks")
    run_processes(RANKS, one_rank, folder)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(RANKS)]


def whole(ranks: range) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of one process that holds the batches of `ranks`."""
    states = [states_of(number) for number in ranks]
    contrast = ContrastiveLoss(CONFIG, Rank(0, 0, 1), 0, 1, len(ranks))
    read = [(each, batch_of(number)) for each, number in zip(states, ranks, strict=True)]
    # Scaled to be meaned over these micro-batches.
    loss = contrast.loss(read, 0, 0).loss / len(ranks)
    return loss.detach(), list(torch.autograd.grad(loss, states))


@pytest.mark.ranks
@pytest.mark.parametrize("wide", [RANKS, 2])
def test_value_and_gradient_are_those_of_one_process_over_the_whole_batch(told, wide) -> None:
    for first in range(0, RANKS, wide):
        pool = range(first, first + wide)
        loss, gradients = whole(pool)
        # Engines mean losses and gradients over ranks.
        together = torch.stack([told[number][wide][0] for number in pool]).mean()
        torch.testing.assert_close(together, loss, atol=1e-6, rtol=1e-6)
        for number, gradient in zip(pool, gradients, strict=True):
            torch.testing.assert_close(told[number][wide][1] / wide, gradient, atol=1e-6, rtol=1e-6)


@pytest.mark.ranks
def test_the_whole_is_the_loss_of_all_states(told) -> None:
    tokens = [SegTokens.of(states_of(number), batch_of(number)) for number in range(RANKS)]
    padded = [torch.nn.functional.pad(each.objects, (0, 3 - each.objects.shape[1])) for each in tokens]
    fields = ([getattr(each, name) for each in tokens] for name in ("states", "video", "expression", "frame"))
    pool = SegTokens(*(torch.cat(parts) for parts in fields), torch.cat(padded))
    found = object_contrastive_loss(pool, frames="all")
    assert whole(range(RANKS))[0].item() == pytest.approx(WEIGHT * found.loss.item(), rel=1e-6)
    assert {each[RANKS][2:] for each in told} == {(int(found.anchors), found.states)}


@pytest.mark.ranks
def test_a_rank_without_a_partner_of_its_own_still_gets_gradient_as_a_rival(told) -> None:
    assert told[2][RANKS][1].abs().max() > 0
    assert told[2][2][1].abs().max() > 0


@pytest.mark.parametrize(
    ("together", "ranks", "most", "shape"),
    [(0, 8, 1, (8, 1)), (0, 1, 1, (1, 1)), (4, 8, 1, (4, 1)), (4, 64, 1, (4, 1)), (4, 2, 9, (2, 2)), (2, 1, 9, (1, 2))],
)
def test_pools_are_the_same_on_any_number_of_ranks(together, ranks, most, shape) -> None:
    assert pool_shape(together, ranks, most) == shape


@pytest.mark.parametrize(("together", "ranks"), [(3, 8), (5, 4), (6, 4)])
def test_pools_that_ranks_cannot_form_are_refused(together, ranks) -> None:
    with pytest.raises(TrainingError, match=f"contrast_together={together} does not fit {ranks} ranks"):
        pool_shape(together, ranks, 9)


def test_a_pool_larger_than_the_ranks_needs_the_plain_engine() -> None:
    with pytest.raises(TrainingError, match="more than the 2 ranks there are: choose at most 2, or engine.stage=plain"):
        pool_shape(4, 2)


def test_a_bank_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def losses(contrast: ContrastiveLoss, steps: range) -> list[float]:
        return [contrast.loss([(states_of(0), batch_of(0))], step, 0).loss.item() for step in steps]

    rank = Rank(0, 0, 1)
    stopped, never = ContrastiveLoss(BANK, rank, 1), ContrastiveLoss(BANK, rank, 1)
    losses(stopped, range(2))
    stopped.save(tmp_path / "contrast")
    again = ContrastiveLoss(BANK, rank, 1)
    again.load(tmp_path / "contrast")
    assert losses(again, range(2, 4)) == losses(never, range(4))[2:]
    assert losses(ContrastiveLoss(BANK, rank, 1), range(2, 4)) != losses(again, range(2, 4))


def test_a_bank_of_an_older_version_begins_empty_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"bank.states": torch.zeros(2, WIDTH)}, tmp_path / "rank-00000.safetensors")
    ContrastiveLoss(BANK, Rank(0, 0, 1), 1).load(tmp_path)
    assert "rank-00000.safetensors was written by an older version" in capsys.readouterr().out


def test_a_damaged_bank_is_refused_by_name(tmp_path: Path) -> None:
    contrast = ContrastiveLoss(BANK, Rank(0, 0, 1), 1)
    contrast.load(tmp_path)  # none there: an empty one
    (tmp_path / "rank-00000.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="rank-00000.safetensors: its header .*copy it again"):
        contrast.load(tmp_path)
