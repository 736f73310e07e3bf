"""From expressions to benchmark metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from glus.evaluation.results.benchmarks import MERGED, Protocol, protocol_for
from glus.evaluation.results.breakdowns import Breakdown, breakdowns
from glus.evaluation.results.mean_metrics import LOST, MeanMetrics, by, mean_metrics, unweighted
from glus.evaluation.score.expression_score import WITHOUT_TARGET, ExpressionScore

TYPE_NAMES = {0: "referring", 1: "reasoning"}
"""Names of ReVOS's own type_id."""
_HALVES = tuple(TYPE_NAMES.values())
_WHERE_LOST = ("object_accuracy", "switches", *LOST)


@dataclass(frozen=True)
class BenchmarkSummary:
    """The metrics of one benchmark. `hidden` expressions have no known target: nothing of them is in the metrics.

    `partial` says that predictions are missing, or videos of the split: `left_out` names those missing from its
    shards (the manifest's quarantine). `without_target` holds ReVOS type_id 2, which is in no other metric.
    """

    benchmark: str
    dataset: str
    split: str
    average: str
    source: str
    note: str
    official: bool
    videos: int
    metrics: MeanMetrics
    groups: dict[str, MeanMetrics]
    without_target: MeanMetrics | None
    hidden: int
    partial: bool
    left_out: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether the split has any ground truth."""
        return self.metrics.expressions > 0


@dataclass(frozen=True)
class Summary:
    """All benchmarks, `overall`: the mean over all expressions of all of them, and the same by kind of expression.

    `variants` are the same predictions by a second protocol (Ref-DAVIS17 as ReferFormer). `breakdowns` are over all
    expressions with a target. `exchanged` names expressions whose ids may have been exchanged.
    """

    benchmarks: tuple[BenchmarkSummary, ...]
    overall: MeanMetrics
    kinds: dict[str, MeanMetrics]
    partial: bool
    variants: tuple[BenchmarkSummary, ...] = ()
    breakdowns: dict[str, Breakdown] = field(default_factory=dict)
    exchanged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def summarise(
    scores: Sequence[ExpressionScore],
    merged: Mapping[str, Sequence[ExpressionScore]] | None = None,
    notes: Sequence[str] = (),
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> Summary:
    """Metrics per benchmark (in the order of `scores`), by kind of expression, and over all. Pure.

    `merged` maps "dataset/split" to its scores by the second protocol; `notes` are kept as they are; `left_out` maps
    "dataset/split" to its videos that are not in the shards.
    """
    splits: dict[tuple[str, str], list[ExpressionScore]] = {}
    for score in scores:
        splits.setdefault((score.dataset, score.split), []).append(score)
    absent = {name: tuple(videos) for name, videos in (left_out or {}).items()}
    benchmarks = tuple(
        _benchmark(protocol_for(*name), found, absent.get("/".join(name), ())) for name, found in splits.items()
    )
    variants = tuple(
        _benchmark(replace(MERGED, split=found[0].split), list(found), absent.get(name, ()))
        for name, found in (merged or {}).items()
    )
    with_target = [score for score in scores if not score.hidden and score.type_id != WITHOUT_TARGET]
    return Summary(
        benchmarks=benchmarks,
        overall=mean_metrics(with_target),
        kinds={kind: mean_metrics(found) for kind, found in by(with_target, lambda score: score.kind).items()},
        partial=any(benchmark.partial for benchmark in benchmarks),
        variants=variants,
        breakdowns=breakdowns(with_target),
        exchanged=tuple(f"{score.name} with {score.exchanged_with}" for score in scores if score.exchanged_with),
        notes=tuple(notes),
    )


#: Where a tracking run keeps the metrics of an evaluation: from the first frame, and from a file of key frames.
EVALUATION, FROM_KEY_FRAMES = "eval/", "eval/key_frames/"


def from_key_frames(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an evaluation from key frames under names of their own, next to those from the first frame."""
    return {name.replace(EVALUATION, FROM_KEY_FRAMES, 1): value for name, value in metrics.items()}


def partial_flag(name: str) -> str:
    """The metric that says whether the evaluation of an evaluation's metric was partial."""
    return f"{FROM_KEY_FRAMES if name.startswith(FROM_KEY_FRAMES) else EVALUATION}partial"


