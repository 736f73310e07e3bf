"""Checkpoints of others: numbers that are no weights, sizes that lie, files that may not be read."""

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glus.common.errors import TrainingError, UserError
from glus.evaluation.predict.model_source import ModelSource
from glus.launch.cli import main
from glus.model.released.safetensors_file import save_tensors
from glus.training.build import build_for_training, build_from_checkpoint
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.integrity import note_digests
from glus.training.checkpoints.resuming import choose_checkpoint, is_done
from glus.training.distributed import Rank
from glus.training.run_config import RunConfig
from glus.training.train import train
from tests.untrained import write_checkpoint

pytestmark = pytest.mark.slow

ALONE = Rank(0, 0, 1)
PARAMETER = "language.llama.model.norm.weight"


@pytest.fixture(scope="module")
def written(tiny_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tiny_demo, tmp_path_factory.mktemp("written") / "run")


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """The checkpoint in a run folder of its own."""
    shutil.copytree(written.parents[1], tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / written.name
    (path.parent / "latest").write_text(path.name, encoding="utf-8")
    return path


def test_a_checkpoint_from_before_there_were_methods_is_a_glus(copied: Path) -> None:
    stored = json.loads((copied / "config.json").read_text())
    new = {"model": ("method", "sam1", "share_video_tokens"), "sampling": ("frame_choice",)}
    for section, keys in new.items():
        for key in keys:
            del stored[section][key]
    for section, key in (("language", "family"), ("vision", "projector"), ("segmenter", "kind")):
        del stored["model"][section][key]
    for key in ("sliding_window", "head_dim"):
        del stored["model"]["language"][key]
    del stored["weights"]["videolisa"]
    (copied / "config.json").write_text(json.dumps(stored))
    note_digests(copied, 0)
    source = ModelSource.find(copied)
    assert (source.method, source.sampling.frame_choice) == ("glus", "windows")
    build_from_checkpoint(copied)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(float("nan")), "holds NaN, infinite values"),
        (torch.tensor(-float("inf")), "holds NaN, infinite values"),
        (torch.tensor(3.4e38), r"holds NaN, infinite values or some above 3\.38953e\+38"),
        (torch.tensor(1, dtype=torch.int8), r"holds int8 numbers \(quantised\?\)"),
    ],
    ids=["NaN", "inf", "above bf16", "int8"],
)
def test_numbers_that_are_no_weights_are_refused_by_their_parameter(
    copied: Path, tiny_run: Callable[..., RunConfig], tmp_path: Path, value: torch.Tensor, message: str
) -> None:
    tensors = load_file(copied / "model.safetensors")
    tensors[PARAMETER] = torch.ones(tensors[PARAMETER].shape, dtype=value.dtype)
    tensors[PARAMETER][-1] = value
    save_tensors(tensors, copied / "model.safetensors")
    note_digests(copied, 0)  # they fit: nothing else is wrong
    refused = rf"model\.safetensors: language\.llama\.model\.norm\.weight {message}.*; use an earlier checkpoint"
    with pytest.raises(TrainingError, match=refused):
        build_from_checkpoint(copied)
    new = tiny_run(tmp_path / "new", f"init_from={copied}")
    with pytest.raises(TrainingError, match=refused):
        build_for_training(new)
    with pytest.raises(TrainingError, match=refused):
        build_for_training(new, copied)


@contextmanager
def peak_memory(most: int) -> Iterator[None]:
    """Fail where memory rises by more than `most` bytes within the block."""

    def status(key: str) -> int:
        [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(key)]
        return 1024 * int(line.split()[1])

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    except OSError:
        pytest.skip("this kernel does not measure the peak again")
    before = status("VmRSS:")
    yield
    assert status("VmHWM:") - before < most


