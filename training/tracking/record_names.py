"""Settings as flat names and texts, and the names that MLflow takes."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass

from glus.common.errors import TrainingError

NAME_PATTERN = re.compile(r"[A-Za-z0-9_\-. /:]+")  # what MLflow takes as the name of a metric or parameter
LONGEST_PARAMETER = 6000


def flatten(params: object, prefix: str = "") -> dict[str, str]:
    """Nested dataclasses and mappings -> {"optimizer.learning_rate": "0.0003"}.

    Sequences become JSON, and so do mappings whose keys MLflow would not take as names (patterns, say).
    """
    if is_dataclass(params) and not isinstance(params, type):
        params = asdict(params)
    if isinstance(params, Mapping):
        if not all(NAME_PATTERN.fullmatch(str(key)) for key in params):
            return {prefix: json.dumps(params, default=str, ensure_ascii=False)}
        found: dict[str, str] = {}
        for key, value in params.items():
            found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(params, (list, tuple)):
        return {prefix: json.dumps(params, default=str, ensure_ascii=False)}
    return {prefix: str(params)}


def shortened(value: str) -> str:
    """A value as long as MLflow keeps it."""
    return value if len(value) <= LONGEST_PARAMETER else value[: LONGEST_PARAMETER - 3] + "..."


def checked_name(name: str) -> str:
    """The name itself. Raises TrainingError for one that MLflow refuses."""
    if not NAME_PATTERN.fullmatch(name):
        raise TrainingError(
            f"{name!r} cannot be the name of a metric or parameter: MLflow takes letters, digits, blanks and _-.:/"
        )
    return name
