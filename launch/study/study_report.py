"""From what MLflow has of a study to its report: tables with paired differences, pictures, published parts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from glus.common.errors import DataError, EvaluationError
from glus.data_pipeline.shards.reader import ShardedSplit, open_splits
from glus.evaluation.pages.evaluation_page import draw_expression
from glus.evaluation.pages.overlays import write_png
from glus.evaluation.pages.study_page import (
    ArmRow,
    MeasureTable,
    Picture,
    PublishedPart,
    StudyPage,
    table_of,
)
from glus.evaluation.results.published_results import read_published
from glus.evaluation.results.scores_file import Scored
from glus.evaluation.results.seed_intervals import (
    DRAWS,
    seed_difference,
    seed_mean,
    steps_difference,
    steps_to_reach,
)
from glus.evaluation.score.expression_score import WITHOUT_TARGET, ExpressionScore
from glus.launch.study.study_config import StudyConfig, StudyMeasure
from glus.launch.study.study_results import StudyResults

#: Parts of GLUS that were left out in published results: the part, the system, the same without it.
_PUBLISHED = (("contrastive loss and key frames", "GLUS-S", "GLUS-S partial"),)
_PUBLISHED_NOTE = (
    "Of the paper's parts, published_results.json has one pair of systems, which leaves out two parts at once. The "
    "tables of ablations in the paper itself are not in this repository, so they are not shown."
)
_TITLES = {
    "JF": "J&F",
    "J": "J",
    "F": "F",
    "object_accuracy": "object accuracy",
    "switches": "switches between objects",
}
_NOTES = {
    "object_accuracy": "Share of frames with the target, in %, whose mask is on it.",
    "switches": "Share of frames, in %, whose mask is on another object than in the frame before that was on one.",
}


def study_page(config: StudyConfig, results: StudyResults) -> StudyPage:
    """Build the report; pictures are drawn into OUT/overlays. Raises EvaluationError."""
    titles = {name: arm.title or name.replace("_", " ") for name, arm in config.arms.items()}
    tables = [_measured(config, results, name, measure, titles) for name, measure in config.measures.items()]
    if config.curve.training:
        tables.append(_curve(config, results, titles))
    return StudyPage(
        title=config.title,
        base=titles[config.base],
        notes=tuple(_notes(config, results)),
        tables=tuple(tables),
        pictures=tuple(_pictures(config, results, titles)) if config.pictures else (),
        published=tuple(published_parts()),
        published_note=_PUBLISHED_NOTE,
    )


def _notes(config: StudyConfig, results: StudyResults) -> list[str]:
    over = "videos alone, because there is one seed" if len(config.seeds) == 1 else "seeds and videos"
    notes = [
        f"{len(config.arms)} arms, seeds {', '.join(map(str, config.seeds))}. Intervals are of 95 %, a bootstrap of "
        f"{DRAWS:,} draws over {over}; differences are paired: both arms see the same draw."
    ]
    if 1 < len(config.seeds) < 5:
        notes.append("Few seeds: where seeds differ more than videos do, an interval is too short (docs/study.md).")
    if results.missing:
        shown = ", ".join(f"{arm} of seed {seed} ({asked})" for arm, seed, asked in results.missing[:5])
        more = f" and {len(results.missing) - 5} more" if len(results.missing) > 5 else ""
        notes.append(f"INCOMPLETE: {len(results.missing)} evaluations are missing: {shown}{more}.")
    return notes


def _measured(
    config: StudyConfig, results: StudyResults, name: str, measure: StudyMeasure, titles: dict[str, str]
) -> MeasureTable:
    evaluation = config.measured_by(measure)
    base = results.values(measure, evaluation, config.base)
    rows = []
    for arm in config.asked_so(evaluation):
        own = results.values(measure, evaluation, arm)
        rows.append(ArmRow(titles[arm], seed_mean(own), None if arm == config.base else seed_difference(own, base)))
    title = measure.title or name.replace("_", " ")
    where = ", ".join(measure.splits or config.evaluations[evaluation].splits)
    kind = f", expressions of kind {measure.kind}" if measure.kind else ""
    note = f"{_TITLES[measure.metric]} on {where}{kind}. {_NOTES.get(measure.metric, '')}".strip()
    return table_of(title, rows, note)


def _curve(config: StudyConfig, results: StudyResults, titles: dict[str, str]) -> MeasureTable:
    curve = config.curve
    base = results.curves.get(config.base, {})
    rows = []
    for arm in results.curves:
        own = results.curves[arm]
        gap = None if arm == config.base else steps_difference(own, base, curve.accuracy)
        rows.append(ArmRow(titles[arm], steps_to_reach(own, curve.accuracy), gap))
    order = [titles[arm] for arm in config.arms]
    rows.sort(key=lambda row: order.index(row.arm))
    kind = f" of {curve.kind} expressions" if curve.kind else ""
    what = "pointing" if curve.measure == "pointing" else "object accuracy"
    note = (
        f"Steps of {curve.training} until {what}{kind} on {curve.split} is {curve.accuracy:g} %, evaluated every "
        f"{curve.every} steps and interpolated; the first evaluated step is given where it was reached before."
    )
    return table_of(f"Steps to {curve.accuracy:g} %", rows, note, steps=True)


def _pictures(config: StudyConfig, results: StudyResults, titles: dict[str, str]) -> list[Picture]:
    """One an arm: the expression whose J&F differs by the median of all of the split, with the first seed."""
    evaluation = next(iter(config.evaluations))
    name = config.picture_split or config.evaluations[evaluation].splits[0]
    try:
        [split] = open_splits(config.shards, [name])
    except DataError as error:
        return [Picture(titles[config.base], "", f"No pictures: {error}")]
    found = []
    for arm in config.asked_so(evaluation):
        both = [{(each, seed, evaluation) for each in (config.base, arm)} for seed in config.seeds]
        seeds = [seed for seed, each in zip(config.seeds, both, strict=True) if each <= results.scores.keys()]
        if arm != config.base and seeds:
            pair = [results.scores[each, seeds[0], evaluation] for each in (config.base, arm)]
            names = titles[config.base], titles[arm]
            found.append(_picture(config.out, split, pair, names, f"overlays/{arm}.png", seeds[0]))
    return found


def median_expression(base: Scored, arm: Scored, split: str) -> tuple[str, float] | None:
    """(name, difference) of the expression whose J&F differs by the median of the split; None where none is in both.

    Of an even number the lower one of the middle; of equal differences the first by name.
    """
    first, second = (_by_name(scored, split) for scored in (base, arm))
    common = first.keys() & second.keys()
    gaps = sorted(((second[name].JF or 0.0) - (first[name].JF or 0.0), name) for name in common)
    if not gaps:
        return None
    gap, name = gaps[(len(gaps) - 1) // 2]
    return name, gap


def _picture(
    out: Path, split: ShardedSplit, pair: Sequence[Scored], names: tuple[str, str], file: str, seed: int
) -> Picture:
    place = f"{split.dataset}/{split.split}"
    chosen = median_expression(pair[0], pair[1], place)
    if chosen is None:
        return Picture(names[1], "", f"No picture: no expression of {place} is in both evaluations.")
    name, gap = chosen
    strips = []
    for title, scored in zip(names, pair, strict=True):
        score = _by_name(scored, place)[name]
        if not scored.predictions.is_dir():
            return Picture(names[1], "", f"No picture: the masks in {scored.predictions} are gone.")
        try:
            strips.append(draw_expression(split, replace(score, text=f"{title}: {score.text}"), scored.predictions))
        except (EvaluationError, DataError) as error:
            return Picture(names[1], "", f"No picture: {error}")
    write_png(out / file, np.concatenate(strips))
    note = (
        f"{names[0]} above, {names[1]} below: the expression of {place}, seed {seed}, whose J&F differs by the median "
        f"of all its expressions ({gap:+z.1f})."
    )
    return Picture(names[1], file, note)


def _by_name(scored: Scored, split: str) -> dict[str, ExpressionScore]:
    return {
        each.name: each
        for each in scored.expressions
        if not each.hidden and each.type_id != WITHOUT_TARGET and f"{each.dataset}/{each.split}" == split
    }


def published_parts() -> list[PublishedPart]:
    """J&F of published systems with and without a part, on the benchmarks that both have."""
    known = {(each.system, each.benchmark, each.group): each for each in read_published()}
    found = []
    for part, system, without in _PUBLISHED:
        for (name, benchmark, group), full in known.items():
            other = known.get((without, benchmark, group))
            if name == system and other is not None:
                shown = f"{benchmark}, {group}" if group else benchmark
                found.append(PublishedPart(part, shown, full.JF, other.JF, full.source))
    return found
