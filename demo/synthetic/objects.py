"""The objects of the demo world: what they look like, how they move, and what of them is seen.

A video of the demo world shows a few coloured shapes before a grey ground. Each attribute has a word, so that an
expression is a statement about attributes which can be checked.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError

SHAPES = ("circle", "ring", "bar", "pillar", "cross")
COLOURS = {
    "red": (212, 40, 40),
    "green": (48, 156, 64),
    "blue": (44, 84, 212),
    "yellow": (236, 216, 56),
    "purple": (140, 56, 176),
    "orange": (244, 136, 32),
}
SIZES = {"small": (10.0, 12.0), "large": (17.0, 21.0)}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
FIELDS = ("shape", "colour", "size", "motion")

COLOUR_JITTER = 8
#: Share of objects that copy the shape of an earlier one. Colours of a video all differ.
ALIKE = 0.25
LEAST_AREA = 40.0

#: Half the extents of each shape in radii, chosen so that shapes of one radius have areas within a third of each other:
#: the largest small object is then clearly smaller than the smallest large one.
EXTENTS = {"bar": (1.55, 0.5), "pillar": (0.5, 1.55)}
ROUND = {"circle": 1.0, "ring": 1.15}
RING_HOLE = 0.6
CROSS_ARM, CROSS_REACH = 0.36, 1.3


@dataclass(frozen=True)
class DemoWorldConfig:
    """The size of a demo video. Radii (10 to 21 px) and speeds hold for 128 x 96 and scale."""

    frames: int = 12
    """Frames of a video."""
    width: int = 128
    """Width of a frame in pixels."""
    height: int = 96
    """Height of a frame in pixels."""
    min_objects: int = 2
    """Fewest objects of a video."""
    max_objects: int = 4
    """Most objects of a video."""
    speed: tuple[float, float] = (5.0, 8.0)
    """Least and greatest speed of a moving object, px a frame."""
    twins: float = 0.0
    """Share of videos with twins: objects of one look that differ in motion alone (twins.py)."""

    def __post_init__(self) -> None:
        if not 4 <= self.frames <= 40:
            raise DataError(f"demo world: frames is {self.frames}, must be 4 to 40 (objects cross the picture once)")
        if min(self.width, self.height) < 32:
            raise DataError(f"demo world: the picture is {self.width} x {self.height}, must be 32 x 32 or more")
        if not 0 < self.speed[0] <= self.speed[1] <= 64:
            raise DataError(
                f"demo world: speed is {list(self.speed)}, must be two numbers above 0 that ascend, 64 at most"
            )
        if not 0 <= self.twins <= 1:
            raise DataError(f"demo world: twins is {self.twins}, must be 0 to 1")
        if self.twins and self.max_objects < 2:
            raise DataError(f"demo world: twins are two objects or more, but max_objects is {self.max_objects}")
        if not 1 <= self.min_objects <= self.max_objects <= 20:
            raise DataError(
                f"demo world: {self.min_objects} to {self.max_objects} objects asked for, "
                "must be 1 <= min_objects <= max_objects <= 20"
            )

    @property
    def unit(self) -> float:
        """Pixels for one pixel of the 128 x 96 picture."""
        return min(self.width / 128, self.height / 96)


@dataclass(frozen=True, eq=False)
class DemoObject:
    """One object: the four attributes that words speak of, then how it is drawn.

    `radius` in pixels, `rgb` 0 to 255, `angle` in radians, `centres` float64 [T, 2] as (x, y) in pixels; a centre may
    lie outside the picture.
    """

    id: int
    shape: str
    colour: str
    size: str
    motion: str
    radius: float
    rgb: tuple[int, int, int]
    angle: float
    centres: NDArray[np.float64]

    @property
    def outer(self) -> float:
        """Radius of a round shape, in pixels."""
        return self.radius * ROUND[self.shape]

    @property
    def hole(self) -> float:
        """Radius of its hole, in pixels; 0 where it has none."""
        return self.outer * RING_HOLE if self.shape == "ring" else 0.0

    @cached_property
    def outline(self) -> NDArray[np.float64]:
        """The corners around the centre, float64 [N, 2] in pixels. Round shapes have none: [0, 2]."""
        if self.shape in ROUND:
            return np.zeros((0, 2))
        if self.shape == "cross":
            a, b = CROSS_ARM, CROSS_REACH
            quarter = np.array([(a, b), (a, a), (b, a)])
            turns = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in -np.arange(4) * np.pi / 2]
            corners = np.concatenate([quarter @ turn.T for turn in turns])
        else:
            corners = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * EXTENTS[self.shape]
        turned = np.array([[np.cos(self.angle), -np.sin(self.angle)], [np.sin(self.angle), np.cos(self.angle)]])
        outline: NDArray[np.float64] = self.radius * corners @ turned.T
        return outline

    @cached_property
    def area(self) -> float:
        """Area of the shape in square pixels, unoccluded."""
        if self.shape in ROUND:
            return float(np.pi * (self.outer**2 - self.hole**2))
        x, y = self.outline.T
        return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@dataclass(frozen=True, eq=False)
class DemoScene:
    """Objects, the last in front, and what is seen of them.

    `areas` int64 [O, T]: visible pixels. `centroids` float64 [O, T, 2] as (x, y): of the visible part, NaN where there
    is none.
    """

    objects: tuple[DemoObject, ...]
    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]
    config: DemoWorldConfig

    @classmethod
    def of(cls, objects: tuple[DemoObject, ...], front: NDArray[np.uint8], config: DemoWorldConfig) -> "DemoScene":
        """`front` uint8 [T, H, W] holds 1 + the index of the object in front, 0 for the ground."""
        areas = np.zeros((len(objects), config.frames), dtype=np.int64)
        centroids = np.full((len(objects), config.frames, 2), np.nan)
        for index in range(len(objects)):
            seen = front == index + 1
            columns, rows = seen.sum(axis=1, dtype=np.uint32), seen.sum(axis=2, dtype=np.uint32)
            areas[index] = columns.sum(axis=1)
            shown = areas[index] > 0
            centroids[index, shown, 0] = (columns @ np.arange(config.width))[shown] / areas[index, shown]
            centroids[index, shown, 1] = (rows @ np.arange(config.height))[shown] / areas[index, shown]
        return cls(objects, areas, centroids, config)

    def is_clear(self) -> bool:
        """Every object is seen in at least half of the frames, and nearly all of it in a quarter of them."""
        enough = self.areas >= LEAST_AREA * self.config.unit**2
        nearly_all = self.areas >= 0.7 * np.array([[thing.area] for thing in self.objects])
        half, quarter = -(-self.config.frames // 2), -(-self.config.frames // 4)
        return bool((enough.sum(axis=1) >= half).all() and (nearly_all.sum(axis=1) >= quarter).all())


def sample_objects(rng: np.random.Generator, config: DemoWorldConfig) -> tuple[DemoObject, ...]:
    """Objects that differ: in colour as far as there are colours, mostly in shape and motion too."""
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    ids = sample_ids(rng, count)
    palette = sample_palette(rng)
    colours, shapes, motions = (_deck(rng, tuple(words), count) for words in (COLOURS, SHAPES, DIRECTIONS))
    objects: list[DemoObject] = []
    while len(objects) < count:
        index = len(objects)
        shape, colour, motion = shapes[index], colours[index], motions[index]
        if objects and rng.random() < ALIKE:
            shape = objects[rng.integers(index)].shape
        if objects and rng.random() < ALIKE:
            motion = objects[rng.integers(index)].motion
        size = str(rng.choice(list(SIZES)))
        if any((shape, colour, size) == (thing.shape, thing.colour, thing.size) for thing in objects):
            shapes[index] = str(rng.choice(SHAPES))  # only where there are more objects than colours
            continue
        radius = float(rng.uniform(*SIZES[size])) * config.unit
        objects.append(
            DemoObject(
                id=ids[index],
                shape=shape,
                colour=colour,
                size=size,
                motion=motion,
                radius=radius,
                rgb=palette[colour],
                angle=float(rng.uniform(-0.2, 0.2)),
                centres=sample_path(rng, motion, radius, config),
            )
        )
    return tuple(objects)


def sample_palette(rng: np.random.Generator) -> dict[str, tuple[int, int, int]]:
    """The shade of each colour in a video: red, green, blue."""
    palette = {}
    for name, rgb in COLOURS.items():
        red, green, blue = np.clip(rgb + rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, 3), 0, 255).tolist()
        palette[name] = red, green, blue
    return palette


def _deck(rng: np.random.Generator, words: tuple[str, ...], count: int) -> list[str]:
    """`count` words in random order, none twice before all have been drawn."""
    rounds = -(-count // len(words))
    return [words[i] for _ in range(rounds) for i in rng.permutation(len(words))][:count]


def sample_ids(rng: np.random.Generator, count: int) -> list[int]:
    """1, 2, 3 ..., with gaps in three of ten videos, as real annotations have."""
    if rng.random() < 0.7:
        return list(range(1, count + 1))
    return sorted(int(i) for i in rng.choice(np.arange(1, 2 * count + 2), size=count, replace=False))


def sample_path(rng: np.random.Generator, motion: str, radius: float, config: DemoWorldConfig) -> NDArray[np.float64]:
    """Centres float64 [T, 2]: a straight line with a slight wobble across it, or one place.

    Of a hundred moving objects twelve come into the picture and twelve leave it; the others start inside.
    """
    size = np.array([config.width, config.height], dtype=np.float64)
    start = rng.uniform(np.minimum(0.8 * radius, size / 2), np.maximum(size - 0.8 * radius, size / 2))
    if motion == "still":
        return np.repeat(start[None], config.frames, axis=0)
    direction = np.array(DIRECTIONS[motion], dtype=np.float64)
    axis = int(np.flatnonzero(direction)[0])
    length, last = size[axis], config.frames - 1
    speed = rng.uniform(*config.speed) * config.unit
    fate = rng.random()
    if fate < 0.12:
        first = -radius - speed * rng.uniform(0, last / 3)
    elif fate < 0.24:
        first = length + radius - speed * rng.uniform(last * 2 / 3, last)
    else:
        first = rng.uniform(0.7 * radius, max(length - 0.7 * radius - speed * last, 0.7 * radius))
    steps = np.arange(config.frames)
    along = first + speed * steps
    period, phase = rng.uniform(6, 12), rng.uniform(0, 2 * np.pi)
    wobble = rng.uniform(0.3, 1.0) * config.unit * np.sin(2 * np.pi * steps / period + phase)
    centres = np.empty((config.frames, 2))
    centres[:, axis] = along if direction[axis] > 0 else length - along
    centres[:, 1 - axis] = start[1 - axis] + wobble
    return centres
