"""The demo world: what is drawn is what is said, checked from pixels and words by a reading of its own."""

import re
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.demo.synthetic.world import (
    DemoExpression,
    DemoObject,
    DemoVideo,
    DemoWorldConfig,
    demo_video,
    expressions_for,
)

pytestmark = pytest.mark.slow

CONFIG = DemoWorldConfig()
PURE_COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 160, 0),
    "blue": (0, 64, 255),
    "yellow": (255, 255, 0),
    "purple": (150, 0, 200),
    "orange": (255, 140, 0),
}
COLOUR = re.compile(r"\b(red|green|blue|yellow|purple|orange)\b")
SHAPE = re.compile(r"\b(circle|ring|bar|pillar|cross)(?:s|es)?\b")
SIZE = re.compile(r"\b(small|little|large|big)\b")
MOTION = re.compile(
    r"\b((?:moving|moves|going) (?:to the )?(?P<way>left|right|up|down)(?:wards)?"
    r"|not move|not moving|stays? still|staying still)"
)
FACTS = {
    "tomato": "red",
    "fire engine": "red",
    "grass": "green",
    "frog": "green",
    "sky": "blue",
    "sea": "blue",
    "banana": "yellow",
    "lemon": "yellow",
    "lavender": "purple",
    "grapes": "purple",
    "carrot": "orange",
    "pumpkin": "orange",
    "coin": "circle",
    "moon": "circle",
    "doughnut": "ring",
    "hole": "ring",
    "sleeping": "bar",
    "wider": "bar",
    "lamp post": "pillar",
    "higher than wide": "pillar",
    "plus sign": "cross",
    "adding": "cross",
    "balloon": "up",
    "smoke": "up",
    "stone": "down",
    "rain": "down",
    "parked": "still",
    "rock": "still",
}


@pytest.fixture(scope="module")
def videos() -> list[DemoVideo]:
    return [demo_video(7, f"video {number}", CONFIG) for number in range(60)]


def test_the_same_key_draws_the_same_video_and_another_key_another() -> None:
    first, again = demo_video(3, "a", CONFIG), demo_video(3, "a", CONFIG)
    assert first.frames.tobytes() == again.frames.tobytes()
    assert first.expressions == again.expressions
    assert all((first.masks[key] == again.masks[key]).all() for key in first.masks)
    for other in (demo_video(4, "a", CONFIG), demo_video(3, "b", CONFIG)):
        assert other.frames.tobytes() != first.frames.tobytes()


def test_shapes_and_types_are_as_documented(videos: list[DemoVideo]) -> None:
    for video in videos:
        assert video.frames.shape == (12, 96, 128, 3) and video.frames.dtype == np.uint8
        assert 2 <= len(video.objects) <= 4
        assert list(video.masks) == [thing.id for thing in video.objects]
        assert all(mask.shape == (12, 96, 128) and mask.dtype == np.bool_ for mask in video.masks.values())


def test_masks_hold_what_is_seen_and_every_object_is_seen_in_half_of_the_frames(videos: list[DemoVideo]) -> None:
    for video in videos:
        stack = np.stack(list(video.masks.values()))
        assert stack.sum(axis=0).max() == 1
        assert ((stack.sum(axis=(2, 3)) >= 40).sum(axis=1) >= 6).all()


def test_the_world_has_gaps_in_ids_and_occlusion_and_objects_that_enter_or_leave(videos: list[DemoVideo]) -> None:
    gaps = [video for video in videos if list(video.masks) != list(range(1, len(video.masks) + 1))]
    absent = [video for video in videos for mask in video.masks.values() if not mask.any(axis=(1, 2)).all()]
    hidden = [
        (video, thing)
        for video in videos
        for thing in video.objects
        for frame, mask in enumerate(video.masks[thing.id])
        if _inside(thing, frame) and mask.sum() < 0.8 * thing.area
    ]
    assert 5 < len(gaps) < 40
    assert len(absent) > 5
    assert len(hidden) > 20


def test_objects_of_a_video_differ_in_colour_and_mostly_in_shape_and_motion(videos: list[DemoVideo]) -> None:
    alike = {"shape": 0, "motion": 0}
    for video in videos:
        assert len({thing.colour for thing in video.objects}) == len(video.objects)
        for name in alike:
            alike[name] += len({getattr(thing, name) for thing in video.objects}) < len(video.objects)
    assert all(10 < count < len(videos) / 2 for count in alike.values())


def test_more_objects_than_colours_still_differ_in_one_of_their_looks() -> None:
    video = demo_video(0, "crowd", DemoWorldConfig(width=512, height=512, min_objects=12, max_objects=12))
    assert len({(thing.shape, thing.colour, thing.size) for thing in video.objects}) == 12


