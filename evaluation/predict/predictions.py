"""Predicted masks on disk: ROOT/DATASET/SPLIT/VIDEO/EXP_ID/FRAME.png, 8-bit grey, 0 or 255, the frame's size.

An expression's folder is complete or absent, so its presence says that the expression is done. Names that begin with a
dot are folders being written (or left by a process that was killed) and count as absent.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import EvaluationError
from glus.common.files import is_there, make_folder_aside
from glus.common.json_file import read_object
from glus.common.names import check_name, check_path, check_unique
from glus.data_pipeline.raw.frame_names import PNG_ENDINGS, only_file, split_ending
from glus.data_pipeline.raw.records import Expression, check_names
from glus.data_pipeline.sampling.frame_labels import CHECKPOINT, WEIGHTS
from glus.data_pipeline.shards.reader import VideoEntry
from glus.evaluation.predict.mask_png import encode_mask, read_mask

#: Next to the folder of masks: which model made them, with which settings (provenance.py writes it).
RECORD = "predictions.json"


def split_folder(root: Path, dataset: str, split: str) -> Path:
    """Where the predictions of one split lie. Raises InputError for a name that leads out of `root`."""
    return root / check_name(dataset, "dataset") / check_name(split, "split")


def expression_folder(root: Path, entry: VideoEntry, expression: Expression) -> Path:
    """Where the masks of one expression lie. Raises InputError for a name that leads out of `root`."""
    where = f"{entry.dataset}/{entry.split}"
    folder = split_folder(root, entry.dataset, entry.split) / check_path(entry.video, "video", where)
    return folder / check_name(expression.id, "expression", f"{where} video {entry.video}")


def check_entries(videos: Iterable[VideoEntry]) -> None:
    """Refuse names under which masks cannot be kept apart, before any is predicted, scored or packed.

    Raises InputError for a name that is not one of a file, and for two videos, expressions or frames that would share
    one. Shards that `glus prepare` writes have none.
    """
    names: dict[str, list[str]] = {}
    for entry in videos:
        where = f"{entry.dataset}/{entry.split}"
        check_names(where, entry.video, entry.frame_names, entry.expressions, ())
        names.setdefault(where, []).append(entry.video)
    for where, found in names.items():
        check_unique(found, "video", where)


def write_masks(root: Path, entry: VideoEntry, expression: Expression, masks: NDArray[np.bool_]) -> Path:
    """Write the masks of one expression, bool [T, H, W], a PNG a frame; an earlier prediction is replaced.

    Returns the folder. A process killed on the way leaves no folder of that name (or the earlier one).
    Raises EvaluationError for a wrong number of frames or a wrong size.
    """
    due = (len(entry.frame_names), entry.height, entry.width)
    if masks.shape != due or masks.dtype != np.bool_:
        raise EvaluationError(
            f"masks to write for {_label(entry, expression)} are {masks.dtype} {list(masks.shape)}, due are bool "
            f"{list(due)}: one mask a frame, at the frame's size"
        )
    with writing_masks(root, entry, expression) as writer:
        for index, mask in enumerate(masks):
            writer.write(index, mask)
    return expression_folder(root, entry, expression)


class MaskWriter:
    """Takes the masks of one expression in any order, so that a long video need not be held. See `writing_masks`."""

    def __init__(self, aside: Path, entry: VideoEntry, expression: Expression):
        self._aside, self._entry = aside, entry
        self._label = _label(entry, expression)
        self._written: set[int] = set()

    def write(self, index: int, mask: NDArray[np.bool_]) -> None:
        """Write the mask of frame `index`, bool [H, W]."""
        name = check_name(self._entry.frame_names[index], "frame", self._label)
        (self._aside / f"{name}.png").write_bytes(encode_mask(mask))
        self._written.add(index)

    def check_complete(self) -> None:
        """Raises EvaluationError where a frame has no mask."""
        absent = sorted(set(range(len(self._entry.frame_names))) - self._written)
        if absent:
            name = self._entry.frame_names[absent[0]]
            raise EvaluationError(f"{self._label} got no mask for {len(absent)} frames, the first is {name}")


@contextmanager
def writing_masks(root: Path, entry: VideoEntry, expression: Expression) -> Iterator[MaskWriter]:
    """A writer for one expression; its folder takes its name at the end, where every frame has its mask.

    An error on the way, or a process killed, leaves no folder of that name (or the earlier one).
    """
    folder = expression_folder(root, entry, expression)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = make_folder_aside(folder.parent, f".{folder.name}.", ".part")
    try:
        writer = MaskWriter(aside, entry, expression)
        yield writer
        writer.check_complete()
        _put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_unfinished(root: Path, entry: VideoEntry) -> None:
    """Remove what killed processes left of a video's masks. Only where nothing writes them any more."""
    for folder in {expression_folder(root, entry, expression).parent for expression in entry.expressions}:
        for aside in [*folder.glob(".*.part"), *folder.glob(".*.old")]:
            shutil.rmtree(aside, ignore_errors=True)


