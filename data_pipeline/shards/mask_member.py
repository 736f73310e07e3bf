"""masks.json of a shard: the codes of a video's objects, and of the pixels that nobody annotated (VOID_KEY)."""

import orjson

from glus.common.errors import DataError
from glus.data_pipeline.raw.masks import check_code
from glus.data_pipeline.raw.records import Rle
from glus.data_pipeline.shards.index import VideoEntry


def read_codes(content: bytes, entry: VideoEntry, where: str) -> dict[str, list[Rle | None]]:
    """The content of masks.json. Raises DataError where it has another form: then the shard is not one of ours."""
    try:
        masks: dict[str, list[Rle | None]] = orjson.loads(content)
        for codes in masks.values():
            if len(codes) != len(entry.frame_names):
                raise ValueError(f"{len(codes)} masks for {len(entry.frame_names)} frames")
            for code in codes:
                if code is not None:
                    check_code(code, entry.height, entry.width)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: the masks of video {entry.video} are damaged ({error}); run `glus prepare` again",
            file=where,
            video=entry.video,
        ) from error
    return masks