def test_pixels_have_the_colour_that_is_said(videos: list[DemoVideo]) -> None:
    for video in videos:
        for thing in video.objects:
            seen = np.median(video.frames[video.masks[thing.id]].astype(float), axis=0)
            distances = {name: float(np.linalg.norm(seen - rgb)) for name, rgb in PURE_COLOURS.items()}
            assert min(distances, key=lambda name: distances[name]) == thing.colour


def test_masks_have_the_shape_and_the_size_that_is_said(videos: list[DemoVideo]) -> None:
    checked = 0
    for video in videos:
        for thing in video.objects:
            areas = video.masks[thing.id].sum(axis=(1, 2))
            frame = int(areas.argmax())
            if not _inside(thing, frame) or areas[frame] < 0.97 * thing.area:
                continue
            checked += 1
            assert (areas[frame] > 650) == (thing.size == "large")
            outlines, holes = cv2.findContours(
                video.masks[thing.id][frame].astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
            )
            (outline,) = (each for each, (_, _, _, outer) in zip(outlines, holes[0], strict=True) if outer < 0)
            solidity = cv2.contourArea(outline) / cv2.contourArea(cv2.convexHull(outline))
            _, _, width, height = cv2.boundingRect(outline)
            assert (len(outlines) == 2) == (thing.shape == "ring")
            assert (solidity < 0.8) == (thing.shape == "cross")
            assert (width > 1.6 * height) == (thing.shape == "bar")
            assert (height > 1.6 * width) == (thing.shape == "pillar")
    assert checked > 60


def test_masks_move_as_is_said(videos: list[DemoVideo]) -> None:
    ways = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    for video in videos:
        for thing in video.objects:
            whole = [
                frame
                for frame, mask in enumerate(video.masks[thing.id])
                if _inside(thing, frame) and mask.sum() > 0.97 * thing.area
            ]
            if len(whole) < 2:
                continue
            shift = _centroids(video)[thing.id][whole[-1]] - _centroids(video)[thing.id][whole[0]]
            if thing.motion == "still":
                assert np.abs(shift).max() < 1
            else:
                along = float(shift @ np.array(ways[thing.motion]))
                steps = whole[-1] - whole[0]
                assert 4.5 * steps - 3 < along < 8.5 * steps + 3
                assert np.abs(shift).min() < 4


def test_every_object_has_two_expressions_of_its_own_and_no_text_comes_twice(videos: list[DemoVideo]) -> None:
    for video in videos:
        texts = [expression.text for expression in video.expressions]
        assert len(set(texts)) == len(texts)
        for thing in video.objects:
            assert sum(expression.object_ids == (thing.id,) for expression in video.expressions) >= 2


def test_looks_and_motions_hold_for_exactly_their_targets(videos: list[DemoVideo]) -> None:
    for video, expression in _all_of(videos, "look", "motion"):
        assert _named(video, expression.text) == list(expression.object_ids), expression.text
        assert bool(MOTION.search(expression.text)) == (expression.kind == "motion")


def test_in_half_of_the_motion_expressions_motion_decides(videos: list[DemoVideo]) -> None:
    told = [(video, MOTION.sub("", expression.text)) for video, expression in _all_of(videos, "motion")]
    assert sum(len(_named(video, without)) > 1 for video, without in told) > len(told) / 2


def test_expressions_for_several_objects_name_all_of_them(videos: list[DemoVideo]) -> None:
    for video, expression in _all_of(videos, "several"):
        parts = re.split(r" together with | and ", expression.text)
        if len(parts) == 2:
            targets = [_named(video, part) for part in parts]
            assert all(len(target) == 1 for target in targets)
            named = sorted(targets[0] + targets[1])
        else:
            named = _named(video, expression.text)
        assert named == list(expression.object_ids) and len(named) > 1, expression.text


def test_reasoning_maps_to_one_attribute_of_one_object(videos: list[DemoVideo]) -> None:
    for video, expression in _all_of(videos, "reasoning"):
        assert expression.reasoning
        text = expression.text.lower()
        fact = max((key for key in FACTS if key in text), key=len)
        holders = [t.id for t in video.objects if FACTS[fact] in (t.shape, t.colour, t.motion)]
        assert holders == list(expression.object_ids), expression.text


def test_expressions_without_target_name_what_is_not_there(videos: list[DemoVideo]) -> None:
    found = 0
    for video in videos:
        for expression in video.expressions:
            if not expression.object_ids:
                assert expression.kind == "" and COLOUR.search(expression.text) and SHAPE.search(expression.text)
                assert _named(video, expression.text) == []
                found += 1
    assert found > len(videos)


def test_the_largest_and_the_smallest_are_so_by_their_masks(videos: list[DemoVideo]) -> None:
    found = 0
    for video, expression in _all_of(videos, "relation"):
        match = re.search(r"largest|biggest|larger|smallest|smaller", expression.text)
        if not match:
            continue
        areas = {key: float(mask.sum(axis=(1, 2)).max()) for key, mask in video.masks.items()}
        (target,) = expression.object_ids
        own = areas.pop(target)
        if match[0] in ("largest", "biggest", "larger"):
            assert own >= 1.4 * max(areas.values())
        else:
            assert 1.4 * own <= min(areas.values())
        found += 1
    assert found > 10


