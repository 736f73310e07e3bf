"""SHA256SUMS of an exported release: written last, and checked before the release is used.

One line a file as sha256sum writes it, so that `sha256sum -c SHA256SUMS` checks the same.
"""

import re
from pathlib import Path, PurePosixPath

from glus.common.errors import ModelError
from glus.common.files import is_there, read_regular, sha256_of

SUMS = "SHA256SUMS"
#: Its settings name a vision tower by a path of the user's, so that it may change. What our code reads in it is held
#: against the weights.
_MAY_CHANGE = frozenset({"config.json"})
_LARGEST = 1_000_000
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write_sums(folder: Path) -> None:
    """Write FOLDER/SHA256SUMS over all files below it. Raises OSError or InputError."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = [f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> dict[Path, str]:
    """SHA-256 of each file of a release that its SHA256SUMS lists, checked; empty where there is no such list.

    Raises ModelError where a file is gone or holds other bytes, InputError where one cannot be read.
    """
    if not is_there(folder / SUMS):
        return {}
    found = {}
    for name, digest in _read(folder / SUMS).items():
        if name in _MAY_CHANGE:
            continue
        if not is_there(folder / name):
            raise ModelError(f"{folder / name} is in {SUMS} but not there: copy the release again")
        if sha256_of(folder / name) != digest:
            raise ModelError(
                f"{folder / name} does not hold what was exported (its SHA-256 differs from {SUMS}): copy the release "
                "again, or export it again"
            )
        found[folder / name] = digest
    return found


def _read(file: Path) -> dict[str, str]:
    try:
        lines = read_regular(file, "list of digests", _LARGEST).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ModelError(f"{file} is no list of digests ({error}): copy the release again") from error
    found = {}
    for number, line in enumerate(lines, 1):
        matched = _LINE.fullmatch(line)
        path = PurePosixPath(matched[2]) if matched else PurePosixPath("..")
        if matched is None or path.is_absolute() or ".." in path.parts or "\0" in matched[2]:
            raise ModelError(f"{file}, line {number}: no `SHA-256  FILE` of this folder: copy the release again")
        found[matched[2]] = matched[1]
    return found
