"""Archives for the servers that hold the masks of MeViS valid and Refer-YouTube-VOS valid.

Layouts: github.com/henghuiding/MeViS, README, "Evaluation" (VIDEO/EXP_ID/FRAME.png at the root; 140 videos, 2,236
expressions); codalab 3282 (Annotations/VIDEO/EXP_ID/FRAME.png; 202 videos, 834 expressions); also cilinyan/VISA,
tools/zip_mp_mevis.py and tools/zip_mp_refytvos.py.
"""

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glus.common.atomic import atomic_open
from glus.common.errors import EvaluationError
from glus.common.progress import progress as shown_progress
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.predict.mask_png import encode_mask
from glus.evaluation.predict.predictions import check_folders, expression_folder, read_masks

#: As small as PNGs of masks get: 1.1 kB at 854x480, a third of those that are read often.
_COMPRESSION = 9
#: The same for every file, so that the same masks always give the same archive.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX, _MODE = 3, 0o644 << 16


@dataclass(frozen=True)
class Server:
    """What a server takes: the folder above the videos ("" for none), and how many videos and expressions are due."""

    name: str
    top: str
    videos: int
    expressions: int


SERVERS = {
    "mevis/valid": Server("MeViS valid", "", 140, 2236),
    "refer_youtube_vos/valid": Server("Refer-YouTube-VOS valid", "Annotations/", 202, 834),
}


@dataclass(frozen=True)
class Package:
    """An archive that was written."""

    place: Path
    videos: int
    expressions: int
    files: int
    bytes: int
    sha256: str


def write_package(
    split: ShardedSplit, predictions: Path, place: Path, any_size: bool = False, progress: bool = True
) -> Package:
    """Check every mask, then write the archive; the same masks give the same bytes.

    `any_size` packs a split that has not as many videos or expressions as the server's (a part of it, demo data).
    Raises EvaluationError for a split of no server, for missing expressions (by name), stray folders and masks that are
    incomplete; nothing is written then. DataError where `place` cannot be written.
    """
    name = f"{split.dataset}/{split.split}"
    if name not in SERVERS:
        raise EvaluationError(f"{name} has no server that takes archives; those are {', '.join(SERVERS)}")
    server = SERVERS[name]
    _check_size(split, server, any_size)
    check_folders(predictions, split.dataset, split.split, split.videos)
    pairs = [(entry, expression) for entry in split.videos for expression in entry.expressions]
    missing = [f"{e.video}/{x.id}" for e, x in pairs if not expression_folder(predictions, e, x).is_dir()]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise EvaluationError(
            f"{len(missing)} of {len(pairs)} expressions of {name} have no masks: {shown}; the server wants all of them"
        )
    for entry, expression in shown_progress(pairs, desc=f"check {name}", unit="expression", disable=not progress):
        read_masks(predictions, entry, expression)
    files = 0
    with atomic_open(place) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for entry, expression in shown_progress(
                pairs, desc=f"pack {name}", unit="expression", disable=not progress
            ):
                for member, content in _members(server, predictions, entry, expression):
                    info = zipfile.ZipInfo(member, _TIME)
                    info.create_system, info.external_attr = _UNIX, _MODE
                    archive.writestr(info, content)
                    files += 1
    with open(place, "rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Package(place, len(split.videos), len(pairs), files, place.stat().st_size, digest)


def _check_size(split: ShardedSplit, server: Server, any_size: bool) -> None:
    expressions = sum(len(entry.expressions) for entry in split.videos)
    if any_size or (len(split.videos), expressions) == (server.videos, server.expressions):
        return
    raise EvaluationError(
        f"{split.dataset}/{split.split} has {len(split.videos)} videos and {expressions} expressions, the server of "
        f"{server.name} wants {server.videos} and {server.expressions}: look for quarantined videos in its manifest, "
        "or say any_size=true to pack it as it is"
    )


def _members(
    server: Server, predictions: Path, entry: VideoEntry, expression: Expression
) -> Iterator[tuple[str, bytes]]:
    masks = read_masks(predictions, entry, expression)
    if masks is None:  # removed since it was checked
        raise EvaluationError(f"the masks of {entry.video}/{expression.id} are gone; nothing was written")
    for name, mask in zip(entry.frame_names, masks, strict=True):
        yield f"{server.top}{entry.video}/{expression.id}/{name}.png", encode_mask(mask, _COMPRESSION)
