"""A small world for referring video object segmentation: `demo_video` draws one video with its masks and expressions.

Coloured shapes move before a grey ground, hide each other, enter and leave. Everything is a pure function of (seed,
name, config). Words and counts of expressions are in expressions.py, attributes and paths in objects.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.common.seeds import numpy_generator
from glus.demo.synthetic.expressions import KINDS, DemoExpression, all_expressions
from glus.demo.synthetic.objects import ROUND, DemoObject, DemoScene, DemoWorldConfig, sample_objects
from glus.demo.synthetic.twins import sample_twins

__all__ = ["DemoExpression", "DemoObject", "DemoVideo", "DemoWorldConfig", "demo_video", "expressions_for"]

TRIES = 200
SUBPIXEL_BITS = 4
NOISE = 2.5


@dataclass(frozen=True, eq=False)
class DemoVideo:
    """One drawn video.

    `frames` uint8 [T, H, W, 3] RGB; `masks[id]` bool [T, H, W], what is seen of the object after occlusion; `objects`
    with the last in front; `expressions`: all that is said of it, in a fixed order. Ids may have gaps.
    """

    name: str
    frames: NDArray[np.uint8]
    masks: dict[int, NDArray[np.bool_]]
    expressions: tuple[DemoExpression, ...]
    objects: tuple[DemoObject, ...]


@dataclass(frozen=True)
class _Patch:
    """What one object covers of a frame: `coverage` uint8 [h, w], 255 where it covers all of the pixel."""

    index: int
    rows: slice
    columns: slice
    coverage: NDArray[np.uint8]


def demo_video(seed: int, name: str, config: DemoWorldConfig) -> DemoVideo:
    """Draw the video that (seed, name, config) names.

    Raises DataError where the picture is too small for the number of objects asked for.
    """
    rng = _generator(seed, name)
    # Where there are none, nothing is drawn for them: the same videos as before there were twins.
    twins = config.twins > 0 and rng.random() < config.twins
    for _ in range(TRIES):
        objects = sample_twins(rng, config) if twins else sample_objects(rng, config)
        patches = _patches(objects, config)
        front = np.zeros((config.frames, config.height, config.width), dtype=np.uint8)
        for picture, of_frame in zip(front, patches, strict=True):
            for patch in of_frame:
                np.copyto(picture[patch.rows, patch.columns], patch.index + 1, where=patch.coverage >= 128)
        scene = DemoScene.of(objects, front, config)
        if scene.is_clear():
            break
    else:
        raise DataError(
            f"demo world: no room for {config.min_objects} to {config.max_objects} objects in {config.frames} frames "
            f"of {config.width} x {config.height} (video {name!r}); ask for fewer objects or a larger picture"
        )
    frames = _paint(rng, objects, patches, config)
    masks = {thing.id: front == index + 1 for index, thing in enumerate(objects)}
    return DemoVideo(name, frames, masks, all_expressions(rng, scene), objects)


def expressions_for(
    video: DemoVideo,
    seed: int,
    kinds: Sequence[str],
    per_object: int = 2,
    several: int = 0,
    absent: int = 0,
) -> tuple[DemoExpression, ...]:
    """A dataset's own mix of a video's expressions, a pure function of its arguments.

    `per_object` expressions for each object alone, taken from `kinds` in turn (filled up with "look" where the
    kinds have too few, or with any for a twin, so that there are at least two); then up to `several` for several
    objects at once and up to `absent` without target. Raises DataError for an unknown kind.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise DataError(f"demo world: unknown kinds of expressions {unknown}; known are {list(KINDS)}")
    rng = _generator(seed, f"expressions of {video.name}")
    shuffled = [video.expressions[i] for i in rng.permutation(len(video.expressions))]
    chosen: list[DemoExpression] = []
    for turn, thing in enumerate(video.objects):
        own = [expression for expression in shuffled if expression.object_ids == (thing.id,)]
        order = [kinds[(turn + i) % len(kinds)] for i in range(len(kinds))]
        piles = [[expression for expression in own if expression.kind == kind] for kind in order]
        in_turn = [pile[depth] for depth in range(per_object) for pile in piles if depth < len(pile)]
        spare = [expression for expression in own if expression.kind == "look" and expression not in in_turn]
        # Nothing is said of a twin's look alone.
        if not any(expression.kind == "look" for expression in own):
            spare = [expression for expression in own if expression not in in_turn]
        chosen += (in_turn + spare)[:per_object]
    chosen += [expression for expression in shuffled if len(expression.object_ids) > 1][:several]
    chosen += [expression for expression in shuffled if not expression.object_ids][:absent]
    return tuple(chosen)


