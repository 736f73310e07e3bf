"""Whether a checkpoint is whole: each rank notes the SHA-256 of what it wrote and checks its share before loading.

CHECKPOINT/digests/rank-0003.json    {"engine/state/zero_pp_rank_3_...pt": [bytes, "sha256"], ...}
"""

import hashlib
import json
import os
import re
from pathlib import Path

from glus.common.errors import UserError
from glus.common.json_file import read_as
from glus.training.checkpoint import RUN, read_state, sync
from glus.training.errors import TrainingError

DIGESTS = "digests"
#: What one rank alone writes: DeepSpeed's name for it, and its bank of [SEG] states.
_OF_A_RANK = re.compile(r"_pp_rank_(\d+)_|^contrast/[^0-9]*(\d+)")


def note_digests(path: Path, rank: int) -> None:
    """Bring to the disk what this rank wrote below `path`, and write its digests beside.

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


def what_is_broken(path: Path, rank: int = 0, ranks: int = 1) -> str:
    """Why a checkpoint cannot be loaded, as rank `rank` of `ranks` sees it; "" where it is whole.

    Every rank checks the names and sizes of all files, and the contents of its share.
    """
    if not (path / RUN).is_file():
        return f"{path} holds no {RUN}"
    try:
        writers = read_state(path).ranks
        noted: dict[str, tuple[int, str]] = {}
        for writer in range(writers):
            noted |= read_as(_file(path, writer), dict[str, tuple[int, str]], "file of digests")
        for name, (size, _) in noted.items():
            there = (path / name).stat().st_size
            if there != size:
                return f"{path / name} has {there} bytes of {size}"
        for name, (_, digest) in noted.items():
            if writer_of(name) % ranks == rank and _sha256(path / name) != digest:
                return f"{path / name} does not hold what was written (another SHA-256)"
    except UserError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"{path}: {error}"
    return ""


def writer_of(name: str) -> int:
    """The rank that writes a file of a checkpoint: its own of DeepSpeed's, rank 0 all others."""
    found = _OF_A_RANK.search(name)
    return int(found[1] or found[2]) if found else 0


def _names(path: Path) -> list[str]:
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return [name for file in files if not (name := file.relative_to(path).as_posix()).startswith(f"{DIGESTS}/")]


def _file(path: Path, rank: int) -> Path:
    return path / DIGESTS / f"rank-{rank:04d}.json"


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        # The pages are not needed again soon: hundreds of gigabytes must not push out what the run reads.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest
