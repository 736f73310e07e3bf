"""From expressions to benchmark figures, and both to files."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean

from glus.data_pipeline.aside import write_bytes_aside
from glus.evaluation.benchmarks import Protocol, protocol_for
from glus.evaluation.scoring import WITHOUT_TARGET, ExpressionScore

FORMAT = 1
"""Version of scores.json."""

TYPE_NAMES = {0: "referring", 1: "reasoning"}
"""Names of ReVOS's own type_id."""


@dataclass(frozen=True)
class Figures:
    """Mean figures of some expressions, 0 to 100; None where there is nothing to average.

    `missing` of the `expressions` had no prediction and count as 0. `controlled` of them have a text control:
    `matched_JF` is their J&F, `control_*` what they score with another expression's prediction, `drop` the
    difference of the two.
    """

    expressions: int
    missing: int
    J: float | None
    F: float | None
    JF: float | None
    controlled: int
    matched_JF: float | None
    control_J: float | None
    control_F: float | None
    control_JF: float | None
    drop: float | None


@dataclass(frozen=True)
class BenchmarkSummary:
    """The figures of one benchmark. `hidden` expressions have no known target: nothing of them is in the figures.

    `partial` says that predictions are missing. `without_target` holds ReVOS type_id 2, which is in no other figure.
    """

    benchmark: str
    dataset: str
    split: str
    average: str
    source: str
    note: str
    official: bool
    videos: int
    figures: Figures
    groups: dict[str, Figures]
    without_target: Figures | None
    hidden: int
    partial: bool

    @property
    def scored(self) -> bool:
        """Whether the split has any ground truth."""
        return self.figures.expressions > 0


@dataclass(frozen=True)
class Summary:
    """All benchmarks, `overall`: the mean over all expressions of all of them, and the same by kind of expression."""

    benchmarks: tuple[BenchmarkSummary, ...]
    overall: Figures
    kinds: dict[str, Figures]
    partial: bool


def summarise(scores: Sequence[ExpressionScore]) -> Summary:
    """Figures per benchmark (in the order of `scores`), by kind of expression, and over all. Pure."""
    splits: dict[tuple[str, str], list[ExpressionScore]] = {}
    for score in scores:
        splits.setdefault((score.dataset, score.split), []).append(score)
    benchmarks = tuple(_benchmark(protocol_for(*name), found) for name, found in splits.items())
    with_target = [score for score in scores if not score.hidden and score.type_id != WITHOUT_TARGET]
    kinds = _grouped(with_target, lambda score: score.kind)
    return Summary(benchmarks, _figures(with_target), kinds, any(benchmark.partial for benchmark in benchmarks))


def named_figures(summary: Summary) -> dict[str, float]:
    """The figures under the names that a tracking run keeps them by; what has no value is left out.

    eval/mevis/valid_u/{J,F,JF,control_JF,drop}, eval/overall/{J,F,JF}, eval/kind/motion/JF, eval/control/{JF,drop}
    """
    named: dict[str, float | None] = {}
    for benchmark in summary.benchmarks:
        for name in ("J", "F", "JF", "control_JF", "drop"):
            named[f"eval/{benchmark.dataset}/{benchmark.split}/{name}"] = getattr(benchmark.figures, name)
    named |= {f"eval/overall/{name}": getattr(summary.overall, name) for name in ("J", "F", "JF")}
    named |= {f"eval/kind/{kind}/JF": figures.JF for kind, figures in summary.kinds.items()}
    named |= {"eval/control/JF": summary.overall.control_JF, "eval/control/drop": summary.overall.drop}
    return {name: value for name, value in named.items() if value is not None}


def write_scores(scores: Sequence[ExpressionScore], summary: Summary, out: Path) -> tuple[Path, Path]:
    """Write scores.json (summary, expressions) and scores.csv (a line an expression) into `out`, each whole or absent.

    Returns both places. Raises DataError where they cannot be written.
    """
    document = {"format": FORMAT, "summary": asdict(summary), "expressions": [asdict(score) for score in scores]}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    places = out / "scores.json", out / "scores.csv"
    write_bytes_aside(places[0], text.encode() + b"\n")
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [field.name for field in fields(ExpressionScore)], lineterminator="\n")
    writer.writeheader()
    for score in scores:
        writer.writerow(asdict(score) | {"object_ids": " ".join(score.object_ids), "missing": int(score.missing)})
    write_bytes_aside(places[1], table.getvalue().encode())
    return places


def _benchmark(protocol: Protocol, scores: list[ExpressionScore]) -> BenchmarkSummary:
    known = [score for score in scores if not score.hidden]
    apart = [score for score in known if score.type_id == WITHOUT_TARGET]
    scored = [score for score in known if score.type_id != WITHOUT_TARGET]
    by_type = _grouped(scored, lambda score: TYPE_NAMES.get(score.type_id, "") if score.type_id is not None else "")
    by_kind = _grouped(scored, lambda score: score.kind)
    figures = _figures(scored)
    if protocol.average == "referring-reasoning":
        figures = _unweighted([by_type.get(name) for name in TYPE_NAMES.values()], figures)
    return BenchmarkSummary(
        benchmark=protocol.name,
        dataset=scores[0].dataset,
        split=scores[0].split,
        average=protocol.average,
        source=protocol.source,
        note=protocol.note,
        official=protocol.official,
        videos=len({score.video for score in scores}),
        figures=figures,
        groups=by_type | {name: part for name, part in by_kind.items() if name not in by_type},
        without_target=_figures(apart) if apart else None,
        hidden=len(scores) - len(known),
        partial=any(score.missing for score in known),
    )


def _grouped(scores: Iterable[ExpressionScore], key: Callable[[ExpressionScore], str]) -> dict[str, Figures]:
    groups: dict[str, list[ExpressionScore]] = {}
    for score in scores:
        if key(score):
            groups.setdefault(key(score), []).append(score)
    return {name: _figures(found) for name, found in sorted(groups.items())}


def _figures(scores: Sequence[ExpressionScore]) -> Figures:
    controlled = [score for score in scores if score.control_JF is not None]
    matched, control = _mean(score.JF for score in controlled), _mean(score.control_JF for score in controlled)
    return Figures(
        expressions=len(scores),
        missing=sum(score.missing for score in scores),
        J=_mean(score.J for score in scores),
        F=_mean(score.F for score in scores),
        JF=_mean(score.JF for score in scores),
        controlled=len(controlled),
        matched_JF=matched,
        control_J=_mean(score.control_J for score in controlled),
        control_F=_mean(score.control_F for score in controlled),
        control_JF=control,
        drop=None if matched is None or control is None else matched - control,
    )


def _unweighted(parts: Sequence[Figures | None], all_of_them: Figures) -> Figures:
    """The mean of group means; None where a group is absent, rather than the figure of the other one under its name."""
    whole = [part for part in parts if part is not None]

    def mean(name: str) -> float | None:
        values = [getattr(part, name) for part in whole]
        return fmean(values) if len(whole) == len(parts) and None not in values else None

    return replace(
        all_of_them,
        J=mean("J"),
        F=mean("F"),
        JF=mean("JF"),
        matched_JF=mean("matched_JF"),
        control_J=mean("control_J"),
        control_F=mean("control_F"),
        control_JF=mean("control_JF"),
        drop=mean("drop"),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
