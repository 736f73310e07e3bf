"""OUT/metrics.jsonl: every metric of a run, one JSON object a line, on the disk before MLflow gets it.

{"step": 20, "timestamp": 1764115200123, "total": 0.71, "learning_rate": 0.0003}

`timestamp` is in milliseconds since the epoch. Values that are not finite are "NaN", "Infinity" or "-Infinity".
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from glus.common.atomic import atomic_open
from glus.common.errors import TrainingError, UserError
from glus.common.files import read_regular
from glus.common.json_file import parse_json
from glus.common.terminal import one_line

NAME = "metrics.jsonl"
LARGEST = 2**32
#: Names of metrics and parameters that MLflow takes.
NAME_PATTERN = re.compile(r"[A-Za-z0-9_\-. /:]+")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")

#: One value: name, value, milliseconds since the epoch, step.
Record = tuple[str, float, int, int]


class MetricsFile:
    """The metrics of a run up to step `step`, and those that follow.

    Steps after `step` in the file are superseded: the run takes them again. Lines that a crash cut are left out.
    `older` are records from elsewhere, which the file takes in. Until `begin` nothing is written.
    Raises InputError where the file cannot be read.
    """

    def __init__(self, file: Path, step: int, older: Iterable[Record] = ()) -> None:
        self.file = file
        content = read_regular(file, "file of metrics", LARGEST) if os.path.lexists(file) else b""
        parsed = [(line, _parsed(line)) for line in content.splitlines(keepends=True)]
        if damaged := sum(found is None for _, found in parsed):
            print(one_line(f"WARNING: {file}: {damaged} damaged lines are left out"), flush=True)
        kept = [(line, found) for line, found in parsed if found is not None and found[0] <= step]
        #: What the file holds up to `step`.
        self.records = [record for _, (_, records) in kept for record in records]
        held = {(name, at) for name, _, _, at in self.records}
        missing = [record for record in older if (record[0], record[3]) not in held]
        self.records += missing
        lines = [line for line, _ in kept] + [
            _line(at, timestamp, {name: value}) for name, value, timestamp, at in missing
        ]
        self._beginning = b"".join(lines) if b"".join(lines) != content else None

    def begin(self) -> None:
        """Remove superseded and damaged lines from the file. Raises InputError where it cannot be written."""
        if self._beginning is not None:
            with atomic_open(self.file) as file:
                file.write(self._beginning)
            self._beginning = None

    def append(self, values: Mapping[str, float], timestamp: int, step: int) -> None:
        """Write the values of a step. Raises TrainingError where the disk is full."""
        try:
            with self.file.open("ab") as file:
                file.write(_line(step, timestamp, values))
        except OSError as error:
            raise TrainingError(f"{self.file} cannot be written ({error.strerror}): free some room") from error

    def sync(self) -> None:
        """Bring the file to the disk before a checkpoint that relies on it. Raises TrainingError."""
        try:
            with self.file.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise TrainingError(f"{self.file} cannot be written ({error.strerror}): free some room") from error


def _line(step: int, timestamp: int, values: Mapping[str, float]) -> bytes:
    texts = {name: value if math.isfinite(value) else json.dumps(value) for name, value in values.items()}
    return json.dumps({"step": step, "timestamp": timestamp, **texts}).encode() + b"\n"


def _parsed(line: bytes) -> tuple[int, list[Record]] | None:
    """The step and records of a line, None where it is damaged."""
    try:
        found = parse_json(line, NAME)
    except UserError:
        return None
    if not line.endswith(b"\n") or not isinstance(found, dict):
        return None
    step, timestamp = found.pop("step", None), found.pop("timestamp", None)
    if type(step) is not int or type(timestamp) is not int:
        return None
    records: list[Record] = []
    for name, value in found.items():
        if not NAME_PATTERN.fullmatch(name) or not (type(value) in (int, float) or value in _NOT_FINITE):
            return None
        records.append((name, float(value), timestamp, step))
    return step, records


def checked_name(name: str) -> str:
    """The name itself. Raises TrainingError for one that MLflow refuses."""
    if not NAME_PATTERN.fullmatch(name):
        raise TrainingError(
            f"{name!r} cannot be the name of a metric or parameter: MLflow takes letters, digits, blanks and _-.:/"
        )
    return name
