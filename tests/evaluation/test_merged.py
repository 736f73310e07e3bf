"""Ref-DAVIS17 as ReferFormer scores it, against a direct transcription of the official code."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from glus.data_pipeline.raw.records import Expression
from glus.evaluation.predict.predictions import expression_folder, write_masks
from glus.evaluation.results.summary import named_metrics, summarise
from glus.evaluation.score.jf import jf_per_frame
from glus.evaluation.score.merged import label_map, score_merged, why_not_merged


@pytest.fixture
def davis(new_split, make_record):
    """Two videos with four expressions for each object, one annotator after the other."""
    records = []
    for number in range(2):
        record = make_record("ref_davis17", "valid", f"demo-{number}")
        expressions = [
            Expression(str(4 * place + annotator), f"object {name}, annotator {annotator}", (name,))
            for place, name in enumerate(record.objects)
            for annotator in range(4)
        ]
        records.append(replace(record, expressions=tuple(expressions)))
    return new_split(records)


@pytest.fixture
def noisy(davis, tmp_path):
    """Predictions that overlap, answer for another object now and then, and are off by some pixels."""
    root = tmp_path / "predictions"
    rng = np.random.Generator(np.random.Philox(key=11))
    for video, entry in enumerate(davis.videos):
        every = davis.read_masks(video, entry.object_ids, range(6))
        for expression in entry.expressions:
            own = entry.object_ids.index(expression.object_ids[0])
            chosen = own if rng.random() < 0.6 else int(rng.integers(len(every)))
            masks = np.roll(every[chosen], tuple(rng.integers(-6, 7, 2)), (1, 2))
            if rng.random() < 0.3:
                masks = masks | every[int(rng.integers(len(every)))]
            write_masks(root, entry, expression, np.ascontiguousarray(masks))
    return root


def official(davis, root):
    """Mean over annotators: merged as in inference_davis.py, with scores of 0 and 1, then `_evaluate_unsupervised`."""
    of_annotator = []
    for annotator in range(4):
        per_object = []
        for video, entry in enumerate(davis.videos):
            objects = len(entry.expressions) // 4
            frames = range(len(entry.frame_names))
            planes = [np.full((6, entry.height, entry.width), 0.1)]
            for number in range(objects):
                folder = expression_folder(root, entry, entry.expressions[number * 4 + annotator])
                planes.append(np.stack([np.asarray(Image.open(p)) / 255.0 for p in sorted(folder.iterdir())]))
            merged = np.argmax(np.stack(planes), axis=0)
            found = [merged == label for label in range(1, int(merged.max()) + 1)]
            found += [np.zeros_like(merged, bool)] * (objects - len(found))
            truth = [davis.read_target(video, entry.expressions[4 * number], frames) for number in range(objects)]
            jf = {(a, b): jf_per_frame(found[a], truth[b]) for a in range(objects) for b in range(objects)}
            means = {key: (j.mean(), f.mean()) for key, (j, f) in jf.items()}
            best = max(
                itertools.permutations(range(objects)), key=lambda p: sum(sum(means[p[b], b]) for b in range(objects))
            )
            per_object += [means[best[b], b] for b in range(objects)]
        of_annotator.append(np.mean(per_object, axis=0))
    return 100 * np.mean(of_annotator, axis=0)


def test_figures_are_those_of_the_official_code(davis, noisy):
    assert why_not_merged(davis) == ""
    scores = score_merged(davis, noisy)
    summary = summarise(scores, {"ref_davis17/valid": scores})
    (variant,) = summary.variants
    assert variant.benchmark == "Ref-DAVIS17 valid, four annotators merged"
    j, f = official(davis, noisy)
    assert (variant.metrics.J, variant.metrics.F) == pytest.approx((j, f), abs=1e-9)
    assert 20 < variant.metrics.JF < 95
    assert named_metrics(summary)["eval/ref_davis17/valid/merged/JF"] == variant.metrics.JF


def test_exchanged_labels_of_one_annotator_cost_nothing_since_labels_are_assigned(davis, tmp_path):
    for video, entry in enumerate(davis.videos):
        for expression in entry.expressions:
            number = entry.object_ids.index(expression.object_ids[0])
            other = entry.object_ids[(number + 1) % len(entry.object_ids)]
            target = davis.read_target(video, replace(expression, object_ids=(other,)), range(6))
            write_masks(tmp_path, entry, expression, target)
    assert all(score.JF == 100.0 for score in score_merged(davis, tmp_path))


def test_a_missing_prediction_scores_0_and_makes_the_figures_partial(davis, tmp_path, write_perfect):
    write_perfect(davis, tmp_path)
    gone = davis.videos[0].expressions[1]
    shutil.rmtree(expression_folder(tmp_path, davis.videos[0], gone))
    scores = score_merged(davis, tmp_path)
    assert [(score.expression, score.JF) for score in scores if score.missing] == [(gone.id, 0.0)]
    (variant,) = summarise(scores, {"ref_davis17/valid": scores}).variants
    assert variant.partial and variant.metrics.missing == 1


def test_a_pixel_that_several_objects_claim_goes_to_the_first():
    first, second = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    first[0, 0, 0] = True
    assert label_map([first, second]).tolist() == [[[1, 2], [2, 2]]]


def test_a_split_without_four_annotators_is_told_why(mevis, davis, new_split, make_record):
    assert why_not_merged(mevis) == "mevis/valid_u is not Ref-DAVIS17"
    record = make_record("ref_davis17", "train", "demo-9", several=0)
    assert "expressions, 4 annotators are due" in why_not_merged(new_split([record]))