def read_masks(root: Path, entry: VideoEntry, expression: Expression) -> NDArray[np.bool_] | None:
    """The masks of one expression, bool [T, H, W]; None where its folder is absent.

    Raises EvaluationError, naming the file, for a missing or unknown frame, and as `read_mask` does.
    """
    folder = expression_folder(root, entry, expression)
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise EvaluationError(f"{folder} is no folder of masks: move it away, or predict again", file=str(folder))
        return None
    files = _frame_files(folder, entry.frame_names)
    masks = np.empty((len(files), entry.height, entry.width), np.bool_)
    for index, file in enumerate(files):
        masks[index] = read_mask(file, entry.height, entry.width)
    return masks


def check_folders(root: Path, dataset: str, split: str, videos: Iterable[VideoEntry]) -> None:
    """Refuse predictions for videos or expressions that the split does not have.

    Such a folder means another split or another release of the expressions: scoring the rest would hide it.
    Raises EvaluationError with the first such folders, and where the split has no predictions at all; InputError as
    `check_entries`.
    """
    top = split_folder(root, dataset, split)
    if not top.is_dir():
        raise EvaluationError(
            f"no predictions for {dataset}/{split}: {top} is not a folder; give the folder above DATASET"
        )
    videos = list(videos)
    check_entries(videos)
    known = {expression_folder(root, entry, exp) for entry in videos for exp in entry.expressions}
    on_the_way = {parent for folder in known for parent in folder.parents}
    strays: list[str] = []
    for parent, names, _ in os.walk(top):
        visible = sorted(name for name in names if not name.startswith("."))
        strays += [
            str((Path(parent) / n).relative_to(top)) for n in visible if Path(parent) / n not in known | on_the_way
        ]
        names[:] = [name for name in visible if Path(parent) / name in on_the_way]
    if strays:
        shown = ", ".join(strays[:5]) + (", ..." if len(strays) > 5 else "")
        raise EvaluationError(
            f"{top} holds {len(strays)} folders that are no video or expression of {dataset}/{split}: {shown}. "
            "Are these predictions for another split or release? Move them away"
        )


def _frame_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the file of each frame. Raises EvaluationError for a missing or unknown frame, DataError for a double."""
    files: dict[str, list[Path]] = {}
    for place in sorted(folder.iterdir()):
        if not _left_by_a_desktop(place.name):
            parts = split_ending(place.name, PNG_ENDINGS)
            files.setdefault(f"{parts[0]}.png" if parts else place.name, []).append(place)
    due = [f"{name}.png" for name in names]
    absent = [name for name in due if name not in files]
    if absent:
        raise EvaluationError(
            f"{folder} is missing {len(absent)} of {len(due)} frames, the first is {absent[0]}; "
            "write all frames of an expression, or none"
        )
    unknown = sorted(files.keys() - set(due))
    if unknown:
        raise EvaluationError(
            f"{folder} holds {unknown[0]}, which is no frame of this video ({len(unknown)} such files)"
        )
    return [only_file(files[name], name.removesuffix(".png")) for name in due]


def _left_by_a_desktop(name: str) -> bool:
    """Whether a file is one that macOS or Windows leaves in folders (._00000.png, .DS_Store, Thumbs.db)."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _put_in_place(aside: Path, folder: Path) -> None:
    if folder.exists():
        old = make_folder_aside(folder.parent, f".{folder.name}.", ".old")
        folder.rename(old / "masks")
        aside.rename(folder)
        shutil.rmtree(old)
    else:
        aside.rename(folder)


def _label(entry: VideoEntry, expression: Expression) -> str:
    return f"{entry.dataset}/{entry.split} video {entry.video} expression {expression.id}"


def model_of(masks: Path) -> dict[str, str]:
    """Checkpoint and SHA-256 of the weights that predicted `masks`; nothing where no record lies next to their folder.

    It needs no torch. Raises EvaluationError where the record is damaged.
    """
    file = masks.parent / RECORD
    if not is_there(file):
        return {}
    found = read_object(file, "record of predictions", raises=EvaluationError, remedy="predict again")
    return {name: str(found.get(name, "")) for name in (CHECKPOINT, WEIGHTS)}
