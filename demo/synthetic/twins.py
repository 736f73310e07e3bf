"""Twins: objects of one look that differ in motion alone, and motions that change over time.

A video of twins has two or three objects alike in shape, colour and size, and mostly another one. No single frame shows
which twin an expression about motion means.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from glus.demo.synthetic.objects import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZES,
    DemoObject,
    DemoWorldConfig,
    sample_ids,
    sample_palette,
    sample_path,
)

#: Shares of twin videos with three twins, with another object, with a motion that changes, with a late arrival.
THREE, OTHER, CHANGING, LATE = 0.4, 0.6, 0.35, 0.15
#: Share of twin videos whose objects may pass behind each other; in the others they keep apart.
CROSSING = 0.25
#: Least distance of two objects that keep apart, in radii of the larger.
APART = 1.7
PATH_TRIES = 60
#: Joins the two parts of a motion that changes.
THEN = " then "
_STILL = "still"


def parts_of(motion: str) -> tuple[str, ...]:
    """The directions of a motion, in order: one, or two where it changes."""
    return tuple(motion.split(THEN))


def sample_twins(rng: np.random.Generator, config: DemoWorldConfig) -> tuple[DemoObject, ...]:
    """Two or three twins with different motions, and up to one other object. Their order (depth) is random."""
    while True:
        twins = 3 if config.max_objects > 2 and rng.random() < THREE else 2
        count = twins + int(config.max_objects > twins and rng.random() < OTHER)
        looks = [_look(rng)] * twins
        while len(looks) < count:
            look = _look(rng)
            if look[:2] != looks[0][:2]:
                looks.append(look)
        motions = _motions(rng, twins)
        motions += [str(rng.choice(list(DIRECTIONS))) for _ in range(count - twins)]
        shared = rng.uniform(0, 1)
        radii = [_radius(look[2], shared if i < twins else rng.uniform(0, 1), config) for i, look in enumerate(looks)]
        late = int(rng.integers(twins)) if rng.random() < LATE else -1
        paths = _paths(rng, motions, radii, late, config)
        if paths is not None:
            return _objects(rng, looks, motions, radii, paths)


def _look(rng: np.random.Generator) -> tuple[str, str, str]:
    size = "small" if rng.random() < 0.75 else "large"
    return str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS))), size


def _radius(size: str, share: float, config: DemoWorldConfig) -> float:
    least, most = SIZES[size]
    return (least + share * (most - least)) * config.unit


def _motions(rng: np.random.Generator, twins: int) -> list[str]:
    """Different motions; one of them may change over time, in a way that no other twin's motion is a part of."""
    plain = [list(DIRECTIONS)[i] for i in rng.permutation(len(DIRECTIONS))]
    motions = plain[:twins]
    if rng.random() < CHANGING:
        first, second = motions[0], _STILL
        if first == _STILL or rng.random() < 0.5:
            across = [d for d in DIRECTIONS if d != _STILL and not _same_axis(d, first) and d not in motions[1:]]
            second = str(rng.choice(across)) if across else second
        if second not in motions:
            motions[0] = f"{first}{THEN}{second}"
    return motions


def _same_axis(one: str, other: str) -> bool:
    return np.flatnonzero(DIRECTIONS[one]).tolist() == np.flatnonzero(DIRECTIONS[other]).tolist()


def _paths(
    rng: np.random.Generator, motions: list[str], radii: list[float], late: int, config: DemoWorldConfig
) -> list[NDArray[np.float64]] | None:
    """Centres float64 [T, 2] of each object; None where there is no room for them."""
    crossing = rng.random() < CROSSING
    for _ in range(PATH_TRIES):
        paths = [
            _arriving(rng, motion, radius, config)
            if number == late and motion in DIRECTIONS and motion != _STILL
            else _path(rng, motion, radius, config)
            for number, (motion, radius) in enumerate(zip(motions, radii, strict=True))
        ]
        if all(path is not None for path in paths):
            found = [path for path in paths if path is not None]
            if crossing or _least_distance(found) >= APART * max(radii):
                return found
    return None


def _least_distance(paths: list[NDArray[np.float64]]) -> float:
    apart = [first - second for first, second in combinations(paths, 2)]
    return float(np.linalg.norm(apart, axis=-1).min())


def _path(rng: np.random.Generator, motion: str, radius: float, config: DemoWorldConfig) -> NDArray[np.float64] | None:
    """A path inside the picture: all of the motion is seen. None where it is longer than the picture."""
    parts = parts_of(motion)
    steps = config.frames - 1
    turn = steps if len(parts) == 1 else int(rng.integers(round(0.4 * steps), round(0.6 * steps) + 1))
    speed = rng.uniform(*config.speed) * config.unit
    moves = np.repeat([DIRECTIONS[part] for part in parts], (turn, steps - turn)[: len(parts)], axis=0)
    along = np.zeros((config.frames, 2))
    np.cumsum(speed * moves, axis=0, out=along[1:])
    size = np.array([config.width, config.height], dtype=np.float64)
    least, most = radius - along.min(axis=0), size - radius - along.max(axis=0)
    if (most < least).any():
        return None
    path: NDArray[np.float64] = rng.uniform(least, most) + along
    return path


def _arriving(rng: np.random.Generator, motion: str, radius: float, config: DemoWorldConfig) -> NDArray[np.float64]:
    """A straight path that begins outside and comes in before the middle of the video."""
    path = sample_path(rng, motion, radius, config)
    axis = int(np.flatnonzero(DIRECTIONS[motion])[0])
    speed = rng.uniform(*config.speed) * config.unit
    begin = -radius * 1.6 - speed * rng.uniform(0.1, 0.35) * (config.frames - 1)
    along = begin + speed * np.arange(config.frames)
    path[:, axis] = along if sum(DIRECTIONS[motion]) > 0 else (config.width, config.height)[axis] - along
    return path


def _objects(
    rng: np.random.Generator,
    looks: list[tuple[str, str, str]],
    motions: list[str],
    radii: list[float],
    paths: list[NDArray[np.float64]],
) -> tuple[DemoObject, ...]:
    palette = sample_palette(rng)
    angles = {look: float(rng.uniform(-0.2, 0.2)) for look in dict.fromkeys(looks)}
    ids, objects = sample_ids(rng, len(looks)), []
    for number, place in enumerate(rng.permutation(len(looks))):
        look = looks[place]
        shape, colour, size = look
        objects.append(
            DemoObject(
                id=ids[number],
                shape=shape,
                colour=colour,
                size=size,
                motion=motions[place],
                radius=radii[place],
                rgb=palette[colour],
                angle=angles[look],
                centres=paths[place],
            )
        )
    return tuple(objects)
