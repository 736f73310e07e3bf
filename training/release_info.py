"""What a release holds in addition to weights: sizes, prompt settings, the place of its vision tower, digests."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glus.common.errors import ModelError
from glus.common.files import is_there
from glus.data_pipeline.batches.conversations import STYLES
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.model.model_config import ModelConfig
from glus.model.released.release_files import ReleasedWeights, read_json
from glus.model.released.release_names import SEGMENTER
from glus.model.released.release_sam2 import Hiera, segmenter_of
from glus.model.released.release_sizes import language_of, validated, vision_of
from glus.model.released.release_sums import SUMS
from glus.training.run_config import WeightsConfig

#: Next to the released layout `glus export` writes the vision tower, and every size and switch of the model. The
#: reference takes only towers with "clip" or "openai" in their path.
VISION_TOWER, MODEL_CONFIG = "clip_vision_tower", "glus_model.json"
#: Key of MODEL_CONFIG for AskedConfig.
ASKED = "asked"
#: More frames than this fit into no prompt.
_MOST_FRAMES = 1000


@dataclass(frozen=True)
class AskedConfig:
    """Prompt settings that a model was trained with. Defaults are the reference's; names are SamplingConfig's."""

    prompts: str = "glus"
    context_frames: int = 4
    query_frames: int = 4

    def __post_init__(self) -> None:
        if self.prompts not in STYLES:
            raise ModelError(f"prompts is {self.prompts!r}: use one of {', '.join(STYLES)}")
        for name, least in (("context_frames", 0), ("query_frames", 1)):
            if not least <= getattr(self, name) <= _MOST_FRAMES:
                raise ModelError(f"{name} is {getattr(self, name)}: it must be from {least} to {_MOST_FRAMES}")


@dataclass(frozen=True)
class Release:
    """What a released GLUS says of itself: the model's sizes, and its prompt settings (None where it does not say)."""

    model: ModelConfig
    asked: AskedConfig | None = None

    @property
    def sampling(self) -> SamplingConfig:
        """Its prompt settings; the reference's where it does not say."""
        return SamplingConfig(**asdict(self.asked or AskedConfig()))


def read_release(weights: WeightsConfig, hiera: Hiera | None = None) -> Release:
    """Read what `glus export` wrote next to a GLUS checkpoint and its CLIP, else what their own files say.

    Those are both config.json and SAM 2's shapes; what these do not show is `hiera` where SAM 2 is none of the
    released sizes. Raises ModelError where the vision tower or a config.json is absent, where one is of another
    architecture, where `hiera` is missing, or given although a file has it.
    """
    stored = Path(weights.glus) / MODEL_CONFIG
    if not is_there(stored):
        folder, vision = Path(weights.glus), vision_place(weights)
        assert vision is not None
        segmenter = segmenter_of(folder, sam2_shapes(folder), hiera)
        return Release(ModelConfig(language=language_of(folder), vision=vision_of(vision), segmenter=segmenter))
    if hiera is not None:
        raise ModelError(f"hiera: {stored} says all sizes already; leave it out")
    content = read_json(stored)
    asked = content.pop(ASKED, None)
    model = validated(ModelConfig, content, str(stored))
    return Release(model, None if asked is None else validated(AskedConfig, asked, f"{stored}: {ASKED}"))


def model_file(model: ModelConfig, sampling: SamplingConfig) -> dict[str, Any]:
    """Return the content of MODEL_CONFIG: all sizes and switches, and the prompt settings."""
    asked = AskedConfig(sampling.prompts, sampling.context_frames, sampling.query_frames)
    return asdict(model) | {ASKED: asdict(asked)}


def assumptions(folder: Path, release: Release) -> list[str]:
    """A line to print where a release does not say how it is asked."""
    if release.asked is not None:
        return []
    assumed = AskedConfig()
    return [
        f"{folder} does not say how it is asked; assumed, as GLUS is released: prompts {assumed.prompts}, "
        f"{assumed.context_frames} context frames, {assumed.query_frames} query frames. If it was trained otherwise, "
        f'export it again, or write {{"{ASKED}": {{"prompts": ..., "context_frames": ..., "query_frames": ...}}}} into '
        f"its {MODEL_CONFIG}"
    ]


def without_sums(weights: WeightsConfig) -> list[str]:
    """A line to print for each release that has no list of digests."""
    places = [Path(place) for place in weights.named.values()]
    return [
        f"{place}: no {SUMS} there: damage that keeps the sizes cannot be detected"
        for place in places
        if not is_there((place if place.is_dir() else place.parent) / SUMS)
    ]


def vision_place(weights: WeightsConfig) -> Path | None:
    """Return where the vision tower comes from; None where nothing names one. Raises ModelError for a GLUS without."""
    if weights.vision or not weights.glus:
        return Path(weights.vision) if weights.vision else None
    within = Path(weights.glus) / VISION_TOWER
    if not within.is_dir():
        raise ModelError(
            f"{weights.glus} holds no vision tower, as GLUS is released: name the folder of "
            "openai/clip-vit-large-patch14 (--vision FOLDER; weights.vision=FOLDER in training)"
        )
    return within


def sam2_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the SAM 2 in a GLUS checkpoint, by SAM 2's own names."""
    shapes = ReleasedWeights.open(folder).shapes
    return {name.removeprefix(SEGMENTER): shape for name, shape in shapes.items() if name.startswith(SEGMENTER)}
