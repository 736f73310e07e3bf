"""`glus prepare` on image datasets: through Ray into few tars, resumed, and read back by name."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from glus.common.errors import DataError
from glus.data_pipeline.shards.prepare import OBJECT_STORE_BYTES, PrepareConfig, prepare
from glus.data_pipeline.shards.reader import open_splits
from tests.data_pipeline.image_layouts import write_all


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_STORE_BYTES)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_images_go_many_a_tar_and_videos_few(tmp_path: Path) -> None:
    root = write_all(tmp_path / "raw")
    names = ["refcoco:train", "reason_seg", "ade20k", "youtube_vos"]
    settings = {"workers": 1, "videos_per_shard": 1, "images_per_shard": 2}
    manifests = prepare(PrepareConfig(names, root, str(tmp_path / "out"), **settings))
    shown = {f"{each.dataset}/{each.split}": (each.counts.videos, len(each.shards)) for each in manifests}
    assert shown == {
        **{"refcoco/train": (1, 1), "reason_seg/train": (2, 1), "reason_seg/val": (2, 1)},
        **{"ade20k/train": (2, 1), "youtube_vos/train": (1, 1)},
    }
    assert manifests[1].source.keys() == {f"reason_seg/ReasonSeg/train/{n}_o.json" for n in range(2)}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")}
    # A split without its file of test images is left out of "every split that is there".
    assert prepare(PrepareConfig(names, root, str(tmp_path / "out"), **settings)) == manifests
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")} == before
    for split in open_splits(tmp_path / "out"):
        split.verify()
        assert all(split.index.size(number) == (40, 56) for number in range(len(split.videos)))
        assert split.read_frames(0, [0]).shape == (1, 40, 56, 3)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_bad_image_is_counted_and_a_split_of_bad_ones_refused(tmp_path: Path) -> None:
    root = write_all(tmp_path / "raw")
    path = root / "reason_seg/ReasonSeg/train/0_o.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text": [" "]}))
    config = PrepareConfig(["reason_seg:train"], root, str(tmp_path / "out"), workers=1, max_bad_share=0.5)
    [manifest] = prepare(config)
    assert [item.video for item in manifest.quarantine] == ["0_o"] and "has no text" in manifest.quarantine[0].reason
    with pytest.raises(DataError, match="1 of 2 videos are bad"):
        prepare(PrepareConfig(["reason_seg:train"], root, str(tmp_path / "out"), workers=1))


def test_images_per_shard_is_one_at_least(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images_per_shard must be at least 1"):
        prepare(PrepareConfig(["ade20k"], tmp_path, str(tmp_path / "out"), images_per_shard=0))
