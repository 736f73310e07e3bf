"""OUT/summary.json of a demo: its results, what it took, and what each number means."""

import json
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from glus.common.atomic import write_atomic
from glus.common.cores import usable_cores
from glus.common.json_file import parsed_as, read_object
from glus.common.terminal import cell
from glus.demo.recipe import Recipe
from glus.evaluation.results.scores_file import read_scores
from glus.evaluation.results.summary import Summary
from glus.launch.peak_memory import GIGABYTE
from glus.launch.stages import Stages
from glus.training.tracking.code_version import code_version

LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "sam2", "ray", "webdataset", "mlflow", "numpy")
MEANING = {
    "seconds": "set-up, all stages (each as long as it took when it last ran) and what lies between them, wall clock",
    "set_up_seconds": "from the start of `make demo` to the start of `glus demo`; null where it was not called by make",
    "peak_rss_gb": "largest sum of the resident memory of all processes of a stage, GiB, sampled twice a second; "
    "a page that several processes share counts for each",
    "peak_pss_gb": "the same, but a shared page counts once",
    "jf": "mean J&F over all expressions of the held-out videos of all benchmarks, 0 to 100, by training",
    "jf_motion_gain": "J&F of motion expressions: final training, minus the model of single frames",
    "jf_text_control": "final training: mean J&F where each expression is answered with the mask predicted for an "
    "expression of other objects of the same video",
    "jf_text_control_drop": "J&F of the same expressions with their own masks, minus jf_text_control",
    "jf_by_kind": "mean J&F by the kind of expression, over all benchmarks, by training",
    "object_accuracy": "share of frames whose mask overlaps most with the target, of all objects of the video, in %, "
    "by training and benchmark",
    "by_benchmark": "results of each benchmark by its own protocol (docs/benchmarks.md), by training",
}


def summarise_demo(
    out: Path, evaluations: Mapping[str, Path], recipe: Recipe, stages: Stages, set_up_seconds: float | None
) -> dict[str, Any]:
    """Collect the results of `evaluations` (training -> its folder) and write OUT/summary.json; returns it."""
    scores = {name: read_summary(folder / "scores.json") for name, folder in evaluations.items()}
    # The model that the demo is about first.
    scores = {recipe.final: scores[recipe.final], **scores}
    final, single_frames = scores[recipe.final], scores[recipe.single_frames]
    summary: dict[str, Any] = took(out, stages, set_up_seconds)
    summary |= {
        "jf": {name: each.overall.JF for name, each in scores.items()},
        "jf_text_control": final.overall.control_JF,
        "jf_text_control_drop": final.overall.drop,
        "jf_motion_gain": _gain(kinds_of(final), kinds_of(single_frames), "motion"),
        "jf_by_kind": {name: kinds_of(each) for name, each in scores.items()},
        "object_accuracy": {name: _object_accuracies(each) for name, each in scores.items()},
        "by_benchmark": {name: benchmarks_of(each) for name, each in scores.items()},
    }
    return write_summary(out, summary, MEANING)


def took(out: Path, stages: Stages, set_up_seconds: float | None) -> dict[str, Any]:
    """Seconds and memory. What was done before counts with what it took then, the set-up too."""
    kept = out / "summary.json"
    if len(stages.ran) < len(stages.done) and kept.is_file():
        before = {"set_up_seconds": read_object(kept, "summary", remedy="remove it").get("set_up_seconds")}
        set_up_seconds = parsed_as(before, dict[str, float | None], str(kept), remedy="remove it")["set_up_seconds"]
    here = time.time() - psutil.Process().create_time()
    between = here - sum(stages.done[name].seconds for name in stages.ran)
    each = {name: round(done.seconds, 1) for name, done in stages.done.items()}
    peaks = [done.peak for done in stages.done.values()]
    return {
        "seconds": round((set_up_seconds or 0.0) + sum(each.values()) + between, 1),
        "set_up_seconds": None if set_up_seconds is None else round(set_up_seconds, 1),
        "stage_seconds": each,
        "peak_rss_gb": round(max(peak.rss for peak in peaks) / GIGABYTE, 2),
        "peak_pss_gb": round(max(peak.pss for peak in peaks) / GIGABYTE, 2),
    }


def read_summary(scores: Path) -> Summary:
    """The "summary" part of a scores.json. Raises EvaluationError where it cannot be read."""
    return read_scores(scores.parent).summary


def kinds_of(summary: Summary) -> dict[str, float | None]:
    """Kind of expression -> J&F."""
    return {kind: metrics.JF for kind, metrics in summary.kinds.items()}


def benchmarks_of(summary: Summary) -> dict[str, dict[str, float | None]]:
    """Benchmark -> its results."""
    names = ("J", "F", "JF", "control_JF", "drop")
    return {
        f"{each.dataset}/{each.split}": {name: getattr(each.metrics, name) for name in names}
        for each in summary.benchmarks
    }


def _object_accuracies(summary: Summary) -> dict[str, float | None]:
    return {f"{each.dataset}/{each.split}": each.metrics.object_accuracy for each in summary.benchmarks}


def write_summary(out: Path, results: Mapping[str, Any], meaning: Mapping[str, str]) -> dict[str, Any]:
    """Round the results, add where they come from, write OUT/summary.json, and return its content."""
    content = {
        **{name: _rounded(value) for name, value in results.items()},
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / GIGABYTE, 1),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
        "code": code_version(),
        "meaning": dict(meaning),
    }
    write_atomic(out / "summary.json", json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
    return content


def print_summary(summary: Mapping[str, Any]) -> None:
    """J&F of all models: overall, by benchmark, by kind; object accuracy; then text control, time and memory."""
    names = list(summary["jf"])
    table = Table(box=box.SIMPLE_HEAD, title="J&F on held-out videos", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row("all expressions", *(shown(summary["jf"][name]) for name in names), style="bold")
    table.add_section()
    for benchmark in summary["by_benchmark"][names[0]]:
        table.add_row(cell(benchmark), *(shown(summary["by_benchmark"][name][benchmark]["JF"]) for name in names))
    table.add_section()
    for kind in summary["jf_by_kind"][names[0]]:
        table.add_row(cell(f"kind: {kind}"), *(shown(summary["jf_by_kind"][name].get(kind)) for name in names))
    table.add_section()
    for benchmark in summary["object_accuracy"][names[0]]:
        accuracies = (summary["object_accuracy"][name][benchmark] for name in names)
        table.add_row(cell(f"object accuracy, {benchmark}"), *(shown(each) for each in accuracies))
    Console().print(table)
    print(
        f"text control: {shown(summary['jf_text_control'])} with the mask of another expression, "
        f"{shown(summary['jf_text_control_drop'])} points lost"
    )
    print(f"motion expressions: {shown(summary['jf_motion_gain'])} points above the model of single frames")
    print_cost(summary)


def print_cost(summary: Mapping[str, Any]) -> None:
    """Time and memory in one line."""
    set_up = summary["set_up_seconds"]
    extra = "" if set_up is None else f", {set_up:.0f} s of them set-up"
    print(f"{summary['seconds']:.0f} s{extra}; {summary['peak_rss_gb']:.1f} GB at most on {summary['cores']} cores")


def _gain(ours: Mapping[str, float | None], theirs: Mapping[str, float | None], kind: str) -> float | None:
    one, other = ours.get(kind), theirs.get(kind)
    return None if one is None or other is None else one - other


def shown(value: float | None) -> str:
    """A metric with one digit; a dash where there is none."""
    return "–" if value is None else f"{value:z.1f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return value
