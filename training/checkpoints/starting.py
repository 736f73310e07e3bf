"""What a run takes of the checkpoint of `init_from` where that is of another method, and whose labels fit it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from glus.common.errors import TrainingError
from glus.data_pipeline.sampling.frame_labels import FrameLabels
from glus.model.model_config import Method
from glus.training.checkpoints.checkpoint import read_config, resolve
from glus.training.checkpoints.complete_weights import PartTaken
from glus.training.checkpoints.integrity import digest_of_weights
from glus.training.run_config import RunConfig

#: (`model.method`, that of the checkpoint) -> what is taken; all of it where there is no row.
PARTS: Mapping[tuple[Method, str], PartTaken] = MappingProxyType(
    {
        ("selector", "glus"): PartTaken(left_out=("segmenter.",), fresh=("score_head.",)),
        ("glus", "pretraining"): PartTaken(left_out=("stand_ins.",), fresh=()),
        ("pretraining", "glus"): PartTaken(left_out=(), fresh=("stand_ins.",)),
    }
)


def part_of(method: Method, start: Path) -> PartTaken | None:
    """What a model of `method` takes of the checkpoint `start`; None where that is all of it. Raises TrainingError."""
    return PARTS.get((method, _method_of(start)))


def check_labels(config: RunConfig, labels: FrameLabels | None) -> None:
    """Raise TrainingError where labels rate another model than the GLUS that a selector starts from.

    A selector learns where its own GLUS succeeds. `sampling.frame_scores_of: any` allows others. A run that starts
    from no GLUS checkpoint is free to learn from any.
    """
    if labels is None or not config.init_from or config.sampling.frame_scores_of == "any":
        return
    start = resolve(Path(config.init_from))
    if part_of(config.model.method, start) is None or digest_of_weights(start) == labels.weights:
        return
    whose = labels.checkpoint or "masks whose model is not recorded"
    raise TrainingError(
        f"sampling.frame_scores: {labels.folder} scores {whose} (weights {labels.weights[:12] or 'unknown'}), not the "
        f"checkpoint of init_from, {start}: predict and score the training splits with that one, or set "
        "sampling.frame_scores_of=any to learn from these nevertheless"
    )


def _method_of(start: Path) -> str:
    model = read_config(start).get("model")
    return str(model.get("method", "glus")) if isinstance(model, dict) else "glus"