#: Of every section the keys that sizes of tensors follow from; 65,536 where the section's limits let it.
LYING: dict[str, dict[str, dict[str, Any]]] = {
    "a billion layers": {"language": {"layers": 10**9}},
    "2**40 wide": {"language": {"hidden_size": 2**40}},
    "65,536 everywhere": {
        "language": dict.fromkeys(
            ("hidden_size", "intermediate_size", "layers", "heads", "key_value_heads", "max_positions"), 65_536
        ),
        "vision": dict.fromkeys(
            ("image_size", "patch_size", "hidden_size", "intermediate_size", "layers", "heads"), 65_536
        ),
    },
    "wide language": {
        "language": {"hidden_size": 65_536, "intermediate_size": 65_536, "max_positions": 65_536, "heads": 512}
    },
    "many layers": {"language": {"layers": 64}, "vision": {"layers": 64}},
    "large pictures": {"vision": {"image_size": 4096, "patch_size": 1}, "segmenter": {"image_size": 2048}},
    "wide windows": {"segmenter": {"window_spec": [256] * 4, "window_pos_embed_size": [256, 256], "memories": 256}},
    "wide decoder": {"segmenter": {"hidden_dim": 2048, "decoder_feedforward": 65_536, "memory_feedforward": 65_536}},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lie", LYING)
def test_sizes_that_a_checkpoint_does_not_have_are_refused_quickly_in_one_line_and_little_memory(
    copied: Path, tiny_run: Callable[..., RunConfig], tmp_path: Path, lie: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    for section, changes in LYING[lie].items():
        config["model"][section] |= changes
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    note_digests(copied, 0)
    evaluation = [f"checkpoint={copied}", f"shards={config['shards']}", f"out={tmp_path}/evaluation", "processes=1"]
    assert main(["evaluate", *evaluation, "record=false"]) == 2
    shown = capsys.readouterr().err
    told = [line for line in shown.splitlines() if not line.startswith("segment, ")]  # how far it is
    assert len(told) == 1 and str(copied / "config.json") in told[0]
    with peak_memory(500_000_000):
        began = time.process_time()
        with pytest.raises(
            UserError, match=r"(model size|of another model|must be|do not fit).*config\.json|config\.json: "
        ):
            build_from_checkpoint(copied)
        # A run's own config decides its sizes; the tensors of the checkpoint are what they are held against.
        new = tiny_run(tmp_path / "new", f"init_from={copied}")
        with pytest.raises(UserError, match="model size|of another model|must be|do not fit"):
            sizes = replace(new.model, **_sections(new.model, LYING[lie]))
            build_for_training(replace(new, model=sizes))
        print(f"{lie}: {time.process_time() - began:.2f} s")
        assert time.process_time() - began < 60


def _sections(model: Any, changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    tuples = {
        part: {key: tuple(each) if isinstance(each, list) else each for key, each in of.items()}
        for part, of in changes.items()
    }
    return {part: replace(getattr(model, part), **of) for part, of in tuples.items()}


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_every_file_of_a_checkpoint_has_the_mode_that_the_umask_leaves(
    tiny_run: Callable[..., RunConfig], tmp_path: Path, umask: int
) -> None:
    former = os.umask(umask)
    try:
        path = train(tiny_run(tmp_path / "run", "steps=1"), ALONE)
    finally:
        os.umask(former)
    modes = {each.relative_to(path).as_posix(): stat.S_IMODE(each.stat().st_mode) for each in path.rglob("*")}
    # DeepSpeed's programs may be run by their owner.
    modes = {name: mode & ~0o100 if name.endswith(".py") else mode for name, mode in modes.items()}
    assert {"model.safetensors", "run.json", "config.json", "digests/rank-0000.json", "tokenizer/tokenizer.model"} <= {
        *modes
    }
    assert any(name.startswith("engine/") for name in modes)
    wrong = {
        name: oct(mode) for name, mode in modes.items() if mode != (0o777 if (path / name).is_dir() else 0o666) & ~umask
    }
    assert wrong == {}
    assert stat.S_IMODE((path.parent / "latest").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~umask


@contextmanager
def another_user() -> Iterator[None]:
    """What root reads, nobody does not; who is not root needs no other user for that."""
    own = os.geteuid()
    os.seteuid(65534 if own == 0 else own)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.fixture
def visible() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with another_user():
            assert os.access(folder, os.X_OK, effective_ids=True), "set TMPDIR to a folder that others may enter"
        yield Path(folder)
        for each in (Path(folder), *Path(folder).rglob("*")):
            if each.is_dir():
                each.chmod(0o755)


CLOSED = {
    "weights": ("step-000002/model.safetensors", 0o000),
    "run": ("step-000002/run.json", 0o000),
    "config": ("step-000002/config.json", 0o000),
    "digests": ("step-000002/digests/rank-0000.json", 0o000),
    "vocabulary": ("step-000002/tokenizer/tokenizer.model", 0o000),
    "tokenizer": ("step-000002/tokenizer", 0o000),
    "checkpoint": ("step-000002", 0o000),
    "checkpoint not entered": ("step-000002", 0o644),
    "latest": ("latest", 0o000),
    "all": (".", 0o000),
    "all not entered": (".", 0o644),
    "all not listed": (".", 0o711),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_checkpoint_that_may_not_be_read_is_neither_damaged_nor_passed_over(
    written: Path, visible: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = visible / "run" / "checkpoints"
    for step in (1, 2):
        shutil.copytree(written, folder / checkpoint.name_of(step))
    (folder / "latest").write_text("step-000002", encoding="utf-8")
    with another_user():  # as long as everything is open, the newest is taken
        assert choose_checkpoint(folder, ALONE) == folder / "step-000002"
        assert not is_done(folder, 3) and ModelSource.find(visible / "run").step == 1
    place, mode = CLOSED[name]
    (folder / place).chmod(mode)
    with another_user():
        with pytest.raises(UserError, match="no permission to read"):
            choose_checkpoint(folder, ALONE)
        if name != "all not listed":  # `latest` names it, and that is enough for these
            with pytest.raises(UserError, match="no permission to read"):
                ModelSource.find(visible / "run").digest()
    shown = capsys.readouterr()
    assert "damaged" not in shown.err and "going on from" not in shown.out
    if name.startswith(("latest", "all")):
        with another_user(), pytest.raises(UserError, match="no permission to read"):
            is_done(folder, 3)
