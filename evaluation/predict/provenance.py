"""Record of the model that made a folder of predictions, so that another model's are never scored as this one's.

OUT/predictions.json         the checkpoint, the settings, the data, and what was counted on the way
OUT/predictions/             the masks (predictions.py)
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.files import is_there
from glus.common.json_file import read_as
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.predictions import RECORD as RECORD
from glus.evaluation.predict.worklist import RECORDS, Counted

FORMAT = 1
MASKS = "predictions"


@dataclass(frozen=True)
class Provenance:
    """What made the predictions of a folder.

    `weights` is `ModelSource.digest`, `step` 0 for a released model. `inference` are the settings that its method is
    asked with. `splits` maps "dataset/split" to the fingerprint of its shards. `frames` counts (expression, frame)
    pairs predicted so far, `frames_without_seg` those without [SEG]. `checkpoint` is for messages only: one that was
    moved is still the same.
    """

    checkpoint: str
    step: int
    weights: str
    inference: dict[str, int | bool | str]
    splits: dict[str, str]
    frames: int = 0
    frames_without_seg: int = 0
    format: int = FORMAT

    def with_counts(self, found: Counted) -> "Provenance":
        """The same with what was counted so far."""
        return replace(self, frames=found.frames, frames_without_seg=found.frames_without_seg)


@dataclass(frozen=True)
class Kept:
    """What a folder keeps of one model: OUT/RECORD says whose the results in OUT/RESULTS are.

    `others` go with the results where they are made again. `noun`, `verb` and `each` are for messages.
    """

    record: str
    results: str
    others: tuple[str, ...]
    noun: str
    verb: str
    each: str


PREDICTIONS = Kept(RECORD, MASKS, (RECORDS,), "predictions", "predicted", "masks")


def claim(
    out: Path,
    source: ModelSource,
    settings: dict[str, int | bool | str],
    splits: Sequence[ShardedSplit],
    fresh: bool = False,
    kept: Kept = PREDICTIONS,
) -> Provenance:
    """Record that the results in `out` are by the model of `source` with these settings, and return the record.

    `fresh` removes what lies there first. Raises EvaluationError where they are of another checkpoint, of other
    settings or data, or of unknown origin.
    """
    data = {f"{split.dataset}/{split.split}": split.fingerprint for split in splits}
    wanted = Provenance(str(source.folder.resolve()), source.step, source.digest(), settings, data)
    results = out / kept.results
    if fresh:
        (out / kept.record).unlink(missing_ok=True)
        for folder in (results, *(out / name for name in kept.others)):
            if folder.is_dir():
                shutil.rmtree(folder)
    if is_there(out / kept.record):
        found = _read(out / kept.record, kept)
        _refuse_other(results, kept, found, wanted)
        wanted = replace(
            wanted,
            splits=found.splits | data,
            frames=found.frames,
            frames_without_seg=found.frames_without_seg,
        )
    elif results.is_dir():
        raise EvaluationError(
            f"{results} is there without {kept.record}: nobody knows whose {kept.each} these are; {_REMEDY}"
        )
    record(out, wanted, kept)
    return wanted


_REMEDY = "choose another `out`, or say fresh=true to remove them and make them again"


def record(out: Path, provenance: Provenance, kept: Kept = PREDICTIONS) -> None:
    """Write OUT/RECORD. Raises DataError where it cannot be written."""
    write_atomic(out / kept.record, json.dumps(asdict(provenance), indent=1).encode() + b"\n")


@contextmanager
def removed_where_unused(out: Path, kept: Kept, others: Sequence[str], ranks: int) -> Iterator[None]:
    """Remove the record and `others` where the block ends in an error before the first result, and wrote them.

    Nothing is left of a refusal. Of several ranks another one may be at work, so all stays.
    """
    new = not (out / kept.record).exists()
    try:
        yield
    except BaseException:
        if new and ranks == 1 and not (out / kept.results).exists():
            for name in (kept.record, *others):
                (out / name).unlink(missing_ok=True)
        raise


def _read(file: Path, kept: Kept) -> Provenance:
    found = read_as(file, Provenance, f"record of {kept.noun}", raises=EvaluationError, remedy=_REMEDY)
    if found.format != FORMAT:
        raise EvaluationError(f"{file} has format {found.format}, this code reads {FORMAT}: {_REMEDY}")
    return found


def _refuse_other(results: Path, kept: Kept, found: Provenance, wanted: Provenance) -> None:
    if found.weights != wanted.weights or found.step != wanted.step:
        raise EvaluationError(
            f"{results} holds {kept.noun} of another checkpoint, {found.checkpoint} (step {found.step}, weights "
            f"{found.weights[:12]}), not of {wanted.checkpoint} (step {wanted.step}, weights {wanted.weights[:12]}); "
            f"{_REMEDY}"
        )
    if found.inference != wanted.inference:
        names = [name for name in {**wanted.inference, **found.inference} if _differs(found, wanted, name)]
        values = [f"{name} {found.inference.get(name)}, now {wanted.inference.get(name)}" for name in names]
        raise EvaluationError(f"{results} was {kept.verb} with other settings ({', '.join(values)}); {_REMEDY}")
    for name, fingerprint in wanted.splits.items():
        if found.splits.get(name, fingerprint) != fingerprint:
            raise EvaluationError(f"{results} was {kept.verb} on other shards of {name}; {_REMEDY}")


def _differs(found: Provenance, wanted: Provenance, name: str) -> bool:
    return found.inference.get(name) != wanted.inference.get(name)
