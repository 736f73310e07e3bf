"""Where a model to predict with comes from: a checkpoint of a run, or a GLUS in the released layout."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from glus.data_pipeline.sampling import SamplingConfig
from glus.data_pipeline.tokenizer import Tokenizer
from glus.evaluation.errors import EvaluationError
from glus.model.config import ModelConfig
from glus.model.precision import set_precision
from glus.model.released_sam2 import Hiera
from glus.training import checkpoint
from glus.training.config import WeightsConfig
from glus.training.run_record import located
from glus.training.tracking_place import TrackingConfig

if TYPE_CHECKING:
    from glus.model.glus import Glus


@dataclass(frozen=True)
class Loaded:
    """A model ready to predict, its tokenizer, how frames are shown to it, and lines to tell of released weights."""

    model: "Glus"
    tokenizer: Tokenizer
    sampling: SamplingConfig
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint folder of a run, or a released GLUS (`config` is then its sizes, `vision` the folder of its CLIP).

    `title` and `step` are for people. `tracking_run` is the MLflow run that made it, "" where none did, and `tracking`
    where that is recorded.
    """

    folder: Path
    title: str
    step: int = 0
    tracking_run: str = ""
    tracking: TrackingConfig | None = None
    vision: str = ""
    config: ModelConfig | None = None

    @classmethod
    def find(cls, place: Path, vision: Path | None = None, hiera: Hiera | None = None) -> "ModelSource":
        """From a run folder (its latest checkpoint), a checkpoint folder or a released GLUS; no weights are read.

        `hiera` says what a released SAM 2 of unusual size does not show. Raises TrainingError or ModelError where
        there is none or it is damaged, EvaluationError for `vision` or `hiera` beside a checkpoint.
        """
        if _is_released(place):
            from glus.training.released import released_model_config

            tower = str(vision or "")
            config = released_model_config(WeightsConfig(glus=str(place), vision=tower), hiera)
            return cls(place, place.resolve().name, vision=tower, config=config)
        for name, given in (("vision", vision), ("hiera", hiera)):
            if given is not None:
                raise EvaluationError(f"{name}: {place} is a checkpoint of a run and has its own; leave {name} out")
        folder = checkpoint.resolve(place)
        run, state = checkpoint.read_run_config(folder), checkpoint.read_state(folder)
        tracking = located(run.tracking, folder.resolve().parent.parent)
        return cls(folder, f"{run.name}, step {state.step}", state.step, state.tracking_run, tracking)

    def load(self, device: torch.device, precision: Literal["bf16", "fp32"] = "fp32") -> Loaded:
        """The model in eval mode on `device`. A released GLUS is shown frames as the reference shows them.

        Raises TrainingError, ModelError or DataError.
        """
        # Here, not above: a process that only starts others needs no model.
        from glus.training.build import build_from_checkpoint
        from glus.training.released import open_glus

        if self.config is not None:
            model, tokenizer, told = open_glus(self.folder, self.vision, self.config)
            loaded = Loaded(model, tokenizer, SamplingConfig(), tuple(told))
        else:
            model, tokenizer, run = build_from_checkpoint(self.folder)
            loaded = Loaded(model.eval(), tokenizer, run.sampling)
        set_precision(model, precision)
        model.to(device)
        return loaded

    def digest(self) -> str:
        """SHA-256 of all weights, and of a released GLUS of its sizes too. Raises ModelError."""
        if self.config is None:
            return _digest(self.folder / checkpoint.WEIGHTS)
        from glus.training.released import released_files

        files = released_files(WeightsConfig(glus=str(self.folder), vision=self.vision))
        return hashlib.sha256("".join([*map(_digest, files), repr(self.config)]).encode()).hexdigest()


def _is_released(place: Path) -> bool:
    return (place / "config.json").is_file() and not (place / checkpoint.RUN).is_file()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
