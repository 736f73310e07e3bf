"""Record of the model that made a folder of predictions, so that another model's are never scored as this one's.

OUT/predictions.json         the checkpoint, the settings, the data, and what was counted on the way
OUT/predictions/             the masks (predictions.py)
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.files import is_there
from glus.common.json_file import read_as
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.asking import ASKING
from glus.evaluation.predict.inference_config import InferenceConfig
from glus.evaluation.predict.model_record import RECORD as RECORD
from glus.evaluation.predict.model_source import ModelSource
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


def claim(
    out: Path, source: ModelSource, config: InferenceConfig, splits: Sequence[ShardedSplit], fresh: bool = False
) -> Provenance:
    """Record that predictions in `out` are by the model of `source`; keep what it predicted there before.

    `fresh` removes what lies there first. Raises EvaluationError where they are of another checkpoint, of other
    settings or data, or of unknown origin.
    """
    data = {f"{split.dataset}/{split.split}": split.fingerprint for split in splits}
    asked = ASKING[source.method].recorded(config, source.sampling)
    wanted = Provenance(str(source.folder.resolve()), source.step, source.digest(), asked, data)
    if fresh:
        (out / RECORD).unlink(missing_ok=True)
        for folder in (out / MASKS, out / RECORDS):
            if folder.is_dir():
                shutil.rmtree(folder)
    if is_there(out / RECORD):
        found = _read(out / RECORD)
        _refuse_other(out, found, wanted)
        wanted = replace(
            wanted,
            splits=found.splits | data,
            frames=found.frames,
            frames_without_seg=found.frames_without_seg,
        )
    elif (out / MASKS).is_dir():
        raise EvaluationError(f"{out / MASKS} is there without {RECORD}: nobody knows whose masks these are; {_REMEDY}")
    record(out, wanted)
    return wanted


_REMEDY = "choose another `out`, or say fresh=true to remove them and predict again"


def record(out: Path, provenance: Provenance) -> None:
    """Write OUT/predictions.json. Raises DataError where it cannot be written."""
    write_atomic(out / RECORD, json.dumps(asdict(provenance), indent=1).encode() + b"\n")


def _read(file: Path) -> Provenance:
    found = read_as(file, Provenance, "record of predictions", raises=EvaluationError, remedy=_REMEDY)
    if found.format != FORMAT:
        raise EvaluationError(f"{file} has format {found.format}, this code reads {FORMAT}: {_REMEDY}")
    return found


def _refuse_other(out: Path, found: Provenance, wanted: Provenance) -> None:
    if found.weights != wanted.weights or found.step != wanted.step:
        raise EvaluationError(
            f"{out / MASKS} holds predictions of another checkpoint, {found.checkpoint} (step {found.step}, weights "
            f"{found.weights[:12]}), not of {wanted.checkpoint} (step {wanted.step}, weights {wanted.weights[:12]}); "
            f"{_REMEDY}"
        )
    if found.inference != wanted.inference:
        names = [name for name in {**wanted.inference, **found.inference} if _differs(found, wanted, name)]
        kept = [f"{name} {found.inference.get(name)}, now {wanted.inference.get(name)}" for name in names]
        raise EvaluationError(f"{out / MASKS} was predicted with other settings ({', '.join(kept)}); {_REMEDY}")
    for name, fingerprint in wanted.splits.items():
        if found.splits.get(name, fingerprint) != fingerprint:
            raise EvaluationError(f"{out / MASKS} was predicted on other shards of {name}; {_REMEDY}")


def _differs(found: Provenance, wanted: Provenance, name: str) -> bool:
    return found.inference.get(name) != wanted.inference.get(name)
