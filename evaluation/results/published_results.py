"""Published results (published_results.json), each with its source, for comparison with our runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glus.common.errors import EvaluationError
from glus.common.json_file import parsed_as, read_object

DATA = Path(__file__).with_name("published_results.json")
FORMAT = 1
#: Ref-DAVIS17 is published by the official DAVIS code, so it is compared with our result by the same protocol.
MERGED = {"ref_davis17/valid": "ref_davis17/valid/merged"}


@dataclass(frozen=True)
class PublishedResult:
    """What a system scores on a benchmark (DATASET/SPLIT, or a group of ReVOS), 0 to 100, and who says so."""

    system: str
    benchmark: str
    group: str
    J: float | None
    F: float | None
    JF: float
    source: str
    note: str = ""


@dataclass(frozen=True)
class PublishedRow:
    """A line of the table: J&F by column (None where there is none); `ours` marks a run of ours."""

    system: str
    metrics: tuple[float | None, ...]
    ours: bool
    sources: tuple[str, ...]


@dataclass(frozen=True)
class PublishedTable:
    """Columns are "DATASET/SPLIT" or "DATASET/SPLIT, GROUP"."""

    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


def read_published(file: Path = DATA) -> list[PublishedResult]:
    """Return the published results. Raises EvaluationError for a file that is not in order, with the entry."""
    remedy = "take it from the repository again"
    document = read_object(file, "file of published results", raises=EvaluationError, remedy=remedy)
    if document.get("format") != FORMAT:
        raise EvaluationError(f"{file} has format {document.get('format')!r}, this code reads {FORMAT}; {remedy}")
    results = parsed_as(
        document.get("results"), list[PublishedResult], f"{file}: results", raises=EvaluationError, remedy=remedy
    )
    seen = set()
    for each in results:
        key = (each.system, each.benchmark, each.group)
        where = f"{file}: {each.system} on {each.benchmark} {each.group}".rstrip()
        if not each.source.strip():
            raise EvaluationError(f"{where} has no source")
        if key in seen:
            raise EvaluationError(f"{where} is there twice")
        if not 0 <= each.JF <= 100:
            raise EvaluationError(f"{where}: J&F is {each.JF}; it is 0 to 100")
        seen.add(key)
    return results


def published_table(
    runs: Mapping[str, Mapping[str, float]], results: Sequence[PublishedResult], all_columns: bool = False
) -> PublishedTable:
    """J&F of our runs (name -> metrics as evaluation recorded them), then of the systems in the order of the file.

    Only benchmarks that a run of ours has been scored on are columns, unless there is none or `all_columns`. A run
    whose evaluation was partial says so in its name.
    """
    columns = list(dict.fromkeys(_column(each.benchmark, each.group) for each in results))
    own = {name: {column: _own(metrics, column) for column in columns} for name, metrics in runs.items()}
    shared = [column for column in columns if any(row[column] is not None for row in own.values())]
    kept = columns if all_columns or not shared else shared
    ours = [
        PublishedRow(
            f"{name} (partial)" if runs[name].get("eval/partial") else name,
            tuple(row[column] for column in kept),
            True,
            (),
        )
        for name, row in own.items()
    ]
    systems: dict[str, list[PublishedResult]] = {}
    for each in results:
        systems.setdefault(each.system, []).append(each)
    theirs = []
    for name, found in systems.items():
        by_column = {_column(each.benchmark, each.group): each for each in found}
        shown = [by_column.get(column) for column in kept]
        if any(shown):
            sources = dict.fromkeys(each.source for each in shown if each)
            values = tuple(each.JF if each else None for each in shown)
            theirs.append(PublishedRow(name, values, False, tuple(sources)))
    return PublishedTable(tuple(kept), (*ours, *theirs))


def _column(benchmark: str, group: str) -> str:
    return f"{benchmark}, {group}" if group else benchmark


def _own(metrics: Mapping[str, float], column: str) -> float | None:
    benchmark, _, group = column.partition(", ")
    if group:
        return metrics.get(f"eval/{benchmark}/{group}/JF")
    return metrics.get(f"eval/{MERGED.get(benchmark, benchmark)}/JF")
