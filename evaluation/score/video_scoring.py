"""One video: each prediction against its own target, against its text control's, and against every other target."""

from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from glus.data_pipeline.raw.records import Expression
from glus.data_pipeline.shards.reader import ShardedSplit, VideoEntry
from glus.evaluation.predict.predictions import read_masks
from glus.evaluation.results.benchmarks import protocol_for
from glus.evaluation.score.bitplanes import BitPlanes, common, minus, pack
from glus.evaluation.score.error_parts import error_parts
from glus.evaluation.score.expression_score import (
    WITHOUT_TARGET,
    ExpressionScore,
    FrameScores,
    VideoScores,
    has_known_target,
    unscored,
)
from glus.evaluation.score.jf import accuracy, iou, jf, robustness, without

WITH_ACCURACY = ("revos",)
"""Datasets whose protocol has accuracy and robustness."""
EXCHANGED = 0.5
"""How much better (J, 0 to 1) two predictions must fit each other's target to be called exchanged."""

ObjectSet = frozenset[str]


@dataclass(frozen=True)
class VideoMasks:
    """All that is compared in one video, packed, without its void pixels (`void`: how many a frame, int64 [T]).

    `targets` has one clip an object set, `rivals` the video's other objects without its pixels; an absent prediction is
    None.
    """

    entry: VideoEntry
    predictions: dict[str, BitPlanes | None]
    targets: dict[ObjectSet, BitPlanes]
    rivals: dict[ObjectSet, list[BitPlanes]]
    foreground: BitPlanes | None
    void: NDArray[np.int64]


def score_video(split: ShardedSplit, video: int, predictions: Path) -> VideoScores:
    """Scores of a video's expressions. Raises EvaluationError for incomplete predictions."""
    masks = _read(split, video, predictions)
    entry = masks.entry
    by_id = {exp.id: exp for exp in entry.expressions}
    exchanged = exchanged_pairs(masks)
    scores, frames = [], []
    for exp in entry.expressions:
        score, of_frames = _own_score(masks, exp)
        frames += of_frames
        partner = control_partner(entry, exp)
        made_for_partner = None if partner is None else masks.predictions[partner.id]
        if partner is not None and made_for_partner is not None and score.JF is not None:
            j, f = _means(made_for_partner, masks.targets[_objects(exp)])
            score = replace(score, control_expression=partner.id, control_J=j, control_F=f, control_JF=(j + f) / 2)
        if exp.id in exchanged:
            score = replace(score, exchanged_with=by_id[exchanged[exp.id]].id)
        scores.append(score)
    return VideoScores(scores, frames)


def control_partner(entry: VideoEntry, expression: Expression) -> Expression | None:
    """The expression of the same video whose prediction is the text control of this one; None where there is none."""
    if not expression.object_ids or expression.type_id == WITHOUT_TARGET:
        return None
    own, text = set(expression.object_ids), _plain(expression.text)
    others = [
        other
        for other in sorted(entry.expressions, key=lambda exp: exp.id)
        if other.object_ids and own.isdisjoint(other.object_ids) and _plain(other.text) != text
    ]
    if not others:
        return None
    name = f"{entry.dataset}/{entry.split}/{entry.video}/{expression.id}"
    return others[crc32(name.encode()) % len(others)]


def exchanged_pairs(masks: VideoMasks) -> dict[str, str]:
    """Expressions whose predictions each fit the other's target, and not their own: id -> the other's id.

    A model that mistakes two objects for each other looks the same, so this is a hint and changes no metric.
    """
    fit: dict[tuple[str, ObjectSet], float] = {}
    shown = [exp for exp in masks.entry.expressions if masks.predictions[exp.id] is not None and exp.object_ids]
    for exp in shown:
        pred = masks.predictions[exp.id]
        assert pred is not None
        for objects, target in masks.targets.items():
            if objects:
                fit[exp.id, objects] = float(iou(pred, target).mean())
    found: dict[str, str] = {}
    for exp in shown:
        for other in shown:
            own, others = _objects(exp), _objects(other)
            if (
                own != others
                and fit[exp.id, others] - fit[exp.id, own] > EXCHANGED
                and fit[other.id, own] - fit[other.id, others] > EXCHANGED
            ):
                found.setdefault(exp.id, other.id)
    return found


