"""Which model made predictions, read from their record without torch (provenance.py writes it)."""

from pathlib import Path

from glus.common.errors import EvaluationError
from glus.common.files import is_there
from glus.common.json_file import read_object
from glus.data_pipeline.sampling.frame_labels import CHECKPOINT, WEIGHTS

RECORD = "predictions.json"


def model_of(masks: Path) -> dict[str, str]:
    """Checkpoint and SHA-256 of the weights that predicted `masks`; nothing where no record lies next to their folder.

    Raises EvaluationError where the record is damaged.
    """
    file = masks.parent / RECORD
    if not is_there(file):
        return {}
    found = read_object(file, "record of predictions", raises=EvaluationError, remedy="predict again")
    return {name: str(found.get(name, "")) for name in (CHECKPOINT, WEIGHTS)}
