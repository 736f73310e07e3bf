"""`glus data stats` and `glus data show`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glus.common.errors import DataError
from glus.data_pipeline.inspect.contact_sheet import COLOURS, draw_slot
from glus.data_pipeline.inspect.inspect_data import DataConfig, data, stats
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig
from glus.launch.cli import main

from .tiny_splits import drawn_splits, write_splits


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shards"
    write_splits(root)
    frames = root / "frames"
    frames.rename(root.parent / "frames")
    return root


def test_figures_of_a_split_are_those_counted_by_hand(shards, capsys):
    (found,) = stats(DataConfig(["stats"], str(shards), ["mevis/train"]))
    assert (found.name, found.counts.videos, found.counts.expressions) == ("mevis/train", 5, 14)
    # "groups" has sets 1, 1, 4, 4, 14, 7 and none; "one_object" 1, 1, 1; "no_pair" 1, 4; "short" 1; "hidden" none.
    assert found.without_target == 2 and found.with_partner == 7 / 12
    assert (found.videos_with_partners, found.videos_with_partners_and_rival) == (2 / 4, 1 / 4)
    assert (found.frames_a_video.min, found.frames_a_video.median, found.frames_a_video.max) == (3, 6, 9)
    assert found.expressions_an_object_set.max == 3 and found.objects_an_expression.max == 2
    drawn = drawn_splits()["mevis/train"]
    planes = [mask for video in drawn for masks in video.masks.values() for mask in masks]
    seen = [mask.mean() for mask in planes if mask.any()]
    assert found.mask_area is not None
    assert found.mask_area.median == pytest.approx(np.median(seen)) and found.mask_area.max == pytest.approx(max(seen))
    assert found.frames_unseen == pytest.approx(1 - len(seen) / len(planes))
    told = capsys.readouterr().out
    assert "expressions with a partner (same objects)" in told and "58.33 %" in told


def test_stats_without_masks_read_the_index_alone_and_are_written_as_json(shards, tmp_path):
    for tar in sorted(shards.rglob("*.tar")):
        assert tar.is_file()
    stats(DataConfig(["stats"], str(shards), masks=False, out=tmp_path / "stats.json"))
    found = json.loads((tmp_path / "stats.json").read_text())
    assert [each["name"] for each in found] == ["mevis/train", "refer_youtube_vos/train"]
    assert found[0]["mask_area"] is None and found[1]["counts"]["videos"] == 2


def test_a_contact_sheet_shows_frames_masks_and_texts_of_a_slot(shards):
    from glus.data_pipeline.shards.reader import open_splits

    config = SamplingConfig(mixture={"refer_youtube_vos/train": 1.0})
    plan = SamplePlan(open_splits(shards, ["refer_youtube_vos/train"]), config, 0, 6)
    slot = next(slot for slot in plan.global_batch(0) if slot.grouped)
    picture = draw_slot(plan, slot, "a slot", panel_width=72)
    height, rows = 56, 1 + len(slot.expressions)
    assert picture.shape == (24 + 44 + rows * (height + 28), 24 + 8 * 78, 3)
    # The first context frame, twice as large as stored.
    entry = plan.splits[0].videos[slot.video]
    frame = plan.splits[0].read_frames(slot.video, [slot.context[0]])[0]
    shown = picture[56 : 56 + height, 12 : 12 + 72].reshape(28, 2, 36, 2, 3).mean((1, 3))
    assert np.abs(shown - frame).mean() < 4
    # Each row's mask outline has the row's colour, on a query frame where the object is seen.
    targets = plan.splits[0].read_targets(slot.video, [entry.expressions[n] for n in slot.expressions], slot.query)
    for row, masks in enumerate(targets):
        for column, mask in enumerate(masks):
            top = 56 + (row + 1) * (height + 28) + 22
            left = 12 + (4 + column) * 78
            panel = picture[top : top + height, left : left + 72]
            assert (panel == COLOURS[row]).all(-1).any() == mask.any()
    assert (picture[56 + height + 28 :, : 12 + 4 * 78] == COLOURS[0]).all(-1).any()  # the text


def test_the_commands_work_as_a_person_types_them(shards, tmp_path, capsys):
    assert (
        main(["data", "show", f"shards={shards}", f"out={tmp_path}/a.png", "slots=2", "sampling.query_frames=3"]) == 0
    )
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] == 24 + 7 * 226
    assert main(["data", "stats", f"shards={shards}", "splits=[mevis/train]", "masks=false"]) == 0
    assert "mevis/train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(["stat"], "x"), "glus data stat: say one of stats, show"),
        (DataConfig([], "x"), "say one of stats, show"),
        (DataConfig(["stats"], "/nowhere/at/all"), "this folder of shards does not exist"),
    ],
)
def test_what_cannot_be_done_is_told(config, message):
    with pytest.raises(DataError, match=message):
        data(config)


def test_numbers_below_their_least_are_refused(shards):
    with pytest.raises(DataError, match="slots must be 1 or more"):
        data(DataConfig(["show"], str(shards), slots=0))
