"""The annotation of one video, whichever of the released forms it has."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.common.json_file import is_unfit, shortened
from glus.data_pipeline.raw.frame_names import JPEG_ENDINGS, without_ending
from glus.data_pipeline.raw.records import Expression, check_names


@dataclass(frozen=True)
class VideoAnnotation:
    """`frame_names` is None where the annotation lists no frames: then the folder's listing counts."""

    video: str
    frame_names: tuple[str, ...] | None
    expressions: tuple[Expression, ...]


def parse_video(path: Path, video: str, content: Any, ids_key: str | None) -> VideoAnnotation:
    """One entry of "videos" in a file of expressions.

    Expressions are keyed by id with "exp" (MeViS and its kin), or a list with "exp_id" and "exp_text" (ReasonVOS).
    `ids_key` names the object ids ("anno_id", "obj_id"); None where the split hides them. An optional "kind" is kept;
    where there is none, ReasonVOS's "is_sent", of the expression or of the video, makes it "sentence" or "phrase".
    Raises DataError with the file, the video and the expression; InputError for a name that cannot be one of a file.
    """
    place = f"{path}: video {video}"
    if not isinstance(content, dict) or not isinstance(content.get("expressions"), dict | list):
        raise DataError(f'{place}: has no "expressions"; take this file again', file=str(path), video=video)
    expressions = []
    for exp_id, entry in _entries(place, content["expressions"]):
        where = f"{place} expression {exp_id}"
        text = entry.get("exp", entry.get("exp_text"))
        if isinstance(text, str) and is_unfit(text):
            raise DataError(
                f"{where}: its text {shortened(text)} holds NUL or half of a surrogate pair; correct it",
                file=str(path),
                video=video,
            )
        if not isinstance(text, str) or not text.strip():
            raise DataError(f'{where}: has no text ("exp"); take this file again', file=str(path), video=video)
        kind, type_id = entry.get("kind", "") or _by_is_sent(where, entry, content), entry.get("type_id")
        if not isinstance(kind, str) or is_unfit(kind) or not (type_id is None or type(type_id) is int):
            raise DataError(f'{where}: "kind" must be a text and "type_id" an integer', file=str(path), video=video)
        object_ids = () if ids_key is None else _object_ids(where, entry, ids_key, type_id)
        expressions.append(Expression(exp_id, text, object_ids, kind, type_id))
    frames = _frame_names(place, content)
    check_names(str(path), video, frames or (), expressions, [each for said in expressions for each in said.object_ids])
    return VideoAnnotation(video, frames, tuple(expressions))


def _entries(place: str, expressions: dict[str, Any] | list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(expressions, dict):
        pairs: list[tuple[Any, Any]] = list(expressions.items())
    else:
        pairs = [(entry.get("exp_id") if isinstance(entry, dict) else None, entry) for entry in expressions]
    for exp_id, entry in pairs:
        if not isinstance(entry, dict) or type(exp_id) not in (str, int):
            raise DataError(f"{place}: expression {exp_id!r} is not an object with an id; take this file again")
        yield str(exp_id), entry


def _by_is_sent(where: str, entry: dict[str, Any], video: dict[str, Any]) -> str:
    is_sent = entry.get("is_sent", video.get("is_sent"))
    if is_sent is None:
        return ""
    if not isinstance(is_sent, int) or is_sent not in (0, 1):
        raise DataError(f'{where}: "is_sent" is {is_sent!r}; wanted is true or false')
    return "sentence" if is_sent else "phrase"


def _object_ids(where: str, entry: dict[str, Any], ids_key: str, type_id: int | None) -> tuple[str, ...]:
    """Ids as strings, each once. Only ReVOS's expressions without target (type_id 2) may have none."""
    if type_id == 2:
        return ()
    value = entry.get(ids_key)
    values = value if isinstance(value, list) else [value]
    if any(type(item) not in (str, int) for item in values):
        raise DataError(f'{where}: its "{ids_key}" is {value!r}; wanted an object id or a list of them')
    if not values:
        raise DataError(f'{where}: names no object ("{ids_key}" is empty)')
    return tuple(dict.fromkeys(str(item) for item in values))


def _frame_names(place: str, content: dict[str, Any]) -> tuple[str, ...] | None:
    frames = content.get("frames")
    if frames is None:
        return None
    if not isinstance(frames, list) or not frames or any(type(name) not in (str, int) for name in frames):
        raise DataError(f'{place}: its "frames" must be a list of names that is not empty; take this file again')
    return tuple(without_ending(str(name), JPEG_ENDINGS) for name in frames)
