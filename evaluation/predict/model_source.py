"""Where a model to predict with comes from: a checkpoint of a run, or a GLUS or VideoLISA in the released layout."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError

from glus.common.errors import EvaluationError, TrainingError
from glus.common.files import is_there, sha256_of
from glus.common.imports import quick_imports
from glus.data_pipeline.batches.tokenizer import Tokenizer
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.model.model_config import Compiled, Method
from glus.model.precision import set_precision
from glus.model.released.hub import hub_id, local_weights, title_of
from glus.model.released.release_methods import method_of
from glus.model.released.release_sam2 import Hiera
from glus.model.released.release_sums import check_sums
from glus.model.released.safetensors_file import open_tensors
from glus.training.checkpoints import checkpoint
from glus.training.checkpoints.integrity import check_model_files, complete_digest, without_digests
from glus.training.hub_weights import missing_tower
from glus.training.release_info import Release, assumptions, read_release, without_sums
from glus.training.run_config import WeightsConfig
from glus.training.tracking.run_record import located
from glus.training.tracking.tracking_place import TrackingConfig

if TYPE_CHECKING:
    from glus.model.inference.mask_propagation import MaskPropagation
    from glus.model.methods import AnyModel


@dataclass(frozen=True)
class Loaded:
    """A model ready to predict, its tokenizer, how it is sampled, and notes to print about released weights."""

    model: "AnyModel"
    tokenizer: Tokenizer
    sampling: SamplingConfig
    notes: tuple[str, ...] = ()
    propagation: "MaskPropagation | None" = None
    """Follows masks through a video, where `inference.post_optimise` asks for it."""

    def compile(self, parts: Compiled, device: torch.device) -> None:
        """Compile `parts` of the model, in place (`inference.compile`). Raises ModelError without a compiler."""
        from glus.model.compiling import check_compiler, compile_parts

        check_compiler(parts, device.type, "inference.compile")
        compile_parts(self.model, parts, "inference.compile")


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint folder of a run, or a released GLUS (`release` then describes it, `vision` is its CLIP's folder).

    `notes` are lines to print: what is assumed of the model, and what cannot be checked. `title` and `step` are for
    people. `method` is the model's, `sampling` says how it is asked. `tracking_run` is the MLflow run that made it, ""
    where none did, and `tracking` where that is recorded.
    """

    folder: Path
    title: str
    step: int = 0
    tracking_run: str = ""
    tracking: TrackingConfig | None = None
    method: Method = "glus"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    vision: str = ""
    release: Release | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def find(cls, place: str | Path, vision: str | Path | None = None, hiera: Hiera | None = None) -> "ModelSource":
        """From a run folder (its latest checkpoint), a checkpoint folder or a released GLUS; no weights are read.

        `place` and `vision` may be ids of the Hugging Face hub, which are fetched (model/released/hub.py).

        `hiera` says what a released SAM 2 of unusual size does not show. Raises TrainingError or ModelError where
        there is none or it is damaged, EvaluationError for `vision` or `hiera` with a checkpoint.
        """
        of_hub, place = hub_id(place) is not None, local_weights(place)
        if is_there(place / "config.json") and not is_there(place / checkpoint.RUN):
            method = method_of(place) or "glus"
            if vision is None and of_hub:
                vision = missing_tower(place, method) or None
            tower = "" if vision is None else str(local_weights(vision))
            weights = WeightsConfig(**{method: str(place), "vision": tower})
            release = read_release(weights, hiera)
            assumed = (*assumptions(place, release), *without_sums(weights))
            title, own = title_of(place), release.model.method
            return cls(
                place,
                title,
                method=own,
                sampling=release.sampling,
                vision=weights.vision,
                release=release,
                notes=assumed,
            )
        for name, given in (("vision", vision), ("hiera", hiera)):
            if given is not None:
                raise EvaluationError(f"{name}: {place} is a checkpoint of a run and has its own; leave {name} out")
        folder = checkpoint.resolve(place)
        check_model_files(folder, weights=False)
        run, state = checkpoint.read_run_config(folder), checkpoint.read_state(folder)
        tracking = located(run.tracking, folder.resolve().parent.parent)
        title, notes = f"{run.name}, step {state.step}", tuple(without_digests(folder))
        method, sampling = run.model.method, run.sampling
        return cls(folder, title, state.step, state.tracking_run, tracking, method, sampling, notes=notes)

    def load(
        self,
        device: torch.device,
        precision: Literal["bf16", "fp32"] = "fp32",
        post_optimise: Path | None = None,
        reference_gamma: bool = False,
    ) -> Loaded:
        """The model in eval mode on `device`. A released GLUS that does not say how it is asked is asked as GLUS is.

        `post_optimise` names the SAM 2 that follows masks, always in float32; `reference_gamma` as in InferenceConfig.
        Raises TrainingError, ModelError or DataError.
        """
        # Here, not above: a process that only starts others needs no model.
        with quick_imports():
            from glus.model.sam2_parts import reset_layer_scales
            from glus.training.build import build_from_checkpoint
            from glus.training.pretrained import open_propagation, open_release

        if self.release is not None:
            model, tokenizer, notes = open_release(self._weights(self.release), self.release.model)
            loaded = Loaded(model, tokenizer, self.release.sampling, tuple(notes))
        else:
            model, tokenizer, run = build_from_checkpoint(self.folder)
            loaded = Loaded(model.eval(), tokenizer, run.sampling)
        if reference_gamma:
            reset_layer_scales(model)
        set_precision(model, precision)
        model.to(device)
        if post_optimise is None:
            return loaded
        propagation, notes = open_propagation(post_optimise)
        return replace(loaded, propagation=propagation.to(device), notes=(*loaded.notes, *notes))

    def check_weights(self) -> None:
        """Raise TrainingError or ModelError where a file differs from the digest that is recorded with the weights."""
        if self.release is None:
            check_model_files(self.folder)
        else:
            check_sums(self.folder)

    def digest(self) -> str:
        """SHA-256 of all weights, and of a released GLUS of its sizes too; checked against the digests that are there.

        Raises TrainingError or ModelError where a file does not hold what was written, InputError where one cannot be
        read.
        """
        if self.release is None:
            noted = check_model_files(self.folder)
            return complete_digest(self.folder, noted.get(checkpoint.WEIGHTS) or self._digest_of_weights())
        from glus.training.pretrained import released_files

        known = check_sums(self.folder)
        files = released_files(self._weights(self.release))
        parts = [known.get(file) or sha256_of(file, "weights") for file in files]
        asked = [repr(self.release.asked)] if self.release.asked else []
        return hashlib.sha256("".join([*parts, repr(self.release.model), *asked]).encode()).hexdigest()

    def _weights(self, release: Release) -> WeightsConfig:
        return WeightsConfig(**{release.model.method: str(self.folder), "vision": self.vision})

    def _digest_of_weights(self) -> str:
        """Of a checkpoint without digests. Its header says how long the file is, so that no hole is digested."""
        file = self.folder / checkpoint.WEIGHTS
        try:
            with open_tensors(file):
                return sha256_of(file, "weights")
        except (SafetensorError, OSError) as error:
            raise TrainingError(f"{file} cannot be read ({error}): the checkpoint is damaged, use another") from error
