"""Predict the work list of an evaluation: what one process does (work_processes.py runs them)."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from glus.common.errors import LaunchError
from glus.common.out_of_memory import memory_explained
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.inference_config import InferenceConfig, Predicted
from glus.evaluation.predict.key_frames import KeyFrames
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.provenance import MASKS
from glus.evaluation.predict.worklist import WorkItem, record_done
from glus.launch.commands.work_processes import open_model
from glus.training.devices import Kind


@dataclass(frozen=True)
class Prediction:
    """What is to be predicted: `items` of the work list of the splits by one model, into OUT/predictions.

    `device` is the first GPU to use where `kind` is "cuda".
    """

    source: ModelSource
    splits: tuple[ShardedSplit, ...]
    out: Path
    config: InferenceConfig
    items: tuple[WorkItem, ...]
    device: int = 0
    kind: Kind = "cpu"
    verb: ClassVar[str] = "predicts"
    label: ClassVar[str] = "segment"

    def worker(self, index: int) -> Callable[[WorkItem], None]:
        """As `Work` says."""
        one = Predictor(self, index)

        def done(item: WorkItem) -> None:
            began = time.monotonic()
            counts = one.predict(item)
            record_done(self.out, self.splits[item.split].videos[item.video], counts, time.monotonic() - began)

        return done


class Predictor:
    """A model that is loaded, for one item after the other."""

    def __init__(self, work: Prediction, index: int) -> None:
        """`index` counts the processes of this machine. Raises TrainingError, ModelError or EvaluationError."""
        self._work, self._index = work, index
        self._key_frames = KeyFrames.read(work.config.key_frames) if work.config.key_frames else None
        with self._memory_explained():
            config, place = work.config, work.device + index
            settings = config.chosen_precision(), config.post_optimise, config.reference_gamma
            self._loaded, self._device = open_model(work.source, work.kind, place, *settings, index > 0)
            self._loaded.compile(config.compile, self._device)

    def predict(self, item: WorkItem) -> Predicted:
        """Predict those expressions of the item's video that are not on disk yet."""
        from glus.evaluation.predict.inference import predict_video

        split, work = self._work.splits[item.split], self._work
        with self._memory_explained():
            return predict_video(
                self._loaded, split, item.video, work.out / MASKS, work.config, self._key_frames, self._device
            )

    def _memory_explained(self) -> AbstractContextManager[None]:
        where = f"cuda:{self._work.device + self._index}" if self._work.kind == "cuda" else "cpu"
        return memory_explained(f"prediction on {where}", self._work.config.less_memory("fewer processes"), LaunchError)
