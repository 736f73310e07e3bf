"""The work list of an evaluation: one item a video, shared by ranks without communication.

OUT/work.json             the list, costliest first, with the rank of each item
OUT/work/.../VIDEO.json   written when an item is done: its frames, those without [SEG], tokens, seconds
OUT/.glus.lock            held by the one rank at work, so that no two evaluations write into one folder;
OUT/.rank-0-of-4.lock     of several ranks each holds its own

An item is done when every expression of its video has its folder of masks, which is renamed when it is complete
(predictions.py). So a killed rank loses at most its current item, and any number of ranks can go on. Each rank of a job
takes its share of the complete list, not of what is left: ranks that start at different times still agree.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.files import is_there
from glus.common.json_file import read_as
from glus.common.locks import LOCK, Holder, InUseError, exclusive, holder
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.predict.inference_config import Predicted
from glus.evaluation.predict.predictions import expression_folder

LIST, RECORDS = "work.json", "work"
EVALUATE = "glus evaluate"


@dataclass(frozen=True)
class WorkItem:
    """A video with all its expressions. `split` and `video` count in the list of splits and in the split."""

    split: int
    video: int
    name: str
    expressions: int
    frames: int

    @property
    def cost(self) -> int:
        """Frames are encoded once, masks decoded for each expression: about a frame of work each."""
        return self.frames * (1 + self.expressions)


@dataclass(frozen=True)
class Counted:
    """What was counted while predicting: (expression, frame) pairs, and those that got no [SEG].

    `tokens` are those that the language model read; `seconds` begin when the model is loaded.
    """

    frames: int
    frames_without_seg: int
    expressions: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def costs(self) -> dict[str, float]:
        """eval/seconds_per_expression and eval/tokens_per_expression; empty where nothing was counted."""
        if not self.expressions or not self.tokens:
            return {}
        each = {"seconds": self.seconds / self.expressions, "tokens": self.tokens / self.expressions}
        return {f"eval/{name}_per_expression": value for name, value in each.items()}


def work_list(splits: Sequence[ShardedSplit]) -> tuple[WorkItem, ...]:
    """All videos with expressions, costliest first (and by name): short ones at the end keep all ranks busy."""
    items = [
        WorkItem(place, video, f"{e.dataset}/{e.split}/{e.video}", len(e.expressions), len(e.frame_names))
        for place, split in enumerate(splits)
        for video, e in enumerate(split.videos)
        if e.expressions
    ]
    return tuple(sorted(items, key=lambda item: (-item.cost, item.name)))


def share(items: Sequence[WorkItem], rank: int, ranks: int) -> tuple[WorkItem, ...]:
    """The items of one rank: each goes to the rank that has least so far. The same on every rank, at any time."""
    owners = _owners(items, ranks)
    return tuple(item for item, owner in zip(items, owners, strict=True) if owner == rank)


def left(items: Sequence[WorkItem], splits: Sequence[ShardedSplit], masks: Path) -> tuple[WorkItem, ...]:
    """Return the items with an expression that has no masks yet."""
    return tuple(item for item in items if not is_done(splits[item.split].videos[item.video], masks))


def is_done(entry: VideoEntry, masks: Path) -> bool:
    """Whether every expression of a video has its folder."""
    return all(expression_folder(masks, entry, expression).is_dir() for expression in entry.expressions)


def write_list(out: Path, items: Sequence[WorkItem], ranks: int) -> None:
    """Write OUT/work.json. Raises DataError where it cannot be written."""
    rows = [{"rank": owner, **asdict(item)} for owner, item in zip(_owners(items, ranks), items, strict=True)]
    write_atomic(out / LIST, json.dumps({"ranks": ranks, "items": rows}, indent=1).encode() + b"\n")


def record_done(out: Path, entry: VideoEntry, done: Predicted, seconds: float) -> None:
    """Add to the record of a video what a pass over it did. Raises DataError where it cannot be written."""
    place = video_file(out / RECORDS, entry)
    before = _read(place)
    record = {
        "expressions": before.get("expressions", 0) + done.expressions,
        "frames": before.get("frames", 0) + done.frames,
        "frames_without_seg": before.get("frames_without_seg", 0) + done.frames_without_seg,
        "tokens": before.get("tokens", 0) + done.tokens,
        "seconds": round(before.get("seconds", 0.0) + seconds, 3),
    }
    write_atomic(place, json.dumps(record).encode() + b"\n")


def counted(out: Path, splits: Sequence[ShardedSplit]) -> Counted:
    """The sum of all records. A video whose process was killed between masks and record is not in it."""
    found = [_read(video_file(out / RECORDS, entry)) for split in splits for entry in split.videos if entry.expressions]
    return Counted(
        int(sum(record.get("frames", 0) for record in found)),
        int(sum(record.get("frames_without_seg", 0) for record in found)),
        int(sum(record.get("expressions", 0) for record in found)),
        int(sum(record.get("tokens", 0) for record in found)),
        sum(record.get("seconds", 0.0) for record in found),
    )


@contextmanager
def exclusive_out(out: Path, rank: int, ranks: int, command: str) -> Iterator[None]:
    """Hold OUT for this rank of `command`. Ranks of one run, of which an array starts each when it likes, share it.

    Raises EvaluationError where another process holds it, or a run with another number of ranks is at work.
    """
    own = LOCK if ranks == 1 else f".rank-{rank}-of-{ranks}.lock"
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(out, command, own))
        except InUseError as error:
            raise _in_use(out, error.holder, command) from error
        for path in [out / LOCK, *sorted(out.glob(".rank-*-of-*.lock"))]:
            same_run = ranks > 1 and path.name.endswith(f"-of-{ranks}.lock")
            other = None if same_run or path.name == own else holder(path)
            if other:
                raise _in_use(out, other, command)
        yield


def _in_use(out: Path, other: Holder | None, command: str) -> EvaluationError:
    what = f"another {command}" if other is None or other.command == command else "another command"
    return EvaluationError(
        f"{what} is at work in {out} ({other or 'it did not say who it is'}): wait for it, or choose another `out`"
    )


def _owners(items: Sequence[WorkItem], ranks: int) -> list[int]:
    load = [0] * ranks
    owners = []
    for item in items:
        owner = load.index(min(load))
        load[owner] += item.cost
        owners.append(owner)
    return owners


def video_file(root: Path, entry: VideoEntry) -> Path:
    """ROOT/DATASET/SPLIT/VIDEO.json of a video with expressions. Raises InputError as `expression_folder`."""
    folder = expression_folder(root, entry, entry.expressions[0]).parent
    return folder.with_name(f"{folder.name}.json")


def _read(place: Path) -> dict[str, float]:
    if not is_there(place):
        return {}
    remedy = "remove it; the masks are not touched"
    return read_as(place, dict[str, float], "record", raises=EvaluationError, remedy=remedy)
