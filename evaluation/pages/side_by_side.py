"""Several evaluations of the same splits on one page: metrics, paired differences, all masks under one slider."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.pages.comparison import render
from glus.evaluation.pages.rows import Row, compare_metrics
from glus.evaluation.pages.viewer import Shown, Viewer, pick_ranked, write_viewer
from glus.evaluation.results.mean_metrics import LOST
from glus.evaluation.results.paired import PairedDifference, difference_of
from glus.evaluation.results.scores_file import Scored
from glus.evaluation.score.expression_score import WITHOUT_TARGET, ExpressionScore

PAGE = "side_by_side.html"


def write_side_by_side(
    out: Path, title: str, runs: Sequence[Scored], splits: Sequence[ShardedSplit], examples: int = 2
) -> list[Path]:
    """Write `out`/side_by_side.html and its films below `out`/overlays; returns the page, then the films.

    Shown are the `examples` expressions of each split where the second run gains most on the first, where both are
    equally good (the median of the gains), and where it loses most. Raises EvaluationError for fewer than two runs or
    runs without a common expression, and for incomplete predictions.
    """
    if len(runs) < 2:
        raise EvaluationError(f"{len(runs)} evaluations to set side by side: give two or more")
    names = _names(runs)
    scored = [_by_name(run.expressions) for run in runs]
    common = [name for name in scored[0] if all(name in each for each in scored)]
    if not common:
        raise EvaluationError(
            f"{names[0]} and {names[1]} have no scored expression in common: other splits or releases"
        )
    shown: dict[str, list[Viewer]] = {}
    films: list[Path] = []
    for place, split in enumerate(splits):
        of_split = [name for name in common if name.startswith(f"{split.dataset}/{split.split}/")]
        picked = pick_gains({name: _gain(scored, name) for name in of_split}, examples)
        for number, (rank, name) in enumerate(picked):
            facts = [f"{run} J&F {each[name].JF:.1f}" for run, each in zip(names, scored, strict=True)]
            score = scored[0][name]
            facts.append(f"video {score.video}, expression {score.expression}")
            sources = [Shown(run, each.predictions) for run, each in zip(names, runs, strict=True)]
            viewer, written = write_viewer(out, f"side-{place}-{number}", rank, split, score, sources, facts)
            films += written
            shown.setdefault(f"{split.dataset}/{split.split}", []).append(viewer)
    page = render(
        "side_by_side.html.jinja",
        title=title,
        runs=names,
        partial=[name for name, run in zip(names, runs, strict=True) if run.summary.partial],
        metrics=metric_rows(runs),
        gaps=list(zip(names[1:], gaps(scored, common), strict=True)),
        examples=shown,
    )
    write_atomic(out / PAGE, page.encode())
    return [out / PAGE, *films]


def metric_rows(runs: Sequence[Scored]) -> list[Row]:
    """J, F and J&F of each benchmark, and overall, there with where J is lost, a column a run."""
    found: list[dict[str, float | None]] = []
    for run in runs:
        parts = (*run.summary.benchmarks, *run.summary.variants)
        named = {f"{part.benchmark}, {name}": getattr(part.metrics, key) for part in parts for key, name in _METRICS}
        named |= {
            f"{part.benchmark}, {name}": getattr(part.metrics, name)
            for part in parts
            for name in ("gIoU", "cIoU")
            if part.metrics.gIoU is not None
        }
        named |= {f"all expressions, {name}": getattr(run.summary.overall, key) for key, name in (*_METRICS, *_LOST)}
        found.append(named)
    order = list(dict.fromkeys(name for one in found for name in one))
    partial = [run.summary.partial for run in runs]
    return sorted(compare_metrics(found, partial), key=lambda row: order.index(row.name))


_METRICS = (("J", "J"), ("F", "F"), ("JF", "J&F"), ("drop", "text control, drop"))
_LOST = (("object_accuracy", "object accuracy"), ("switches", "switches"), *((name, name) for name in LOST))


def gaps(scored: Sequence[Mapping[str, ExpressionScore]], common: Sequence[str]) -> list[PairedDifference]:
    """Each later run against the first, on the expressions that all have."""
    first, *others = [[each[name] for name in common] for each in scored]
    return [difference_of([own], [first]) for own in others]


def pick_gains(gains: Mapping[str, float], count: int) -> list[tuple[str, str]]:
    """(rank, name): the most gained, the median, the most lost; none twice, at most `count` each; pure."""
    order = sorted(gains, key=lambda name: (-gains[name], name))
    return pick_ranked(order, count, ("gained", "median", "lost"))


def _gain(scored: Sequence[Mapping[str, ExpressionScore]], name: str) -> float:
    return (scored[1][name].JF or 0.0) - (scored[0][name].JF or 0.0)


def _by_name(scores: Sequence[ExpressionScore]) -> dict[str, ExpressionScore]:
    return {score.name: score for score in scores if not score.hidden and score.type_id != WITHOUT_TARGET}


def _names(runs: Sequence[Scored]) -> list[str]:
    """Titles; with a number where one occurs twice."""
    titles = [run.title for run in runs]
    return [t if titles.count(t) == 1 else f"{t} ({number})" for number, t in enumerate(titles, 1)]
