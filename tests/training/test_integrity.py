"""A writer that is killed, or whose disk is full, at any moment leaves whole checkpoints, and the newest is found."""

import json
import os
import random
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from glus.common.errors import TrainingError
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.checkpoint import RunState
from glus.training.checkpoints.integrity import check_model_files, find_corruption, note_digests, writer_of
from glus.training.checkpoints.resuming import choose_checkpoint
from glus.training.distributed import Rank
from tests.forked import FORKED

pytestmark = pytest.mark.slow

#: Exit code of a writer that was told of a full disk.
TOLD = 3


def write_one(folder: Path, step: int, tokenizer: Path) -> None:
    """A checkpoint as the trainer writes it, the engine's part by plain torch."""
    path = checkpoint.aside(folder, step)
    state = RunState(step, 0, "data", "", "", 1)
    checkpoint.write(path, {"weights": torch.full((200_000,), float(step))}, state, {}, tokenizer)
    (path / "engine").mkdir()
    torch.save(torch.full((400_000,), step), path / "engine" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    note_digests(path, 0)
    checkpoint.publish(path, folder, step)


def write_on(folder: Path, tokenizer: Path, begun: Connection) -> None:
    """Write one checkpoint after the other, after a sign of life."""
    newest = next(iter(checkpoint.newest_first(folder)), None)
    step = checkpoint.step_of(newest) if newest else 0
    begun.send(True)
    while True:
        write_one(folder, step := step + 1, tokenizer)


def killed_writer(folder: Path, tokenizer: Path, seconds: float) -> None:
    """A process that writes one checkpoint after the other, and is killed."""
    begins, begun = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=write_on, args=(folder, tokenizer, begun))
    process.start()
    assert begins.recv()
    time.sleep(seconds)
    process.kill()
    process.join()


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    folder, tokenizer = tmp_path / "checkpoints", tmp_path / "tokenizer.model"
    folder.mkdir()
    tokenizer.write_bytes(b"words")
    write_one(folder, 1, tokenizer)
    rng, steps, half_written = random.Random(3), [], 0
    for _ in range(20):
        killed_writer(folder, tokenizer, rng.uniform(0.005, 0.06))
        half_written += len(list(folder.glob(".step-*.writing")))
        found = choose_checkpoint(folder, Rank(0, 0, 1))
        assert found is not None and find_corruption(found) == ""
        steps.append(checkpoint.step_of(found))
    assert steps == sorted(steps) and half_written > 0


def write_or_tell(folder: Path, tokenizer: Path, step: int) -> None:
    try:
        write_one(folder, step, tokenizer)
    except (TrainingError, OSError, RuntimeError):  # the last is torch's, which writes the engine's part here
        os._exit(TOLD)


def ended_writer(folder: Path, tokenizer: Path, step: int) -> int | None:
    """Exit code of a process that writes one checkpoint: 0 where it could, TOLD where it was told of a full disk.

    A process of its own: torch keeps a file open that it could not write.
    """
    process = FORKED.Process(target=write_or_tell, args=(folder, tokenizer, step))
    process.start()
    process.join()
    return process.exitcode


def test_a_disk_that_is_full_at_any_byte_leaves_a_whole_checkpoint(small_disk: Path) -> None:
    folder, tokenizer, ballast = small_disk / "checkpoints", small_disk / "tokenizer.model", small_disk / "ballast"
    folder.mkdir()
    tokenizer.write_bytes(b"words")
    assert ended_writer(folder, tokenizer, 1) == 0
    whole = sum(file.stat().st_size for file in folder.rglob("*"))
    rng, places = random.Random(3), set()
    for number in range(20):
        room = int(whole * rng.uniform(0.0, 0.98))
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
        assert ended_writer(folder, tokenizer, number + 2) == TOLD
        for left in folder.glob(".step-*.writing"):
            places |= {path.name for path in left.iterdir()}
            shutil.rmtree(left)  # as the trainer does
        found = choose_checkpoint(folder, Rank(0, 0, 1))
        assert found is not None and checkpoint.step_of(found) == 1 and find_corruption(found) == ""
        ballast.unlink()
    assert {"model.safetensors", "engine"} <= places
    # With room again the next is written.
    assert ended_writer(folder, tokenizer, 22) == 0
    found = choose_checkpoint(folder, Rank(0, 0, 1))
    assert found is not None and checkpoint.step_of(found) == 22 and find_corruption(found) == ""


def test_each_rank_answers_for_its_own_files() -> None:
    assert writer_of("engine/state/bf16_zero_pp_rank_12_mp_rank_00_optim_states.pt") == 12
    assert writer_of("contrast/rank-00003.safetensors") == 3
    assert writer_of("model.safetensors") == writer_of("engine/state/mp_rank_00_model_states.pt") == 0


@pytest.mark.timeout(20)
def test_a_file_that_grew_by_terabytes_is_refused_before_it_is_digested(tmp_path: Path) -> None:
    write_one(tmp_path, 1, _tokenizer(tmp_path))
    path = tmp_path / checkpoint.name_of(1)
    check_model_files(path)
    os.truncate(path / "run.json", 2**40)
    with pytest.raises(TrainingError, match="run.json does not hold what was written"):
        check_model_files(path)


@pytest.mark.parametrize("ranks", [0, -1, 10**9])
def test_a_state_of_no_ranks_hides_no_damage(tmp_path: Path, ranks: int) -> None:
    write_one(tmp_path, 1, _tokenizer(tmp_path))
    path = tmp_path / checkpoint.name_of(1)
    state = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(state | {"ranks": ranks}))
    assert f"step 1 by {ranks} ranks is no state of a run" in find_corruption(path)


def _tokenizer(folder: Path) -> Path:
    place = folder / "tokenizer.model"
    place.write_bytes(b"x")
    return place
