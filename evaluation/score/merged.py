"""Ref-DAVIS17 as ReferFormer scores it: one label map a frame for each annotator, labels assigned to objects.

Sources: wjn922/ReferFormer, inference_davis.py (the a-th expression of each object is annotator a's; where several
objects claim a pixel, argmax over equal scores gives it to the first) and eval_davis.py (task "unsupervised", so all
frames count); davis2017-evaluation, davis2017/evaluation.py (`_evaluate_unsupervised`: labels go to objects by the
assignment with the highest mean of J and F).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.predict.predictions import read_masks
from glus.evaluation.score.bitplanes import BitPlanes, pack
from glus.evaluation.score.expression_score import ExpressionScore, unscored
from glus.evaluation.score.jf import jf, without
from glus.evaluation.score.video_scoring import read_target

ANNOTATORS = 4
DATASET = "ref_davis17"


def why_not_merged(split: ShardedSplit) -> str:
    """Why a split cannot be scored this way; empty where it can."""
    if split.dataset != DATASET:
        return f"{split.dataset}/{split.split} is not Ref-DAVIS17"
    for entry in split.videos:
        for objects, found in _by_object(entry).items():
            if len(objects) != 1 or len(found) != ANNOTATORS:
                what = f"object {', '.join(objects) or 'none'} of video {entry.video}"
                return f"{what} has {len(found)} expressions, {ANNOTATORS} annotators are due"
    return ""


def score_merged(split: ShardedSplit, predictions: Path) -> list[ExpressionScore]:
    """Scores of every expression after merging, in the split's order; for splits with `why_not_merged` empty.

    A missing prediction scores 0 and is marked; in the label map it is empty. Raises EvaluationError for predictions
    that are incomplete.
    """
    return [score for video in range(len(split.videos)) for score in _score_video(split, video, predictions)]


def label_map(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Masks of one annotator, bool [T, H, W] each in the order of objects -> labels 1, 2, ..., uint8 [T, H, W]."""
    labels = np.zeros(masks[0].shape, np.uint8)
    for number in range(len(masks), 0, -1):  # backwards, so that the first object keeps what others claim too
        labels[masks[number - 1]] = number
    return labels


def _score_video(split: ShardedSplit, video: int, predictions: Path) -> list[ExpressionScore]:
    entry = split.videos[video]
    objects = list(_by_object(entry).values())
    void = split.read_void(video, range(len(entry.frame_names)))
    targets = [read_target(split, video, found[0], void) for found in objects]
    scores: dict[str, ExpressionScore] = {}
    for annotator in range(ANNOTATORS):
        asked = [found[annotator] for found in objects]
        read = [read_masks(predictions, entry, expression) for expression in asked]
        empty = np.zeros((len(entry.frame_names), entry.height, entry.width), np.bool_)
        labels = label_map([empty if masks is None else without(masks, void) for masks in read])
        metrics = assigned([pack(labels == number) for number in range(1, len(asked) + 1)], targets)
        for expression, masks, (j, f) in zip(asked, read, metrics, strict=True):
            j, f = (0.0, 0.0) if masks is None else (j, f)
            scores[expression.id] = replace(
                unscored(entry, expression), missing=masks is None, J=j, F=f, JF=(j + f) / 2
            )
    return [scores[expression.id] for expression in entry.expressions]


def assigned(proposals: Sequence[BitPlanes], targets: Sequence[BitPlanes]) -> list[tuple[float, float]]:
    """(J, F) of each target, 0 to 100, with the proposal that the best assignment gives it."""
    means = np.zeros((2, len(proposals), len(targets)))
    for row, proposal in enumerate(proposals):
        for column, target in enumerate(targets):
            means[:, row, column] = [values.mean() for values in jf(proposal, target)]
    rows, columns = linear_sum_assignment(-means.mean(axis=0))
    found = {
        int(column): (100 * float(means[0, row, column]), 100 * float(means[1, row, column]))
        for row, column in zip(rows, columns, strict=True)
    }
    return [found[column] for column in range(len(targets))]


def _by_object(entry: VideoEntry) -> dict[tuple[str, ...], list[Expression]]:
    """Expressions by their object, both in the order of the annotation."""
    found: dict[tuple[str, ...], list[Expression]] = {}
    for expression in entry.expressions:
        found.setdefault(tuple(sorted(expression.object_ids)), []).append(expression)
    return found
