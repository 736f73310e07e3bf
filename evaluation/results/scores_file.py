"""Scores on disk: scores.json (all of it), scores.csv (a line an expression), videos.csv (a line a video)."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.json_file import parsed_as, read_object
from glus.evaluation.results.mean_metrics import mean_metrics
from glus.evaluation.results.summary import Summary
from glus.evaluation.score.expression_score import WITHOUT_TARGET, ExpressionScore

FORMAT = 2
"""Version of scores.json. 2 added A, R, size, rivals, frames without the object, intervals, breakdowns and variants."""
SCORES, EXPRESSIONS, VIDEOS = "scores.json", "scores.csv", "videos.csv"

#: The key of a benchmark's metrics in scores.json.
_METRICS_ON_DISK = "figures"
#: How a cell begins that a spreadsheet computes.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

VIDEO_METRICS = ("J", "F", "JF", "A", "R", "control_JF", "drop")


@dataclass(frozen=True)
class Scored:
    """The content of a scores.json: whose metrics, from which masks and shards, and the expressions.

    `origin` has all that the file says of where they come from, the fingerprint of each split's shards included.
    """

    title: str
    predictions: Path
    shards: str
    summary: Summary
    expressions: tuple[ExpressionScore, ...]
    origin: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Document:
    """What is read of a scores.json."""

    origin: dict[str, str]
    summary: Summary
    expressions: tuple[ExpressionScore, ...]


def write_scores(
    scores: Sequence[ExpressionScore],
    summary: Summary,
    out: Path,
    merged: Mapping[str, Sequence[ExpressionScore]] | None = None,
    origin: Mapping[str, str] | None = None,
) -> tuple[Path, Path, Path]:
    """Write scores.json, scores.csv and videos.csv into `out`, each complete or absent; return the places.

    `origin` says where the metrics come from (title, predictions, shards). Raises DataError where they cannot be
    written.
    """
    document = {
        "format": FORMAT,
        "origin": dict(origin or {}),
        "summary": _rename_key(asdict(summary), "metrics", _METRICS_ON_DISK),
        "expressions": [asdict(score) for score in scores],
        "variants": {name: [asdict(score) for score in found] for name, found in (merged or {}).items()},
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    places = out / SCORES, out / EXPRESSIONS, out / VIDEOS
    write_atomic(places[0], text.encode() + b"\n")
    rows = [asdict(s) | {"object_ids": " ".join(s.object_ids), "missing": int(s.missing)} for s in scores]
    write_atomic(places[1], _table([each.name for each in fields(ExpressionScore)], rows))
    columns = ["dataset", "split", "video", "expressions", "hidden", "missing", "left_out", *VIDEO_METRICS]
    absent = [
        {"dataset": each.dataset, "split": each.split, "video": video, "expressions": 0, "left_out": 1}
        for each in summary.benchmarks
        for video in each.left_out
    ]
    write_atomic(places[2], _table(columns, [*video_rows(scores), *absent]))
    return places


def read_scores(out: Path) -> Scored:
    """What `write_scores` wrote into `out`. Raises EvaluationError where it is not there or cannot be read."""
    file, remedy = out / SCORES, "score these predictions again"
    if not file.exists():
        raise EvaluationError(f"{file} is not there: name a folder that `glus evaluate` or `glus score` wrote")
    document = read_object(file, "file of scores", raises=EvaluationError, remedy=remedy)
    if document.get("format") != FORMAT:
        raise EvaluationError(f"{file} has format {document.get('format')!r}, this code reads {FORMAT}: {remedy}")
    known = {name: document.get(name) for name in ("origin", "summary", "expressions")}
    _rename_key(known["summary"], _METRICS_ON_DISK, "metrics")
    found = parsed_as(known, _Document, str(file), raises=EvaluationError, remedy=remedy)
    origin = found.origin
    for name in ("predictions", "shards"):
        if name not in origin:
            raise EvaluationError(f"{file}: origin names no {name}; {remedy}")
    title = origin.get("title", out.name)
    return Scored(title, Path(origin["predictions"]), origin["shards"], found.summary, found.expressions, origin)


def video_rows(scores: Sequence[ExpressionScore]) -> list[dict[str, Any]]:
    """One row a video: metrics are means over its expressions, those without target left out as in the summary."""
    videos: dict[tuple[str, str, str], list[ExpressionScore]] = {}
    for score in scores:
        videos.setdefault((score.dataset, score.split, score.video), []).append(score)
    rows = []
    for (dataset, split, video), found in videos.items():
        shown = mean_metrics([score for score in found if not score.hidden and score.type_id != WITHOUT_TARGET])
        rows.append(
            {
                "dataset": dataset,
                "split": split,
                "video": video,
                "expressions": len(found),
                "hidden": sum(score.hidden for score in found),
                "missing": sum(score.missing for score in found),
                "left_out": 0,
                **{name: getattr(shown, name) for name in VIDEO_METRICS},
            }
        )
    return rows


def _rename_key(summary: Any, old: str, new: str) -> Any:
    """Rename a key of every benchmark of a summary in place; return the summary."""
    for name in ("benchmarks", "variants"):
        found = summary.get(name) if isinstance(summary, dict) else None
        for part in found if isinstance(found, (list, tuple)) else ():
            if isinstance(part, dict) and old in part:
                part[new] = part.pop(old)
    return summary


def _as_text(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe, which it takes for "this is a text"."""
    if not isinstance(value, str):
        return value
    # Python's csv puts no quotes around a carriage return, and a reader would begin a new row there.
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if value.startswith(_FORMULA) else text


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _as_text(value) for name, value in row.items()} for row in rows)
    return table.getvalue().encode()
