"""What a release holds in addition to weights: sizes, prompt settings, the place of its vision tower, digests."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glus.common.errors import ModelError
from glus.common.files import is_there
from glus.data_pipeline.batches.conversations import STYLES
from glus.data_pipeline.sampling.sample_plan import SamplingConfig
from glus.model.model_config import Method, ModelConfig, Sam1Config, SegmenterConfig
from glus.model.released.release_files import ReleasedWeights, read_json
from glus.model.released.release_lora import plain_name
from glus.model.released.release_methods import MODEL_CONFIG, RELEASED_METHODS
from glus.model.released.release_names import SEGMENTER
from glus.model.released.release_sam1 import is_sam1, sam1_of
from glus.model.released.release_sam2 import Hiera, segmenter_of
from glus.model.released.release_sizes import language_of, projector_of, validated, vision_of
from glus.model.released.release_sums import SUMS
from glus.training.method_settings import DATA
from glus.training.run_config import WeightsConfig

#: Next to the released layout `glus export` writes the vision tower. The reference takes only towers with "clip" or
#: "openai" in their path.
VISION_TOWER = "clip_vision_tower"
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


#: method -> how the reference asks its release.
ASKED_AS_RELEASED: dict[Method, AskedConfig] = {
    "glus": AskedConfig(),
    "videolisa": AskedConfig("videolisa", context_frames=32, query_frames=4),
}


@dataclass(frozen=True)
class Release:
    """What a complete release says of itself: the model's sizes, its prompt settings (None where it does not say)."""

    model: ModelConfig
    asked: AskedConfig | None = None

    @property
    def sampling(self) -> SamplingConfig:
        """Its prompt settings; the reference's where it does not say."""
        asked = asdict(self.asked or ASKED_AS_RELEASED[self.model.method])
        return SamplingConfig(frame_choice=DATA[self.model.method].frame_choice, **asked)


def read_release(weights: WeightsConfig, hiera: Hiera | None = None) -> Release:
    """Read what `glus export` wrote next to a GLUS checkpoint and its CLIP, else what their own files say.

    Those are both config.json and SAM 2's shapes; what these do not show is `hiera` where SAM 2 is none of the
    released sizes. Raises ModelError where the vision tower or a config.json is absent, where one is of another
    architecture, where `hiera` is missing, or given although a file has it.
    """
    assert weights.complete is not None
    method, place = weights.complete
    folder = Path(place)
    stored = folder / MODEL_CONFIG
    if not is_there(stored):
        vision = vision_place(weights)
        assert vision is not None
        segmenter, sam1 = _segmenter(folder, hiera)
        tower = vision_of(vision, **RELEASED_METHODS[method].vision, **projector_of(folder))
        return Release(ModelConfig(method, language_of(folder), tower, segmenter, sam1))
    if hiera is not None:
        raise ModelError(f"hiera: {stored} says all sizes already; leave it out")
    content = read_json(stored)
    asked = content.pop(ASKED, None)
    model = validated(ModelConfig, content, str(stored))
    return Release(model, None if asked is None else validated(AskedConfig, asked, f"{stored}: {ASKED}"))


def _segmenter(folder: Path, hiera: Hiera | None) -> tuple[SegmenterConfig, Sam1Config]:
    """The segmenter of a complete release, whose shapes show which it is."""
    shapes = segmenter_shapes(folder)
    if not is_sam1(shapes):
        return segmenter_of(folder, shapes, hiera), Sam1Config()
    if hiera is not None:
        raise ModelError(f"hiera: the segmenter of {folder} is SAM 1, which has no Hiera; leave it out")
    return SegmenterConfig(kind="sam1"), sam1_of(folder, shapes)


def model_file(model: ModelConfig, sampling: SamplingConfig) -> dict[str, Any]:
    """Return the content of MODEL_CONFIG: all sizes and switches, and the prompt settings."""
    asked = AskedConfig(sampling.prompts, sampling.context_frames, sampling.query_frames)
    return asdict(model) | {ASKED: asdict(asked)}


def assumptions(folder: Path, release: Release) -> list[str]:
    """A line to print where a release does not say how it is asked."""
    if release.asked is not None:
        return []
    assumed = ASKED_AS_RELEASED[release.model.method]
    title = RELEASED_METHODS[release.model.method].title
    return [
        f"{folder} does not say how it is asked; assumed, as {title} is released: prompts {assumed.prompts}, "
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
    """Return where the vision tower comes from; None where nothing names one.

    Raises ModelError for a complete checkpoint without.
    """
    if weights.vision or not weights.complete:
        return Path(weights.vision) if weights.vision else None
    method, place = weights.complete
    within = Path(place) / VISION_TOWER
    if not within.is_dir():
        released = RELEASED_METHODS[method]
        raise ModelError(
            f"{place} holds no vision tower, as {released.title} is released: name the folder of "
            f"{released.tower} (--vision FOLDER; weights.vision=FOLDER in training), or this id itself"
        )
    return within


def segmenter_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the segmenter in a complete checkpoint, by its own names (SAM 1's or SAM 2's)."""
    shapes = ReleasedWeights.open(folder).shapes
    return {
        plain_name(name).removeprefix(SEGMENTER): shape
        for name, shape in shapes.items()
        if plain_name(name).startswith(SEGMENTER)
    }
