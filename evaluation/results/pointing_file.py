"""Where [SEG] of a pretraining checkpoint points, on disk: OUT/pointing.json (evaluation/predict/pointing.py)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

from glus.common.atomic import write_atomic
from glus.common.errors import EvaluationError
from glus.common.json_file import read_as

FORMAT = 1
FILE = "pointing.json"
#: The name of all kinds together.
ALL = "all"


@dataclass(frozen=True)
class Pointing:
    """What one checkpoint sees in held-out clips, 0 to 100.

    `patches`: by group of words, the share of patches that name the attribute of their object. `pointing`: by kind of
    expression (and ALL) and video, the share of query frames in which [SEG] points at the right object; `asked`: by
    kind, the number of query frames.
    """

    checkpoint: str
    step: int
    split: str
    fingerprint: str
    seed: int
    patches: dict[str, float] = field(default_factory=dict)
    pointing: dict[str, dict[str, float]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT

    def percent(self, kind: str = ALL) -> float | None:
        """The mean over videos; None where no video has such an expression."""
        videos = self.pointing.get(kind)
        return fmean(videos.values()) if videos else None

    def error(self, kind: str = ALL) -> float:
        """Standard error of that mean."""
        values = list(self.pointing[kind].values())
        middle = fmean(values)
        return float((sum((each - middle) ** 2 for each in values) ** 0.5) / len(values))


def named_pointing(found: Pointing) -> dict[str, float]:
    """The metrics under the names of a tracking run: eval/pointing/KIND, eval/pointing/patches/GROUP."""
    named = {f"eval/pointing/{kind or 'other'}": found.percent(kind) for kind in found.pointing}
    named |= {f"eval/pointing/patches/{group}": value for group, value in found.patches.items()}
    return {name: value for name, value in named.items() if value is not None}


def write_pointing(found: Pointing, out: Path) -> Path:
    """Write OUT/pointing.json; return its place. Raises InputError where it cannot be written."""
    write_atomic(out / FILE, json.dumps(asdict(found), indent=1).encode() + b"\n")
    return out / FILE


def read_pointing(file: Path) -> Pointing:
    """What `write_pointing` wrote. Raises EvaluationError where it cannot be read."""
    remedy = "make it again by `glus pointing`"
    found = read_as(file, Pointing, "file of pointing", raises=EvaluationError, remedy=remedy)
    if found.format != FORMAT:
        raise EvaluationError(f"{file} has format {found.format}, this code reads {FORMAT}: {remedy}")
    return found


def shown(found: Pointing) -> Mapping[str, object]:
    """What is printed: percent of patches by group, pointing by kind with its standard error."""
    return {
        "checkpoint": found.checkpoint,
        "patches": {group: round(value, 1) for group, value in found.patches.items()},
        "pointing": {
            kind: {
                "percent": round(fmean(videos.values()), 1),
                "error": round(found.error(kind), 1),
                "videos": len(videos),
                "asked": found.asked[kind],
            }
            for kind, videos in found.pointing.items()
        },
    }
