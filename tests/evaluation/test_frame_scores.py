"""J and F of every frame: what the tables average, on disk for curves over time and for labels of key frames."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from glus.common.errors import EvaluationError
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.predictions import write_masks
from glus.evaluation.results.frame_scores import FRAMES, read_frame_scores, write_frame_scores
from glus.evaluation.score.error_parts import PARTS
from glus.evaluation.score.expression_score import FrameScores
from glus.evaluation.score.jf import jf_per_frame
from glus.evaluation.score.scoring import score_splits


def shifted(split: ShardedSplit, root: Path, leave_out: str = "") -> None:
    """Predictions that drift away from their target, a pixel more in each frame."""
    for video, entry in enumerate(split.videos):
        for expression in entry.expressions:
            if expression.id != leave_out:
                target = split.read_target(video, expression, range(len(entry.frame_names)))
                drifted = np.stack([np.roll(mask, place, axis=1) for place, mask in enumerate(target)])
                write_masks(root, entry, expression, drifted)


def test_every_frame_has_the_metrics_that_the_tables_average(mevis: ShardedSplit, tmp_path: Path) -> None:
    shifted(mevis, tmp_path)
    scored = score_splits([mevis], tmp_path, progress=False)
    assert len(scored.frames) == len(scored.scores) > 1
    place = {entry.video: number for number, entry in enumerate(mevis.videos)}
    for score, frames in zip(scored.scores, scored.frames, strict=True):
        assert (frames.video, frames.expression) == (score.video, score.expression)
        assert frames.J.dtype == frames.F.dtype == np.float32
        assert (frames.J.mean(), frames.F.mean()) == pytest.approx((score.J, score.F), abs=1e-4)
        entry = mevis.videos[place[score.video]]
        expression = next(each for each in entry.expressions if each.id == score.expression)
        target = mevis.read_target(place[score.video], expression, range(len(entry.frame_names)))
        drifted = np.stack([np.roll(mask, shift, axis=1) for shift, mask in enumerate(target)])
        region, boundary = jf_per_frame(drifted, target)
        np.testing.assert_allclose(frames.J, 100 * region, rtol=1e-6)
        np.testing.assert_allclose(frames.F, 100 * boundary, rtol=1e-6)
        assert frames.frame_names == tuple(entry.frame_names)


def test_a_missing_prediction_is_zero_in_every_frame(mevis: ShardedSplit, tmp_path: Path) -> None:
    gone = mevis.videos[0].expressions[0].id
    shifted(mevis, tmp_path, leave_out=gone)
    of_gone = [each for each in score_splits([mevis], tmp_path, progress=False).frames if each.expression == gone]
    assert of_gone and all(not each.J.any() and not each.F.any() for each in of_gone)


def test_they_come_back_as_they_were_and_pandas_reads_them(mevis: ShardedSplit, tmp_path: Path) -> None:
    shifted(mevis, tmp_path)
    frames = score_splits([mevis], tmp_path, progress=False).frames
    place = write_frame_scores(frames, tmp_path)
    again = list(read_frame_scores(tmp_path))
    assert len(again) == len(frames)
    for ours, theirs in zip(frames, again, strict=True):
        for name in ("dataset", "split", "video", "expression", "frame_names"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("J", "F", "lost"))
    table = pandas.read_parquet(place)
    assert list(table) == ["dataset", "split", "video", "expression", "frame", "J", "F", "lost"]
    assert table["lost"].tolist() == [["", *PARTS][part] for each in frames for part in each.lost]
    means = table.groupby(["video", "expression"], observed=True, sort=False)["J"].mean()
    assert means.tolist() == pytest.approx([each.J.mean() for each in frames], abs=1e-4)


def test_a_split_that_hides_its_targets_has_no_rows(tmp_path: Path) -> None:
    write_frame_scores([], tmp_path)
    assert list(read_frame_scores(tmp_path)) == [] and len(pandas.read_parquet(tmp_path / FRAMES)) == 0


def one() -> FrameScores:
    return FrameScores(
        "mevis", "valid_u", "a", "0", ("00000", "00001"), *(np.array([50, 60], np.float32),) * 2, np.ones(2, np.int8)
    )


def test_files_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"frames\.parquet: no such file of frames' scores"):
        next(read_frame_scores(tmp_path))
    content = write_frame_scores([one()], tmp_path).read_bytes()
    for place in range(0, len(content) - 1, 7):
        (tmp_path / FRAMES).write_bytes(content[:place])
        with pytest.raises(EvaluationError, match=r"frames\.parquet.* score these predictions again"):
            next(read_frame_scores(tmp_path))
    pandas.DataFrame({"J": [1.0]}).to_parquet(tmp_path / FRAMES)
    with pytest.raises(EvaluationError, match="no file of frames' scores, this code reads 1"):
        next(read_frame_scores(tmp_path))
