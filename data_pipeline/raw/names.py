"""Names of one video and of what it holds, checked before any of them is part of a path."""

from collections.abc import Iterable, Sequence

from glus.common.names import check_name, check_path, check_unique
from glus.data_pipeline.raw.records import Expression


def check_names(
    where: str, video: str, frames: Sequence[str], expressions: Sequence[Expression], objects: Iterable[str]
) -> None:
    """Raise InputError for a name that cannot be that of a file, and for two frames or expressions of one name.

    `where` is the file or split that they come from. A video may be named FOLDER/VIDEO, as some released ones are.
    """
    check_path(video, "video", where)
    place = f"{where}: video {video}"
    for name in frames:
        check_name(name, "frame", place)
    check_unique(frames, "frame", place)
    for expression in expressions:
        check_name(expression.id, "expression", place)
    check_unique([expression.id for expression in expressions], "expression", place)
    for name in objects:
        check_name(name, "object", place)
