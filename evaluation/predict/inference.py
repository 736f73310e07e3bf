"""A model and shards in, masks on disk out. What is on disk already is not predicted again."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from glus.common.errors import EvaluationError, ModelError
from glus.common.progress import progress as shown_progress
from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.predict.inference_config import InferenceConfig, Predicted
from glus.evaluation.predict.key_frames import KeyFrames
from glus.evaluation.predict.model_source import Loaded
from glus.evaluation.predict.predictions import expression_folder, writing_masks
from glus.evaluation.predict.video_masks import Asked, masks_of_video


def predict_split(
    loaded: Loaded,
    split: ShardedSplit,
    out: Path,
    config: InferenceConfig,
    device: torch.device,
    part: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> Predicted:
    """Predict every expression of every part[1]-th video, starting from video part[0], and write its masks.

    Raises DataError where a frame cannot be read, EvaluationError for an expression that is empty or too long.
    """
    done, keys = Predicted(0, 0, 0, 0), KeyFrames.read(config.key_frames) if config.key_frames else None
    videos = range(part[0], len(split.videos), part[1])
    for video in shown_progress(
        videos, desc=f"segment {split.dataset}/{split.split}", unit="video", disable=not progress
    ):
        entry = split.videos[video]
        due = [each for each in entry.expressions if not expression_folder(out, entry, each).is_dir()]
        done = _add(done, Predicted(0, len(entry.expressions) - len(due), 0, 0))
        if due:
            done = _add(done, _predict(loaded, split, video, due, out, config, keys, device))
    return done


def _predict(
    loaded: Loaded,
    split: ShardedSplit,
    video: int,
    expressions: Sequence[Expression],
    out: Path,
    config: InferenceConfig,
    keys: KeyFrames | None,
    device: torch.device,
) -> Predicted:
    """All expressions of a video that are due, together: its frames are read and encoded once."""
    entry, silent = split.videos[video], 0
    count, where = len(entry.frame_names), f"{entry.dataset}/{entry.split} video {entry.video}"
    asked = Asked(
        [expression.text for expression in expressions],
        [f"{where} expression {expression.id}" for expression in expressions],
        [_key_frame(keys, entry, expression) for expression in expressions],
    )
    followed = masks_of_video(
        loaded,
        config,
        lambda index: split.read_frames(video, [index])[0],
        count,
        asked,
        device,
    )
    with ExitStack() as stack:
        writers = [stack.enter_context(writing_masks(out, entry, expression)) for expression in expressions]
        try:
            for seen in followed:
                silent += seen.answered.count(False)
                for row, mask in zip(seen.expressions, seen.masks, strict=True):
                    writers[row].write(seen.index, mask)
        except ModelError as error:
            raise EvaluationError(f"{where}: {error}") from error
    return Predicted(len(expressions), 0, len(expressions) * count, silent)


def _key_frame(keys: KeyFrames | None, entry: VideoEntry, expression: Expression) -> int:
    """Index of the frame at which an expression begins: the first one where no file of key frames names another."""
    return (keys.position(entry.video, expression.id, entry.frame_names) if keys else None) or 0


def _add(one: Predicted, other: Predicted) -> Predicted:
    return Predicted(
        one.expressions + other.expressions,
        one.found + other.found,
        one.frames + other.frames,
        one.frames_without_seg + other.frames_without_seg,
    )
