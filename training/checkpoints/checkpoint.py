"""Checkpoints: written to a temporary folder, then renamed; `latest` moves last and names a complete one.

OUT/checkpoints/step-000300/{model.safetensors, run.json, config.json, tokenizer/, adapter/, engine/, digests/}
OUT/checkpoints/base-<digest>/model.safetensors    frozen weights, where they are most of the model (base_weights.py)
OUT/checkpoints/latest        the name of the newest
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from glus.common.errors import TrainingError, UserError
from glus.common.files import is_there, read_regular, unreadable
from glus.common.json_file import parsed_as, read_object
from glus.data_pipeline.batches.vocabulary import FAST, SENTENCEPIECE
from glus.model.released.safetensors_file import save_tensors
from glus.training.run_config import RunConfig
from glus.training.tracking.tracking_place import without_user

if TYPE_CHECKING:
    from torch import Tensor

#: Of a checkpoint that is complete, and of one that names a base: versions before bases read the former alone.
FORMAT, WITH_BASE = 1, 2
WEIGHTS, RUN, CONFIG, TOKENIZER, ENGINE = "model.safetensors", "run.json", "config.json", "tokenizer", "engine"
#: Each rank's bank of [SEG] states, where the contrastive loss keeps one.
CONTRAST = "contrast"
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Ranks of a run at most, far above what there is.
MOST_RANKS = 1_000_000


@dataclass(frozen=True)
class RunState:
    """State that a run needs to resume: steps done, the plan's seed and data, and the MLflow run that it belongs to.

    `loss` is the mean since the checkpoint before (None without a step), `written` the time in seconds since the epoch.
    `base` is the SHA-256 of the frozen weights that it needs, and `base_bytes` their size; "" where it is complete.
    """

    step: int
    seed: int
    data_fingerprint: str
    tracking_run: str
    code_version: str
    ranks: int
    loss: float | None = None
    written: float = 0.0
    base: str = ""
    base_bytes: int = 0
    format: int = FORMAT

    @property
    def fields(self) -> dict[str, Any]:
        """The content of run.json; without a base as versions before bases wrote it."""
        fields = asdict(self)
        if self.base:
            return fields | {"format": WITH_BASE}
        return {name: value for name, value in fields.items() if not name.startswith("base")}


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step-{step:06d}"


def writing(folder: Path, step: int) -> Path:
    """Return the folder of a checkpoint that is being written."""
    return folder / f".{name_of(step)}.writing"


def aside(folder: Path, step: int) -> Path:
    """Make the folder in which a checkpoint is written; remove leftovers of earlier ones.

    Raises TrainingError where the folder cannot be made.
    """
    for pattern in (".step-*.writing", ".step-*.removed", ".base*.writing", ".base-*.removed"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)
    path = writing(folder, step)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be made ({error.strerror}): free some room, or choose another `out`"
        ) from error
    return path


def write(
    path: Path, weights: "Mapping[str, Tensor]", state: RunState, config: Mapping[str, Any], tokenizer: Path
) -> None:
    """Fill the folder `path` (rank 0). Every rank writes its engine state next to it.

    Raises TrainingError where the disk is full or not writable.
    """
    try:
        save_tensors({name: tensor.contiguous() for name, tensor in weights.items()}, path / WEIGHTS)
        (path / RUN).write_text(json.dumps(state.fields, indent=1), encoding="utf-8")
        (path / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        copy_tokenizer(tokenizer, path / TOKENIZER)
    except OSError as error:
        raise TrainingError(
            f"the checkpoint {path.name} could not be written below {path.parent}: {error}; free some room"
        ) from error


def copy_tokenizer(vocabulary: Path, folder: Path) -> None:
    """Copy a vocabulary file and the tokenizer's other files into a new folder. Raises OSError."""
    folder.mkdir()
    shutil.copyfile(vocabulary, folder / (FAST if vocabulary.suffix == ".json" else SENTENCEPIECE))
    for name in ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"):
        if is_there(vocabulary.parent / name):
            shutil.copyfile(vocabulary.parent / name, folder / name)


def publish(path: Path, folder: Path, step: int) -> Path:
    """Give a complete checkpoint its name, then move `latest` to it. Returns its folder.

    Raises TrainingError where the disk is full; `latest` then names the earlier checkpoint.
    """
    final = folder / name_of(step)
    pointer = folder / ".latest.writing"
    try:
        for file in path.rglob("*"):
            sync(file)
        former = folder / f".{final.name}.removed"
        if final.exists():
            # Of the same step, and damaged: an intact one would have been resumed.
            os.replace(final, former)
        os.replace(path, final)
        pointer.write_text(final.name, encoding="utf-8")
        sync(pointer)
        os.replace(pointer, folder / "latest")
        sync(folder)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise TrainingError(f"{final} could not be finished ({error.strerror}): free some room") from error
    return final


