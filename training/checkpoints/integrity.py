"""Checkpoint integrity: each rank writes the SHA-256 of its files, and checks its share before loading.

CHECKPOINT/digests/rank-0003.json    {"engine/state/zero_pp_rank_3_...pt": [bytes, "sha256"], ...}

The digest of a base is in run.json of each checkpoint that names it; rank 0 checks it.
"""

import hashlib
import json
import os
import re
from pathlib import Path, PurePosixPath

from glus.common.errors import TrainingError, UserError
from glus.common.files import is_there, open_regular, sha256_of, unreadable
from glus.common.json_file import read_as
from glus.training.checkpoints.adapter import ADAPTER
from glus.training.checkpoints.base_weights import Base
from glus.training.checkpoints.checkpoint import CONTRAST, ENGINE, RUN, WEIGHTS, read_state, sync

DIGESTS = "digests"
#: What one rank alone writes: DeepSpeed's name for it, and its bank of [SEG] states.
_OF_A_RANK = re.compile(r"_pp_rank_(\d+)_|^contrast/[^0-9]*(\d+)")

#: Not read by who predicts or starts a run with it.
_STATE_ALONE = (f"{ENGINE}/", f"{CONTRAST}/", f"{ADAPTER}/")
_LARGEST_NOTE = 64_000_000


def note_digests(path: Path, rank: int) -> None:
    """Sync the files that this rank wrote below `path`, and write their digests.

    Raises TrainingError where the disk is full.
    """
    found = {}
    try:
        for name in _names(path):
            if writer_of(name) == rank:
                sync(path / name)
                found[name] = [(path / name).stat().st_size, _sha256(path / name)]
        (path / DIGESTS).mkdir(exist_ok=True)
        _file(path, rank).write_text(json.dumps(found, indent=1), encoding="utf-8")
        sync(_file(path, rank))
    except OSError as error:
        raise TrainingError(f"the digests of {path} cannot be written ({error.strerror}): free some room") from error


def find_corruption(path: Path, rank: int = 0, ranks: int = 1) -> str:
    """Return why a checkpoint cannot be loaded, as rank `rank` of `ranks` sees it; "" where it is intact.

    Every rank checks the names and sizes of all files, and the contents of its share.
    """
    if not is_there(path / RUN):
        return f"{path} holds no {RUN}"
    try:
        noted: dict[str, tuple[int, str]] = {}
        state = read_state(path)
        for writer in range(state.ranks):
            noted |= _noted(path, writer)
        for name, (size, _) in noted.items():
            there = (path / name).stat().st_size
            if there != size:
                return f"{path / name} has {there} bytes of {size}"
        for name, (_, digest) in noted.items():
            if writer_of(name) % ranks == rank and _sha256(path / name) != digest:
                return f"{path / name} does not hold what was written (another SHA-256)"
        if base := Base.named_by(state):
            (base.check if rank == 0 else base.find)(path)
    except UserError as error:
        _refuse_forbidden(error)
        return str(error)
    except OSError as error:
        _refuse_forbidden(error)
        return f"{path}: {error}"
    return ""


def check_model_files(path: Path, weights: bool = True) -> dict[str, str]:
    """SHA-256 of what predicting and `init_from` read of a checkpoint, by name, checked.

    Without digests/ that is its base alone, if it has one. `weights` False leaves the contents of weights out: the rest
    is small.
    Raises TrainingError where a file is gone or holds other bytes, InputError where one cannot be read.
    """
    found = {}
    for name, (size, digest) in (_noted(path, 0) if is_there(path / DIGESTS) else {}).items():
        if name.startswith(_STATE_ALONE) or (name == WEIGHTS and not weights):
            continue
        if not is_there(path / name):
            raise TrainingError(f"{path / name} is gone: copy the checkpoint again, or use another")
        with open_regular(path / name, "file of the checkpoint") as file:
            differs = os.fstat(file.fileno()).st_size != size
        # The size first: a file that is far too large takes minutes to digest.
        if differs or sha256_of(path / name) != digest:
            raise TrainingError(
                f"{path / name} does not hold what was written (another SHA-256): the checkpoint is damaged; copy it "
                "again, or use another"
            )
        found[name] = digest
    if base := Base.named_by(read_state(path)):
        (base.check if weights else base.find)(path)
        found[base.file] = base.digest
    return found


def digest_of_weights(path: Path) -> str:
    """Digest of a checkpoint's weights: as noted with them, else computed. Raises TrainingError or InputError."""
    noted = _noted(path, 0) if is_there(path / DIGESTS) else {}
    return complete_digest(path, noted[WEIGHTS][1] if WEIGHTS in noted else sha256_of(path / WEIGHTS, "weights"))


def complete_digest(path: Path, own: str) -> str:
    """Digest of a checkpoint's complete weights; `own` is that of its own file, and the result where it has no base."""
    base = Base.named_by(read_state(path))
    return hashlib.sha256(f"{own}{base.digest}".encode()).hexdigest() if base else own


def without_digests(path: Path) -> list[str]:
    """A line to print for a checkpoint without digests."""
    if is_there(path / DIGESTS):
        return []
    return [f"{path}: no {DIGESTS}/ there: damage that keeps the sizes cannot be detected"]


def writer_of(name: str) -> int:
    """The rank that writes a file of a checkpoint: its own of DeepSpeed's, rank 0 all others."""
    found = _OF_A_RANK.search(name)
    return int(found[1] or found[2]) if found else 0


def _noted(path: Path, writer: int) -> dict[str, tuple[int, str]]:
    """Name -> (bytes, SHA-256) as rank `writer` noted them. Raises TrainingError where the note is no such table."""
    file, damaged = _file(path, writer), "the checkpoint is damaged"
    noted = read_as(
        file, dict[str, tuple[int, str]], "note of digests", largest=_LARGEST_NOTE, raises=TrainingError, remedy=damaged
    )
    for name in noted:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise TrainingError(f"{file}: {name!r} is no file of the checkpoint: {damaged}")
    return noted


def _refuse_forbidden(error: BaseException) -> None:
    """Raise InputError for what may not be read: it is not damaged, and skipping it would train its steps again."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PermissionError):
            raise unreadable(cause.filename or "", "checkpoint", cause) from error
        cause = cause.__cause__


def _names(path: Path) -> list[str]:
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return [name for file in files if not (name := file.relative_to(path).as_posix()).startswith(f"{DIGESTS}/")]


def _file(path: Path, rank: int) -> Path:
    return path / DIGESTS / f"rank-{rank:04d}.json"


def _sha256(file: Path) -> str:
    return sha256_of(file, "file of the checkpoint", needed_again=False)
