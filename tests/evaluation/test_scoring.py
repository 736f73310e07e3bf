"""Scores of whole splits: right answers, wrong answers, missing answers, and the text control."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from glus.common.errors import EvaluationError
from glus.evaluation.predict.predictions import expression_folder, read_masks, write_masks
from glus.evaluation.score.jf import jf_per_frame
from glus.evaluation.score.scoring import score_split
from glus.evaluation.score.video_scoring import control_partner


def test_the_ground_truth_scores_100_and_far_less_in_the_text_control(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path)
    scores = score_split(mevis, tmp_path, progress=False)
    due = [(entry.video, exp.id) for entry in mevis.videos for exp in entry.expressions]
    assert [(score.video, score.expression) for score in scores] == due
    assert all((score.J, score.F, score.JF, score.missing) == (100.0, 100.0, 100.0, False) for score in scores)
    controlled = [score for score in scores if score.control_JF is not None]
    assert len(controlled) > len(scores) / 2
    # Objects hide each other but never share a pixel. J counts frames where both are hidden or outside as 1.
    assert max(score.control_J for score in controlled) < 60
    assert np.mean([score.control_JF for score in controlled]) < 25


def test_a_model_that_does_not_read_the_text_loses_nothing_in_the_control(mevis, tmp_path, write_everything):
    write_everything(mevis, tmp_path)
    controlled = [score for score in score_split(mevis, tmp_path, progress=False) if score.control_JF is not None]
    assert controlled
    for score in controlled:
        assert score.control_JF == pytest.approx(score.JF, abs=1e-12)


def test_control_figures_are_those_of_the_partners_prediction_against_the_own_target(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path)
    scores = {(score.video, score.expression): score for score in score_split(mevis, tmp_path, progress=False)}
    entry = mevis.videos[1]
    by_id = {exp.id: exp for exp in entry.expressions}
    compared = 0
    for exp in entry.expressions:
        score = scores[entry.video, exp.id]
        if score.control_expression is None:
            continue
        partner = by_id[score.control_expression]
        assert not set(partner.object_ids) & set(exp.object_ids)
        target = mevis.read_target(1, exp, range(len(entry.frame_names)))
        j, f = jf_per_frame(read_masks(tmp_path, entry, partner), target)
        assert (score.control_J, score.control_F) == (100 * j.mean(), 100 * f.mean())
        compared += 1
    assert compared > 2


@pytest.mark.slow
def test_two_processes_give_the_same_scores_in_the_same_order(mevis, tmp_path, write_everything):
    write_everything(mevis, tmp_path)
    assert score_split(mevis, tmp_path, False, workers=2) == score_split(mevis, tmp_path, False, workers=1)


def test_a_missing_prediction_scores_0_and_is_marked_and_is_nobodys_control(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path)
    entry = mevis.videos[0]
    partner = next(p for exp in entry.expressions if (p := control_partner(entry, exp)) is not None)
    shutil.rmtree(expression_folder(tmp_path, entry, partner))
    scores = {score.expression: score for score in score_split(mevis, tmp_path, False) if score.video == entry.video}
    assert (scores[partner.id].missing, scores[partner.id].J, scores[partner.id].JF) == (True, 0.0, 0.0)
    for exp in entry.expressions:
        if exp.id != partner.id:
            assert scores[exp.id].JF == 100.0
            assert scores[exp.id].control_expression != partner.id
            if control_partner(entry, exp) == partner:
                assert scores[exp.id].control_JF is None


def test_an_empty_prediction_is_a_prediction(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path)
    entry = mevis.videos[0]
    write_masks(tmp_path, entry, entry.expressions[0], np.zeros((6, 64, 96), bool))
    first = score_split(mevis, tmp_path, progress=False)[0]
    assert not first.missing
    assert first.J < 100.0


def test_hidden_targets_are_listed_without_figures(new_split, make_record, tmp_path, write_perfect):
    record = make_record("mevis", "valid", "demo-0")
    hidden = tuple(replace(exp, object_ids=(), kind="", type_id=None) for exp in record.expressions)
    split = new_split([replace(record, objects={}, expressions=hidden)])
    write_perfect(split, tmp_path)
    scores = score_split(split, tmp_path, progress=False)
    assert len(scores) == len(hidden)
    assert all(score.hidden and score.J is None and score.control_JF is None for score in scores)


def test_without_a_target_only_an_empty_mask_is_right(revos, tmp_path, write_perfect):
    write_perfect(revos, tmp_path)
    none = [score for score in score_split(revos, tmp_path, progress=False) if score.type_id == 2]
    assert len(none) == 2
    assert all(score.JF == 100.0 and score.control_JF is None for score in none)
    entry = revos.videos[0]
    expression = next(exp for exp in entry.expressions if exp.type_id == 2)
    write_masks(tmp_path, entry, expression, np.ones((6, 64, 96), bool))
    again = [score for score in score_split(revos, tmp_path, progress=False) if score.type_id == 2]
    assert again[0].J == 0.0


def test_an_expression_with_the_same_text_is_no_control(new_split, make_record):
    record = make_record("mevis", "valid_u", "demo-0", several=0)
    same = tuple(replace(exp, text=f" The  Thing{' ' * index}") for index, exp in enumerate(record.expressions))
    entry = new_split([replace(record, expressions=same)]).videos[0]
    assert all(control_partner(entry, exp) is None for exp in entry.expressions)


def test_a_video_with_one_object_has_no_control(new_split, make_record, tmp_path, write_perfect):
    record = make_record("mevis", "valid_u", "demo-0", several=0)
    alone = tuple(exp for exp in record.expressions if exp.object_ids == record.expressions[0].object_ids)
    split = new_split([replace(record, expressions=alone)])
    write_perfect(split, tmp_path)
    assert [score.control_JF for score in score_split(split, tmp_path, progress=False)] == [None] * len(alone)


def test_a_split_without_expressions_is_told(new_split, make_record, tmp_path):
    split = new_split([replace(make_record("mevis", "valid_u", "demo-0"), expressions=())])
    with pytest.raises(EvaluationError, match="mevis/valid_u holds no expressions"):
        score_split(split, tmp_path, progress=False)


@pytest.mark.slow
def test_a_broken_prediction_stops_the_scoring_by_name_with_processes_too(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path)
    (tmp_path / "mevis/valid_u/demo-2/1/00025.png").unlink()
    for workers in (1, 2):
        with pytest.raises(EvaluationError, match=r"demo-2/1 is missing 1 of 6 frames, the first is 00025\.png"):
            score_split(mevis, tmp_path, progress=False, workers=workers)


def test_no_workers_are_refused(mevis, tmp_path):
    with pytest.raises(EvaluationError, match="workers is 0"):
        score_split(mevis, tmp_path, workers=0)


def test_exchanged_ids_are_named_and_never_score_better(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path)
    before = score_split(mevis, tmp_path, progress=False)
    assert all(score.exchanged_with is None for score in before)
    entry = mevis.videos[0]
    first = entry.expressions[0]
    other = control_partner(entry, first)
    a, b = (expression_folder(tmp_path, entry, exp) for exp in (first, other))
    a.rename(tmp_path / "kept")
    b.rename(a)
    (tmp_path / "kept").rename(b)
    after = {score.name: score for score in score_split(mevis, tmp_path, progress=False)}
    told = {name: score.exchanged_with for name, score in after.items() if score.exchanged_with}
    assert told == {f"mevis/valid_u/demo-0/{first.id}": other.id, f"mevis/valid_u/demo-0/{other.id}": first.id}
    assert all(after[score.name].JF <= score.JF for score in before)


def test_a_score_knows_size_rivals_and_frames_without_its_object(mevis, tmp_path, write_perfect):
    write_perfect(mevis, tmp_path)
    for score in score_split(mevis, tmp_path, progress=False):
        video = [entry.video for entry in mevis.videos].index(score.video)
        entry = mevis.videos[video]
        expression = next(exp for exp in entry.expressions if exp.id == score.expression)
        share = mevis.read_target(video, expression, range(6)).mean(axis=(1, 2))
        assert score.rivals == len(entry.object_ids) - len(score.object_ids)
        assert score.frames_without_object == int((share == 0).sum())
        assert score.size == pytest.approx(share[share > 0].mean())
        assert (score.A, score.R) == (None, None)


def test_revos_has_accuracy_and_robustness(revos, tmp_path, write_perfect, write_everything):
    write_perfect(revos, tmp_path / "right")
    assert all((score.A, score.R) == (100.0, 100.0) for score in score_split(revos, tmp_path / "right", progress=False))
    write_everything(revos, tmp_path / "all")
    scores = score_split(revos, tmp_path / "all", progress=False)
    none = next(score for score in scores if score.type_id == 2)
    assert none.R < 40.0 < none.A < 100.0  # what is predicted is all of the foreground, and none of it was asked for
    shutil.rmtree(expression_folder(tmp_path / "all", revos.videos[0], revos.videos[0].expressions[0]))
    gone = score_split(revos, tmp_path / "all", progress=False)[0]
    assert (gone.missing, gone.A, gone.R) == (True, 0.0, 0.0)
