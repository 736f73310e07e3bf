"""Pictures: what is tinted, what is outlined, what is written above."""

import numpy as np
import pytest
from PIL import Image

from glus.common.errors import EvaluationError
from glus.evaluation.pages.overlays import PREDICTION, TRUTH, contact_strip, draw_overlay, spread_frames, write_png


def test_the_prediction_is_tinted_and_the_ground_truth_outlined():
    frame = np.full((80, 100, 3), 100, np.uint8)
    pred, target = np.zeros((80, 100), bool), np.zeros((80, 100), bool)
    pred[10:40, 10:40] = True
    target[50:70, 50:90] = True
    picture = draw_overlay(frame, pred, target)
    np.testing.assert_array_equal(picture[20, 20], np.rint((100 + np.array(PREDICTION)) / 2))
    np.testing.assert_array_equal(picture[50, 70], TRUTH)
    np.testing.assert_array_equal(picture[60, 70], [100, 100, 100])
    np.testing.assert_array_equal(picture[5, 95], [100, 100, 100])
    assert (frame == 100).all()


def test_without_masks_the_frame_stays_as_it_is():
    frame = np.random.Generator(np.random.Philox(1)).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(draw_overlay(frame, None, None), frame)


def test_frames_are_spread_over_the_video():
    assert spread_frames(80, 4) == [10, 30, 50, 70]
    assert spread_frames(3, 4) == [0, 1, 2]
    assert spread_frames(1, 1) == [0]


def test_a_strip_has_a_panel_a_frame_and_grows_with_the_text():
    frames = np.zeros((3, 48, 64, 3), np.uint8)
    masks = np.zeros((3, 48, 64), bool)
    short = contact_strip(frames, masks, masks, "a dog", ["1", "2", "3"], panel_width=200)
    long = contact_strip(frames, masks, None, "日本 é " + "the dog that runs " * 20, ["1", "2", "3"], panel_width=200)
    assert short.shape[1] == long.shape[1] == 3 * 200 + 2 * 8 + 2 * 14
    assert long.shape[0] > short.shape[0] > 150
    assert (contact_strip(frames, None, None, "", ["1", "2", "3"]) < 100).any()


def test_unequal_counts_are_refused():
    frames = np.zeros((3, 48, 64, 3), np.uint8)
    with pytest.raises(EvaluationError, match="as many masks and lines as frames"):
        contact_strip(frames, None, np.zeros((2, 48, 64), bool), "a dog", ["1", "2", "3"])
    with pytest.raises(EvaluationError, match="as many"):
        contact_strip(frames[:0], None, None, "a dog", [])


def test_a_png_comes_back_as_it_was(tmp_path):
    picture = np.random.Generator(np.random.Philox(2)).integers(0, 256, (9, 7, 3), np.uint8)
    place = write_png(tmp_path / "new" / "a.png", picture)
    with Image.open(place) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert [found.name for found in place.parent.iterdir()] == ["a.png"]