def test_places_hold_by_eight_pixels_in_every_frame_by_the_masks(videos: list[DemoVideo]) -> None:
    found = 0
    for video, expression in _all_of(videos, "relation"):
        place = _place(expression.text)
        if place is None:
            continue
        axis, sign = place
        shape = SHAPE.search(expression.text)
        scope = [thing.id for thing in video.objects if shape is None or thing.shape == shape[1]]
        centroids = _centroids(video)
        (target,) = expression.object_ids
        for other in scope:
            if other != target:
                gap = sign * (centroids[other] - centroids[target])[:, axis]
                assert (gap[~np.isnan(gap)] >= 8).all() and (~np.isnan(gap)).any(), expression.text
        found += 1
    assert found > 50


def test_a_dataset_takes_its_own_mix(videos: list[DemoVideo]) -> None:
    for video in videos:
        mix = expressions_for(video, 1, ("motion", "look"), per_object=3, several=1, absent=2)
        assert mix == expressions_for(video, 1, ("motion", "look"), per_object=3, several=1, absent=2)
        assert len(set(mix)) == len(mix)
        for thing in video.objects:
            own = [expression for expression in mix if expression.object_ids == (thing.id,)]
            assert len(own) >= 2 and {expression.kind for expression in own} <= {"motion", "look"}
        assert sum(len(expression.object_ids) > 1 for expression in mix) <= 1
        assert sum(not expression.object_ids for expression in mix) == 2
    mixes = [expressions_for(video, 1, ("motion", "relation")) for video in videos]
    assert all(len(mix) == 2 * len(video.objects) for mix, video in zip(mixes, videos, strict=True))


def test_a_smaller_picture_shows_a_smaller_world() -> None:
    video = demo_video(0, "small", DemoWorldConfig(frames=6, width=64, height=48))
    assert video.frames.shape == (6, 48, 64, 3)
    assert all(thing.radius <= 10 for thing in video.objects)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DemoWorldConfig(frames=2), "frames is 2, must be 4 to 40"),
        (lambda: DemoWorldConfig(width=8), "the picture is 8 x 96"),
        (lambda: DemoWorldConfig(min_objects=3, max_objects=2), "3 to 2 objects asked for"),
        (
            lambda: demo_video(0, "v", DemoWorldConfig(frames=4, min_objects=20, max_objects=20)),
            "no room for 20 .*video 'v'",
        ),
        (lambda: expressions_for(demo_video(0, "v", CONFIG), 0, ("looks",)), r"unknown kinds .*\['looks'\]"),
    ],
)
def test_a_world_that_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()


def _all_of(videos: list[DemoVideo], *kinds: str) -> list[tuple[DemoVideo, DemoExpression]]:
    chosen = [(video, e) for video in videos for e in video.expressions if e.kind in kinds]
    assert len(chosen) > len(videos)
    return chosen


def _named(video: DemoVideo, text: str) -> list[int]:
    """Ids of the objects that a text's words fit, by colour, shape, size and motion."""
    colour, shape, size, motion = (pattern.search(text) for pattern in (COLOUR, SHAPE, SIZE, MOTION))
    return sorted(
        thing.id
        for thing in video.objects
        if (colour is None or thing.colour == colour[1])
        and (shape is None or thing.shape == shape[1])
        and (size is None or thing.size == {"little": "small", "big": "large"}.get(size[1], size[1]))
        and (motion is None or thing.motion == (motion["way"] or "still"))
    )


def _place(text: str) -> tuple[int, int] | None:
    """Axis, and the sign by which the named object has the smallest coordinate."""
    for words, place in (
        ("furthest to the left|leftmost|far left", (0, 1)),
        ("furthest to the right|rightmost|far right", (0, -1)),
        ("highest|topmost|uppermost", (1, 1)),
        ("lowest|bottommost|lowermost", (1, -1)),
    ):
        if re.search(words, text):
            return place
    return None


def _centroids(video: DemoVideo) -> dict[int, NDArray[np.float64]]:
    """Centroids of the masks, [T, 2] as (x, y), NaN where unseen."""
    centroids = {}
    for key, mask in video.masks.items():
        centroids[key] = np.full((len(mask), 2), np.nan)
        for frame, plane in enumerate(mask):
            rows, columns = np.nonzero(plane)
            if rows.size:
                centroids[key][frame] = columns.mean(), rows.mean()
    return centroids


def _inside(thing: DemoObject, frame: int) -> bool:
    """The whole object is inside the picture."""
    reach = 1.7 * thing.radius
    return bool((thing.centres[frame] > reach).all() and (thing.centres[frame] < np.array([127, 95]) - reach).all())