def _generator(seed: int, name: str) -> np.random.Generator:
    return numpy_generator(seed, crc32(name.encode()))


def _patches(objects: Sequence[DemoObject], config: DemoWorldConfig) -> list[list[_Patch]]:
    """What the objects cover in each frame, from back to front. Nothing for an object outside the picture."""
    patches: list[list[_Patch]] = [[] for _ in range(config.frames)]
    for index, thing in enumerate(objects):
        reach = thing.radius * 1.7
        firsts = np.maximum(0, (thing.centres - reach).astype(int))
        ends = np.minimum((config.width, config.height), (thing.centres + reach).astype(int) + 2)
        centres = np.rint((thing.centres - firsts) * 2**SUBPIXEL_BITS).astype(np.int32)
        outline = np.rint(thing.outline * 2**SUBPIXEL_BITS).astype(np.int32)
        for of_frame, centre, (left, top), (right, bottom) in zip(
            patches, centres, firsts.tolist(), ends.tolist(), strict=True
        ):
            if right <= left or bottom <= top:
                continue
            coverage = np.zeros((bottom - top, right - left), dtype=np.uint8)
            if thing.shape in ROUND:
                for radius, value in ((thing.outer, 255), (thing.hole, 0)):
                    fixed = centre.tolist(), round(radius * 2**SUBPIXEL_BITS)
                    if radius:
                        cv2.circle(coverage, *fixed, value, -1, cv2.LINE_AA, SUBPIXEL_BITS)
            else:
                cv2.fillPoly(coverage, [outline + centre], 255, cv2.LINE_AA, SUBPIXEL_BITS)
            of_frame.append(_Patch(index, slice(top, bottom), slice(left, right), coverage))
    return patches


def _paint(
    rng: np.random.Generator, objects: Sequence[DemoObject], patches: Sequence[list[_Patch]], config: DemoWorldConfig
) -> NDArray[np.uint8]:
    """Frames uint8 [T, H, W, 3]: the objects over a softly textured grey ground, then mild noise over all."""
    coarse = rng.standard_normal((7, 9), dtype=np.float32)
    texture = cv2.resize(coarse, (config.width, config.height), interpolation=cv2.INTER_CUBIC)
    tint = rng.uniform(-4, 4, 3).astype(np.float32)
    ground = np.float32(rng.uniform(95, 150)) + 7 * texture[..., None] + tint
    colours = [(*thing.rgb, 0) for thing in objects]
    frames = np.empty((config.frames, *ground.shape), dtype=np.uint8)
    for frame, of_frame in zip(frames, patches, strict=True):
        picture = ground.copy()
        for patch in of_frame:
            region = picture[patch.rows, patch.columns]
            opacity = cv2.cvtColor(patch.coverage.astype(np.float32) / 255, cv2.COLOR_GRAY2RGB)
            region += opacity * cv2.subtract(colours[patch.index], region)
        noise = NOISE * rng.standard_normal(ground.shape[:2], dtype=np.float32)
        # OpenCV adds in float32, rounds to the nearest (halves to even) and clips to uint8.
        frame[:] = cv2.add(picture, cv2.cvtColor(noise, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)
    return frames