def remove(path: Path) -> None:
    """Remove a folder, under another name first: half-removed it must not look like what it was. Raises OSError."""
    gone = path.with_name(f".{path.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone)


def sync(path: Path) -> None:
    """Sync a file or folder to the disk. Raises OSError.

    A rename may reach the disk before the contents do; after a power cut `latest` would name an empty checkpoint.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_latest(folder: Path) -> Path | None:
    """Return the checkpoint that `latest` names, None where none was written. Raises TrainingError where it is gone."""
    pointer = folder / "latest"
    if not is_there(pointer):
        return None
    path = folder / _named_by(pointer)
    if not is_there(path / RUN):
        raise TrainingError(
            f"{pointer} names {path.name}, which is not there: restore it, or name another in {pointer}"
        )
    return path


def _named_by(pointer: Path) -> str:
    content = read_regular(pointer, "name of a checkpoint", 4096)
    name = content.decode("utf-8", "replace").strip()
    if not name.isprintable() or Path(name).name != name:
        raise TrainingError(f"{pointer} holds {name[:60]!r}, no name of a checkpoint: write step-NUMBER into it")
    return name


def step_of(path: Path) -> int:
    """The step that a checkpoint's folder is named after, -1 for another name."""
    number = path.name.removeprefix("step-")
    return int(number) if number.isascii() and number.isdecimal() else -1


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in `folder`: the one that `latest` names, then those before it; later ones are ignored.

    Where `latest` names none that is there, all of them. Raises InputError where the folder may not be listed.
    """
    pointer = folder / "latest"
    named = folder / _named_by(pointer) if is_there(pointer) else folder
    found = [path for path in _listed(folder) if step_of(path) >= 0 and path.is_dir()]
    if step_of(named) >= 0 and named.is_dir():
        found = [path for path in found if step_of(path) <= step_of(named)]
    return sorted(found, key=step_of, reverse=True)


def _listed(folder: Path) -> list[Path]:
    try:
        # Not glob: of a folder that may not be listed it gives nothing.
        return [path for path in folder.iterdir() if path.name.startswith("step-")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(folder, "folder of checkpoints", error) from error


def resolve(path: Path) -> Path:
    """A checkpoint folder, from itself or the run folder that holds it. Raises TrainingError where there is none."""
    if is_there(path / RUN):
        return path
    found = find_latest(path / "checkpoints")
    if found is None:
        raise TrainingError(f"{path} holds no checkpoint: name a run folder or one of its checkpoints/step-* folders")
    return found


def read_state(path: Path) -> RunState:
    """Read the run state of a checkpoint. Raises TrainingError where it is damaged or of another format."""
    file, remedy = path / RUN, "use another checkpoint"
    fields = read_object(file, "run state", raises=TrainingError, remedy=remedy)
    written = fields.get("format")
    if written not in (FORMAT, WITH_BASE):
        raise TrainingError(
            f"{path} has format {written!r}, this code reads {FORMAT} and {WITH_BASE}: use the version that wrote it"
        )
    state = parsed_as(fields, RunState, str(file), raises=TrainingError, remedy=remedy)
    # Without a rank no digest would be checked.
    if state.step < 0 or not 1 <= state.ranks <= MOST_RANKS:
        raise TrainingError(f"{file}: step {state.step} by {state.ranks} ranks is no state of a run; {remedy}")
    if bool(state.base) != (written == WITH_BASE) or not (_DIGEST.fullmatch(state.base) or not state.base):
        raise TrainingError(f"{file}: base {state.base[:80]!r} of format {written} is no digest; {remedy}")
    return state


def read_config(path: Path) -> dict[str, Any]:
    """Read the resolved config of the run that wrote a checkpoint, as nested mappings."""
    return read_object(path / CONFIG, "config of a run", raises=TrainingError, remedy="use another checkpoint")


def read_run_config(path: Path) -> RunConfig:
    """Return the config as a RunConfig. Raises TrainingError where this code knows no such config."""
    content = read_config(path)
    tracking = content.get("tracking")
    if isinstance(tracking, dict) and isinstance(tracking.get("uri"), str):
        # A checkpoint may be older than the rule that no password stands there.
        content = {**content, "tracking": {**tracking, "uri": without_user(tracking["uri"])}}
    try:
        return TypeAdapter(RunConfig).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainingError(
            f"{path / CONFIG}: {'.'.join(map(str, first['loc']))}: {first['msg']}; "
            "use the version of the code that wrote this checkpoint"
        ) from error
    except (UserError, ValueError, TypeError, OverflowError) as error:
        raise TrainingError(f"{path / CONFIG}: {error}; use another checkpoint") from error