def named_metrics(summary: Summary) -> dict[str, float]:
    """The metrics under the names that a tracking run keeps them by; what has no value is left out.

    eval/mevis/valid_u/{J,F,JF,JF_low,JF_high,A,R,control_JF,drop,missing}, eval/revos/valid/referring/JF,
    eval/reason_seg/val/{gIoU,cIoU}, also by kind (eval/reason_seg/val/sentence/gIoU),
    eval/ref_davis17/valid/merged/{J,F,JF,...},
    eval/overall/{J,F,JF,JF_low,JF_high}, eval/kind/motion/JF,
    eval/{overall,mevis/valid_u,kind/motion}/{object_accuracy,switches,lost_mask,lost_object,lost_both,lost_missed,
    lost_imagined},
    eval/object_size/small/JF, eval/control/{JF,drop},
    eval/mevis/valid_u/videos_left_out where there are some, eval/partial (0 or 1).
    """
    named: dict[str, float | None] = {}
    for benchmark in summary.benchmarks:
        place = f"eval/{benchmark.dataset}/{benchmark.split}"
        named |= _with_interval(
            place, benchmark.metrics, ("J", "F", "JF", "A", "R", "gIoU", "cIoU", *_WHERE_LOST, "control_JF", "drop")
        )
        if benchmark.average == "referring-reasoning":
            named |= {f"{place}/{name}/JF": part.JF for name, part in benchmark.groups.items() if name in _HALVES}
        if benchmark.metrics.gIoU is not None:
            for name, part in benchmark.groups.items():
                named |= {f"{place}/{name}/{measure}": getattr(part, measure) for measure in ("gIoU", "cIoU")}
        if benchmark.scored:
            named[f"{place}/missing"] = float(benchmark.metrics.missing)
        if benchmark.left_out:
            named[f"{place}/videos_left_out"] = float(len(benchmark.left_out))
    for variant in summary.variants:
        place = f"eval/{variant.dataset}/{variant.split}/merged"
        named |= _with_interval(place, variant.metrics, ("J", "F", "JF"))
    named |= _with_interval("eval/overall", summary.overall, ("J", "F", "JF", *_WHERE_LOST))
    for kind, metrics in summary.kinds.items():
        named |= {f"eval/kind/{kind}/{name}": getattr(metrics, name) for name in ("JF", *_WHERE_LOST)}
    for title, parts in summary.breakdowns.items():
        if title != "kind":
            place = f"eval/{title.replace(' ', '_')}"
            named |= {f"{place}/{name.replace(' ', '_')}/JF": metrics.JF for name, metrics in parts.items()}
    named |= {"eval/control/JF": summary.overall.control_JF, "eval/control/drop": summary.overall.drop}
    named["eval/partial"] = float(summary.partial)
    return {name: value for name, value in named.items() if value is not None}


def _with_interval(place: str, metrics: MeanMetrics, names: Sequence[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {f"{place}/{name}": getattr(metrics, name) for name in names}
    interval = metrics.intervals.get("JF")
    if interval is not None:
        found |= {f"{place}/JF_low": interval.low, f"{place}/JF_high": interval.high}
    return found


def counted(protocol: Protocol, scores: Sequence[ExpressionScore]) -> list[ExpressionScore]:
    """Return the expressions of a split that its benchmark's metrics count."""
    # Benchmarks of images count expressions without target: an empty prediction is right there.
    return [score for score in scores if not score.hidden and (score.type_id != WITHOUT_TARGET or protocol.overlap)]


def averaged(protocol: Protocol, scores: Sequence[ExpressionScore]) -> list[list[ExpressionScore]]:
    """Return the groups of a split's expressions; a benchmark's metric is the unweighted mean of their means."""
    found = counted(protocol, scores)
    if protocol.average != "referring-reasoning":
        return [found]
    by_type = by(found, _type_name)
    return [by_type.get(name, []) for name in TYPE_NAMES.values()]


def _type_name(score: ExpressionScore) -> str:
    return TYPE_NAMES.get(score.type_id, "") if score.type_id is not None else ""


def _benchmark(protocol: Protocol, scores: list[ExpressionScore], left_out: tuple[str, ...]) -> BenchmarkSummary:
    known = [score for score in scores if not score.hidden]
    scored = counted(protocol, scores)
    apart = [score for score in known if score.type_id == WITHOUT_TARGET and not protocol.overlap]
    by_type = by(scored, _type_name)
    by_kind = by(scored, lambda score: score.kind)
    metrics = mean_metrics(scored)
    if protocol.average == "referring-reasoning":
        metrics = unweighted(averaged(protocol, scores))
        metrics = replace(metrics, expressions=len(scored), missing=sum(score.missing for score in scored))
    groups = by_type | {name: part for name, part in by_kind.items() if name not in by_type}
    return BenchmarkSummary(
        benchmark=protocol.name,
        dataset=scores[0].dataset,
        split=scores[0].split,
        average=protocol.average,
        source=protocol.source,
        note=protocol.note,
        official=protocol.official,
        videos=len({score.video for score in scores}),
        metrics=metrics,
        groups={name: mean_metrics(part) for name, part in groups.items()},
        without_target=mean_metrics(apart) if apart else None,
        hidden=len(scores) - len(known),
        partial=bool(left_out) or any(score.missing for score in scores),
        left_out=left_out,
    )
