"""The demo's images in the layouts of refCOCO and ReasonSeg: read by the readers, and equal to what was drawn."""

from pathlib import Path

import numpy as np
import pytest

from glus.common.errors import DataError
from glus.data_pipeline.datasets.table import read_dataset
from glus.data_pipeline.images.polygons import painted, points_of
from glus.data_pipeline.raw.masks import decode
from glus.demo.synthetic.demo_data import write_demo_data
from glus.demo.synthetic.demo_datasets import DemoDataConfig
from glus.demo.synthetic.image_layouts import demo_image, one_target, polygons
from glus.demo.synthetic.world import DemoWorldConfig

WORLD = DemoWorldConfig(frames=4, width=96, height=64, max_objects=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "raw"
    config = DemoDataConfig(folder, train_videos=1, valid_videos=1, world=WORLD, train_images=6, valid_images=2)
    summary = write_demo_data(config, ["say"])
    assert summary.videos["refcoco/train"] == 6 and summary.videos["reason_seg/val"] == 2
    assert set(summary.expressions["reason_seg/train"]) == {"reasoning"}
    assert not write_demo_data(config, ["say"]).written
    with pytest.raises(DataError, match="holds other demo data"):
        write_demo_data(DemoDataConfig(folder, train_videos=1, valid_videos=1, world=WORLD), ["say"])
    return folder


def test_refcoco_holds_what_was_drawn(root: Path) -> None:
    split = read_dataset("refcoco", root, "train")
    assert len(split.videos()) == 6
    for index, name in enumerate(split.videos()):
        drawn = demo_image(0, f"refcoco/train/{index}", WORLD, ("look", "relation"))
        record = split.record(name)
        named = {each.text: each.object_ids for each in record.expressions}
        single = [each for each in drawn.expressions if len(each.object_ids) == 1]
        assert set(named) == {each.text for each in single}
        for each in single:
            [code] = record.objects[named[each.text][0]]
            assert np.array_equal(decode(code, 64, 96), drawn.masks[each.object_ids[0]])


def test_reason_seg_holds_what_was_drawn(root: Path) -> None:
    split = read_dataset("reason_seg", root, "train")
    for index, name in enumerate(split.videos()):
        drawn = one_target(demo_image(0, f"reason_seg/train/{index}", WORLD, ("reasoning",)))
        record = split.record(name)
        assert [each.text for each in record.expressions] == [each.text for each in drawn.expressions]
        asked = drawn.expressions[0].text.endswith("?")
        assert {each.kind for each in record.expressions} == {"sentence" if asked else "phrase"}
        [code] = record.objects["1"]
        mask = drawn.masks[drawn.expressions[0].object_ids[0]]
        assert (decode(code, 64, 96) != mask).sum() <= 4  # parts of one or two pixels have no polygon


def test_an_outline_is_painted_as_the_mask_with_its_holes() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:30, 5:40], mask[10:20, 12:30], mask[12:16, 15:20] = True, False, True
    mask[32:38, 3:9] = True
    shapes = [("target", points_of(points, 40, 50, "here")) for points in polygons(mask)]
    assert len(shapes) == 3 and np.array_equal(painted(shapes, 40, 50) == 1, mask)


def test_images_need_a_number_for_both_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train_images 3, valid_images 0"):
        DemoDataConfig(tmp_path, train_images=3)