def _read(split: ShardedSplit, video: int, predictions: Path) -> VideoMasks:
    entry = split.videos[video]
    frames = range(len(entry.frame_names))
    void = split.read_void(video, frames)
    packed: dict[str, BitPlanes | None] = {}
    for exp in entry.expressions:
        pred = read_masks(predictions, entry, exp)
        packed[exp.id] = None if pred is None else pack(without(pred, void))
    targets: dict[ObjectSet, BitPlanes] = {}
    for exp in entry.expressions:
        if has_known_target(exp) and _objects(exp) not in targets:
            targets[_objects(exp)] = read_target(split, video, exp, void)
    single = {each: Expression("", "", (each,)) for each in entry.object_ids}
    objects = {
        name: targets[exp.object_set] if exp.object_set in targets else read_target(split, video, exp, void)
        for name, exp in single.items()
    }
    rivals = {
        of_target: [minus(planes, target) for name, planes in objects.items() if name not in of_target]
        for of_target, target in targets.items()
    }
    foreground = None
    if entry.dataset in WITH_ACCURACY:
        foreground = read_target(split, video, Expression("", "", entry.object_ids), void)
    pixels = np.zeros(len(frames), np.int64) if void is None else void.sum(axis=(1, 2))
    return VideoMasks(entry, packed, targets, rivals, foreground, pixels)


def read_target(split: ShardedSplit, video: int, expression: Expression, void: NDArray[np.bool_] | None) -> BitPlanes:
    """The packed target of an expression over all frames, without `void` (of all frames); empty where it has none."""
    entry = split.videos[video]
    if not _objects(expression):
        return pack(np.zeros((len(entry.frame_names), entry.height, entry.width), np.bool_))
    frames = range(len(entry.frame_names))
    return pack(without(split.read_target(video, expression, frames), void))


def _own_score(masks: VideoMasks, exp: Expression) -> tuple[ExpressionScore, list[FrameScores]]:
    entry, pred = masks.entry, masks.predictions[exp.id]
    score = replace(unscored(entry, exp), missing=pred is None)
    if not has_known_target(exp):
        return score, []
    target = masks.targets[_objects(exp)]
    region, boundary = (np.zeros(len(target.area)),) * 2 if pred is None else jf(pred, target)
    j, f = 100 * float(region.mean()), 100 * float(boundary.mean())
    share = target.area[target.area > 0] / (entry.height * entry.width)
    score = replace(
        score,
        J=j,
        F=f,
        JF=(j + f) / 2,
        size=float(share.mean()) if share.size else None,
        rivals=len(set(entry.object_ids) - set(exp.object_ids)),
        frames_without_object=int((target.area == 0).sum()),
    )
    parts = error_parts(pred, target, masks.rivals[_objects(exp)], region)
    lost = parts.lost(region)
    score = replace(
        score,
        object_accuracy=parts.object_accuracy,
        switches=parts.switches if masks.rivals[_objects(exp)] else None,
        lost_mask=lost["mask"],
        lost_object=lost["object"],
        lost_both=lost["both"],
        lost_missed=lost["missed"],
        lost_imagined=lost["imagined"],
    )
    if protocol_for(entry.dataset, entry.split).overlap:
        shared = 0 if pred is None else int(common(pred, target).sum())
        predicted = 0 if pred is None else int(pred.area.sum())
        score = replace(score, intersection=shared, union=predicted + int(target.area.sum()) - shared)
    if masks.foreground is not None:
        right = 0.0 if pred is None else 100 * float(accuracy(pred, target, masks.void).mean())
        robust = 0.0 if pred is None else 100 * float(robustness(pred, target, masks.foreground).mean())
        score = replace(score, A=right, R=robust)
    of_frames = FrameScores(
        dataset=entry.dataset,
        split=entry.split,
        video=entry.video,
        expression=exp.id,
        frame_names=tuple(entry.frame_names),
        J=(100 * region).astype(np.float32),
        F=(100 * boundary).astype(np.float32),
        lost=parts.part,
    )
    return score, [of_frames]


def _objects(expression: Expression) -> ObjectSet:
    return frozenset() if expression.type_id == WITHOUT_TARGET else expression.object_set


def _means(pred: BitPlanes, target: BitPlanes) -> tuple[float, float]:
    region, boundary = jf(pred, target)
    return 100 * float(region.mean()), 100 * float(boundary.mean())


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
