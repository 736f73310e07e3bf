"""`glus demo-data`: the demo world in the released layouts of all six datasets, with a tokenizer of its own.

Small and synthetic, but complete: every reader, every kind of expression and every benchmark has something to read.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from glus.common.errors import DataError
from glus.common.files import is_there, make_folder_aside
from glus.common.json_file import parsed_as, read_object
from glus.common.progress import Progress
from glus.data_pipeline.batches.conversations import template_sentences
from glus.demo import layouts as demo_layouts
from glus.demo.image_layouts import (
    DemoImage,
    ImageSplits,
    demo_image,
    one_target,
    write_reason_seg,
    write_refcoco,
)
from glus.demo.layouts import DemoClip, Splits
from glus.demo.word_tokenizer import train_tokenizer
from glus.demo.world import DemoExpression, DemoVideo, DemoWorldConfig, demo_video, expressions_for

#: Of what is drawn and how it is laid out; goes up when either changes.
VERSION = 2
RECORD = "demo_data.json"


@dataclass(frozen=True)
class DemoDataConfig:
    """`train_videos` and `valid_videos` count for each dataset, or each of its splits where it has more than one.

    `train_images` and `valid_images` are images of the layouts of refCOCO and ReasonSeg each: 0 writes none.
    """

    root: Path
    """New folder for the six datasets in their released layouts, and a tokenizer."""
    seed: int = 0
    """Decides everything that is drawn."""
    train_videos: int = 60
    """Training videos of each dataset."""
    valid_videos: int = 6
    """Held-out videos of each dataset."""
    world: DemoWorldConfig = field(default_factory=DemoWorldConfig)
    train_images: int = 0
    """Training images of each image dataset; 0 draws none."""
    valid_images: int = 0
    """Held-out images of each image dataset."""
    twin_videos: int = 0
    """Held-out videos of twins, a dataset of their own (demo_twins); 0 draws none."""

    def __post_init__(self) -> None:
        if (self.train_images, self.valid_images) != (0, 0) and min(self.train_images, self.valid_images) < 1:
            raise DataError(
                f"demo data: train_images {self.train_images}, valid_images {self.valid_images}; give 1 or more "
                "of each, or 0 of both for no images"
            )
        if self.twin_videos < 0:
            raise DataError(f"demo data: twin_videos is {self.twin_videos}, must be 0 or more")
        if self.seed < 0 or self.train_videos < 1 or self.valid_videos < 1:
            raise DataError(
                f"demo data: seed {self.seed}, train_videos {self.train_videos}, valid_videos {self.valid_videos}; "
                "the seed must be 0 or more, the numbers of videos 1 or more"
            )


@dataclass(frozen=True)
class DemoDataSummary:
    """What lies below `root`. `written` is False where it lay there before.

    `videos["mevis/train"]` counts videos (or images); `expressions["mevis/train"]["motion"]` counts expressions of a
    kind, of which "" has no target.
    """

    root: Path
    written: bool
    videos: dict[str, int]
    expressions: dict[str, dict[str, int]]

    @property
    def message(self) -> str:
        """One line for the terminal."""
        total = sum(sum(kinds.values()) for kinds in self.expressions.values())
        what = f"{sum(self.videos.values())} videos with {total} expressions"
        if self.written:
            return f"demo data: wrote {what} to {self.root}"
        return f"demo data: {self.root} already holds these {what}; left as it is"


@dataclass(frozen=True)
class _Mix:
    """How a dataset names its frames and which expressions it takes of a video (see `expressions_for`).

    `more_in_train`: expressions of each object in train splits beyond `per_object`.
    """

    write: Callable[[Path, Splits], None]
    splits: tuple[str, ...]
    kinds: tuple[str, ...]
    per_object: int = 2
    several: int = 0
    absent: int = 0
    more_in_train: int = 3
    frame_step: int = 1
    padded: bool = True
    categories: bool = False
    twins: bool = False


_MIXES = {
    "mevis": _Mix(demo_layouts.write_mevis, ("train", "valid_u", "valid"), ("motion", "look"), per_object=3, several=3),
    "refer_youtube_vos": _Mix(
        demo_layouts.write_refer_youtube_vos, ("train", "valid"), ("look", "relation", "motion"), frame_step=5
    ),
    "ref_davis17": _Mix(demo_layouts.write_davis17, ("train", "valid"), ("look", "motion", "relation"), per_object=4),
    "lv_vis": _Mix(demo_layouts.write_lvvis, ("train",), (), frame_step=5, categories=True),
    "revos": _Mix(
        demo_layouts.write_revos,
        ("train", "valid"),
        ("reasoning", "look", "motion"),
        per_object=3,
        several=2,
        absent=1,
        padded=False,
    ),
    "reason_vos": _Mix(demo_layouts.write_reasonvos, ("valid",), ("reasoning", "relation")),
}
#: The datasets whose videos are drawn.
VIDEO_DATASETS = tuple(_MIXES)
#: Drawn where `twin_videos` are asked for.
_TWINS = {"demo_twins": _Mix(demo_layouts.write_twins, ("valid",), ("motion",), per_object=3, twins=True)}
TWINS = tuple(_TWINS)


@dataclass(frozen=True)
class _ImageMix:
    """A dataset of images: its splits, the kinds of expressions that it takes, and whether an image has one target."""

    write: Callable[[Path, ImageSplits], None]
    splits: tuple[str, ...]
    kinds: tuple[str, ...]
    one_target: bool = False


_IMAGE_MIXES = {
    "refcoco": _ImageMix(write_refcoco, ("train", "val"), ("look", "relation")),
    "reason_seg": _ImageMix(write_reason_seg, ("train", "val"), ("reasoning",), one_target=True),
}


def write_demo_data(config: DemoDataConfig, prompt_sentences: Sequence[str] | None = None) -> DemoDataSummary:
    """Write the demo datasets and tokenizer.model below `config.root`, all or nothing.

    The words of `prompt_sentences` (by default those of conversations.py) become pieces of the tokenizer. Data of the
    same config is kept.
    Raises DataError where the root holds anything else, or where it cannot be written.
    """
    if prompt_sentences is None:
        prompt_sentences = template_sentences()
    wanted = _record(config, prompt_sentences)
    root = config.root
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        return _found(root, wanted)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        aside = make_folder_aside(root.parent, f".{root.name}-", ".part")
        try:
            complete = aside / "root"
            complete.mkdir()
            videos, expressions = _write_all(complete, config, prompt_sentences)
            record = wanted | {"videos": videos, "expressions": expressions}
            (complete / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            complete.rename(root)
        finally:
            shutil.rmtree(aside)
    except OSError as error:
        raise DataError(
            f"demo data: cannot write below {root} ({error.strerror or error}). Make room or choose another root; "
            "nothing half-written was left"
        ) from error
    return DemoDataSummary(root, True, videos, expressions)


def _record(config: DemoDataConfig, prompt_sentences: Sequence[str]) -> dict[str, Any]:
    """What decides the data: two roots of equal records hold equal files."""
    return {
        "version": VERSION,
        "seed": config.seed,
        "train_videos": config.train_videos,
        "valid_videos": config.valid_videos,
        "world": {**asdict(config.world), "speed": list(config.world.speed)},
        "prompt_sentences": hashlib.sha256(json.dumps(list(prompt_sentences)).encode()).hexdigest(),
        # Records of data without images or twins know nothing of them.
        **({"images": [config.train_images, config.valid_images]} if config.train_images else {}),
        **({"twins": config.twin_videos} if config.twin_videos else {}),
    }


def _found(root: Path, wanted: dict[str, Any]) -> DemoDataSummary:
    """The summary of data that is already there. Raises DataError where it is not what is wanted."""
    remedy = "choose another root, or remove this one"
    if not is_there(root / RECORD):
        raise DataError(f"demo data: {root} is there already and is no demo data (no {RECORD}); {remedy}")
    record = read_object(root / RECORD, "record of demo data", raises=DataError, remedy=remedy)
    wanted = {"images": None, "twins": None, **wanted}
    held = {key: record.get(key) for key in wanted}
    fields = {"root": str(root), "written": False, **{key: record.get(key) for key in ("videos", "expressions")}}
    summary = parsed_as(fields, DemoDataSummary, str(root / RECORD), raises=DataError, remedy=remedy)
    different = [f"{key} {held[key]!r} instead of {wanted[key]!r}" for key in wanted if held[key] != wanted[key]]
    if different:
        raise DataError(f"demo data: {root} holds other demo data ({'; '.join(different)}); {remedy}")
    return summary


def _write_all(
    root: Path, config: DemoDataConfig, prompt_sentences: Sequence[str]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """All datasets and the tokenizer. Returns the counts of DemoDataSummary."""
    counts = {
        f"{dataset}/{split}": config.train_videos if split == "train" else config.valid_videos
        for dataset, mix in _MIXES.items()
        for split in mix.splits
    }
    counts |= {f"{dataset}/valid": config.twin_videos for dataset in _TWINS if config.twin_videos}
    images = {
        f"{dataset}/{split}": config.train_images if split == "train" else config.valid_images
        for dataset, mix in _IMAGE_MIXES.items()
        for split in mix.splits
        if config.train_images
    }
    counts |= images
    kinds: dict[str, Counter[str]] = {key: Counter() for key in counts}
    texts: list[str] = []

    def clips(dataset: str, split: str) -> Iterator[DemoClip]:
        key = f"{dataset}/{split}"
        for index in range(counts[key]):
            clip = _clip(config, dataset, split, index)
            kinds[key].update(expression.kind for expression in clip.expressions)
            if split == "train":
                texts.extend(expression.text for expression in clip.expressions)
            yield clip
            progress.update()

    def pictures(dataset: str, split: str) -> Iterator[DemoImage]:
        key, mix = f"{dataset}/{split}", _IMAGE_MIXES[dataset]
        for index in range(counts[key]):
            image = demo_image(config.seed, f"{key}/{index}", config.world, mix.kinds)
            image = one_target(image) if mix.one_target else image
            kinds[key].update(expression.kind for expression in image.expressions)
            if split == "train":
                texts.extend(expression.text for expression in image.expressions)
            yield image
            progress.update()

    with Progress(total=sum(counts.values()), desc="demo data", unit="video") as progress:
        for dataset, mix in _MIXES.items():
            mix.write(root, {split: clips(dataset, split) for split in mix.splits})
        if config.twin_videos:
            for dataset, mix in _TWINS.items():
                mix.write(root, {split: clips(dataset, split) for split in mix.splits})
        for dataset in dict.fromkeys(key.split("/")[0] for key in images):
            of_images = _IMAGE_MIXES[dataset]
            of_images.write(root, {split: pictures(dataset, split) for split in of_images.splits})
    (root / "tokenizer.model").write_bytes(train_tokenizer(texts, prompt_sentences))
    return counts, {key: dict(sorted(counter.items())) for key, counter in kinds.items()}


def _clip(config: DemoDataConfig, dataset: str, split: str, index: int) -> DemoClip:
    """Video `index` of a split. Its name holds dataset and split, so no two splits show the same video."""
    mix, key = (_MIXES | _TWINS)[dataset], f"{dataset}/{split}/{index}"
    name = f"{index:05d}" if dataset == "lv_vis" else hashlib.sha256(key.encode()).hexdigest()[:10]
    video = demo_video(config.seed, key, replace(config.world, twins=1.0) if mix.twins else config.world)
    first = mix.frame_step * (crc32(key.encode()) % 4) if mix.frame_step > 1 else 0
    numbers = range(first, first + mix.frame_step * config.world.frames, mix.frame_step)
    frame_names = tuple(f"{number:05d}" if mix.padded else str(number) for number in numbers)
    if mix.categories:
        expressions = _categories(video)
    else:
        per_object = mix.per_object + (mix.more_in_train if split == "train" else 0)
        expressions = expressions_for(video, config.seed, mix.kinds, per_object, mix.several, mix.absent)
    return DemoClip(name, frame_names, video, expressions)


def _categories(video: DemoVideo) -> tuple[DemoExpression, ...]:
    """LV-VIS: the name of each category that is shown, for all its objects."""
    members: dict[str, list[int]] = {}
    for thing in video.objects:
        members.setdefault(thing.shape, []).append(thing.id)
    return tuple(
        DemoExpression(shape, tuple(ids), "several" if len(ids) > 1 else "look") for shape, ids in members.items()
    )
