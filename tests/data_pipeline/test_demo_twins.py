"""Twins of the demo world: alike in every frame, told apart by what they do, checked from their masks."""

import hashlib
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from glus.common.errors import DataError
from glus.data_pipeline.datasets.table import read_dataset
from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.objects import DemoObject
from glus.demo.synthetic.twins import parts_of
from glus.demo.synthetic.world import DemoVideo, DemoWorldConfig, demo_video

CONFIG = DemoWorldConfig(frames=16, width=96, height=96, speed=(4.7, 5.7), twins=1.0)
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
SAID = re.compile(r"\b(left|right|up|down|still|waits|stops|stopped|not)")


@pytest.fixture(scope="module")
def videos() -> list[DemoVideo]:
    return [demo_video(11, f"twins {number}", CONFIG) for number in range(60)]


def twins_of(video: DemoVideo) -> list[DemoObject]:
    looks = [(thing.shape, thing.colour, thing.size) for thing in video.objects]
    return [thing for thing, look in zip(video.objects, looks, strict=True) if looks.count(look) > 1]


def test_every_video_has_two_or_three_twins_of_one_size_and_different_motions(videos: list[DemoVideo]) -> None:
    numbers = []
    for video in videos:
        twins = twins_of(video)
        numbers.append(len(twins))
        assert len({(twin.radius, twin.rgb, twin.angle) for twin in twins}) == 1
        for one, other in combinations(twins, 2):
            assert one.motion not in parts_of(other.motion) and other.motion not in parts_of(one.motion)
    assert set(numbers) == {2, 3}


def test_what_is_said_of_a_motion_is_what_the_centres_do(videos: list[DemoVideo]) -> None:
    changing = 0
    for video in videos:
        for thing in video.objects:
            steps = np.diff(thing.centres, axis=0)
            parts = parts_of(thing.motion)
            ends = steps[:5] if len(parts) == 2 else steps
            assert (np.sign(np.rint(ends)) == WAYS[parts[0]]).all(), thing.motion
            assert (np.sign(np.rint(steps[-5:])) == WAYS[parts[-1]]).all(), thing.motion
            changing += len(parts) == 2
    assert changing > 5


def test_every_twin_is_named_by_its_motion_alone_and_has_two_expressions_of_its_own(videos: list[DemoVideo]) -> None:
    for video in videos:
        for twin in twins_of(video):
            own = [each for each in video.expressions if each.object_ids == (twin.id,)]
            assert len(own) >= 2 and "motion" in {each.kind for each in own}
            assert "look" not in {each.kind for each in own}
            for expression in own:
                if expression.kind == "motion" and "last" not in expression.text:
                    words = {"waits": "still", "stops": "still", "stopped": "still", "not": "still"}
                    said = [words.get(word, word) for word in SAID.findall(expression.text)]
                    assert tuple(said) == parts_of(twin.motion), expression.text


def test_the_last_to_come_in_is_so_by_the_masks(videos: list[DemoVideo]) -> None:
    found = 0
    for video in [*videos, *(demo_video(12, f"more {number}", CONFIG) for number in range(60))]:
        first = {key: int(mask.any(axis=(1, 2)).argmax()) for key, mask in video.masks.items()}
        for expression in video.expressions:
            if "last" in expression.text and expression.kind == "motion":
                (target,) = expression.object_ids
                assert all(first[other] < first[target] for other in first if other != target)
                found += 1
    assert found > 3


def test_objects_pass_behind_others(videos: list[DemoVideo]) -> None:
    hidden = [
        (video.name, twin.id)
        for video in videos
        for twin in twins_of(video)
        for frame, mask in enumerate(video.masks[twin.id])
        if (twin.centres[frame] > twin.radius * 1.6).all()
        and (twin.centres[frame] < 96 - twin.radius * 1.6).all()
        and mask.sum() < 0.8 * twin.area
    ]
    assert len(hidden) > 10


def test_a_world_without_twins_is_as_it_was() -> None:
    plain, asked = demo_video(0, "v", DemoWorldConfig()), demo_video(0, "v", DemoWorldConfig(twins=0.0))
    assert plain.frames.tobytes() == asked.frames.tobytes() and not twins_of(plain)
    # What was said of these videos before there were twins.
    said = [each.text for number in range(20) for each in demo_video(3, f"v{number}", DemoWorldConfig()).expressions]
    assert hashlib.sha256("\n".join(said).encode()).hexdigest()[:16] == "94435fbbdde21ced"


def test_the_twins_are_a_dataset_of_their_own(tmp_path: Path) -> None:
    world = DemoWorldConfig(frames=8, width=64, height=64)
    summary = write_demo_data(
        DemoDataConfig(tmp_path / "raw", train_videos=1, valid_videos=1, world=world, twin_videos=3)
    )
    assert summary.videos["demo_twins/valid"] == 3
    split = read_dataset("demo_twins", tmp_path / "raw", "valid")
    records = [split.record(video) for video in split.videos()]
    written = json.loads((tmp_path / "raw/demo_twins/valid/meta_expressions.json").read_text())["videos"]
    assert {record.video for record in records} == set(written)
    for record in records:
        assert {each.kind for each in record.expressions} <= {"motion", "relation", "look"}
        assert all(each.object_ids for each in record.expressions)
        assert len(record.objects) >= 2


def test_impossible_twins_are_refused() -> None:
    with pytest.raises(DataError, match="twins is 2, must be 0 to 1"):
        DemoWorldConfig(twins=2)
    with pytest.raises(DataError, match="max_objects is 1"):
        DemoWorldConfig(twins=0.5, min_objects=1, max_objects=1)
    with pytest.raises(DataError, match=r"speed is \[6, 2\]"):
        DemoWorldConfig(speed=(6, 2))
    with pytest.raises(DataError, match="twin_videos is -1"):
        DemoDataConfig(Path("raw"), twin_videos=-1)
