"""Which videos and images each demo dataset holds: how many, what is said of them, in which layout."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zlib import crc32

from glus.common.errors import DataError
from glus.demo.synthetic import layouts as demo_layouts
from glus.demo.synthetic.image_layouts import (
    DemoImage,
    ImageSplits,
    demo_image,
    one_target,
    write_reason_seg,
    write_refcoco,
)
from glus.demo.synthetic.layouts import DemoClip, Splits
from glus.demo.synthetic.world import DemoExpression, DemoVideo, DemoWorldConfig, demo_video, expressions_for


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
    datasets: tuple[str, ...] = ()
    """The video datasets to draw; empty draws all six."""
    workers: int | None = None
    """Processes that draw, each a dataset at a time; none for one a CPU where there is enough to draw."""

    def __post_init__(self) -> None:
        if (self.train_images, self.valid_images) != (0, 0) and min(self.train_images, self.valid_images) < 1:
            raise DataError(
                f"demo data: train_images {self.train_images}, valid_images {self.valid_images}; give 1 or more "
                "of each, or 0 of both for no images"
            )
        unknown = sorted(set(self.datasets) - set(_MIXES))
        if unknown or len(set(self.datasets)) < len(self.datasets):
            raise DataError(
                f"demo data: datasets is {list(self.datasets)}; name each of {', '.join(_MIXES)} at most once"
            )
        if self.workers is not None and self.workers < 1:
            raise DataError(f"demo data: workers is {self.workers}, must be 1 or more")
        if self.twin_videos < 0:
            raise DataError(f"demo data: twin_videos is {self.twin_videos}, must be 0 or more")
        if self.seed < 0 or self.train_videos < 1 or self.valid_videos < 1:
            raise DataError(
                f"demo data: seed {self.seed}, train_videos {self.train_videos}, valid_videos {self.valid_videos}; "
                "the seed must be 0 or more, the numbers of videos 1 or more"
            )


def counts_of(config: DemoDataConfig) -> dict[str, int]:
    """How many videos or images of each "dataset/split" are drawn, in order."""
    counts = {
        f"{dataset}/{split}": config.train_videos if split == "train" else config.valid_videos
        for dataset, mix in _MIXES.items()
        for split in mix.splits
        if not config.datasets or dataset in config.datasets
    }
    counts |= {f"{dataset}/valid": config.twin_videos for dataset in _TWINS if config.twin_videos}
    return counts | {
        f"{dataset}/{split}": config.train_images if split == "train" else config.valid_images
        for dataset, mix in _IMAGE_MIXES.items()
        for split in mix.splits
        if config.train_images
    }


def write_dataset(
    root: Path, config: DemoDataConfig, dataset: str, drawn: Callable[[], object] = lambda: None
) -> tuple[dict[str, Counter[str]], list[str]]:
    """One dataset below `root`. Returns the kinds of its expressions by "dataset/split", and its training texts.

    `drawn` is called after each video or image.
    """
    wanted = {key.split("/")[1]: count for key, count in counts_of(config).items() if key.split("/")[0] == dataset}
    kinds: dict[str, Counter[str]] = {f"{dataset}/{split}": Counter() for split in wanted}
    texts: list[str] = []

    def add(split: str, expressions: Sequence[DemoExpression]) -> None:
        kinds[f"{dataset}/{split}"].update(expression.kind for expression in expressions)
        if split == "train":
            texts.extend(expression.text for expression in expressions)
        drawn()

    def clips(split: str) -> Iterator[DemoClip]:
        for index in range(wanted[split]):
            clip = _clip(config, dataset, split, index)
            yield clip
            add(split, clip.expressions)

    def pictures(split: str, mix: _ImageMix) -> Iterator[DemoImage]:
        for index in range(wanted[split]):
            image = demo_image(config.seed, f"{dataset}/{split}/{index}", config.world, mix.kinds)
            image = one_target(image) if mix.one_target else image
            yield image
            add(split, image.expressions)

    if dataset in _IMAGE_MIXES:
        of_images = _IMAGE_MIXES[dataset]
        of_images.write(root, {split: pictures(split, of_images) for split in wanted})
    else:
        (_MIXES | _TWINS)[dataset].write(root, {split: clips(split) for split in wanted})
    return kinds, texts


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
