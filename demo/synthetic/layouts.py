"""Demo videos on disk in the layouts of the six datasets, as released: one writer a dataset.

Each writer takes the dataset's folder root and its splits; it writes frames and masks of one clip after the other.
Every expression entry has an extra key "kind", which the released files do not have.
"""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glus.data_pipeline.raw.masks import encode
from glus.data_pipeline.raw.records import Rle
from glus.demo.synthetic.world import DemoExpression, DemoVideo

#: Full colour resolution: with the usual halved chroma small objects would lose their colour at the edges.
JPEG_SETTINGS = (
    *(cv2.IMWRITE_JPEG_QUALITY, 95),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)


@dataclass(frozen=True, eq=False)
class DemoClip:
    """A demo video as a dataset names it: its folder, its frames ("00005"), and the expressions it takes."""

    name: str
    frame_names: tuple[str, ...]
    video: DemoVideo
    expressions: tuple[DemoExpression, ...]


Splits = Mapping[str, Iterable[DemoClip]]


def write_mevis(root: Path, splits: Splits) -> None:
    """mevis/{train,valid_u,valid}: annotations counted over the split; valid hides objects and masks."""
    _write_mevis(root / "mevis", splits, hidden=("valid",))


def write_twins(root: Path, splits: Splits) -> None:
    """demo_twins/valid, in MeViS's layout, nothing hidden."""
    _write_mevis(root / "demo_twins", splits, hidden=())


def _write_mevis(root: Path, splits: Splits, hidden: Container[str]) -> None:
    for split, clips in splits.items():
        folder, hides = root / split, split in hidden
        videos: dict[str, Any] = {}
        masks: dict[str, list[Rle | None]] = {}
        for clip in clips:
            _write_frames(folder / "JPEGImages", clip)
            annotations = {} if hides else _add_annotations(masks, clip)
            entries = [_entry(e, hides, annotations) for e in clip.expressions]
            videos[clip.name] = {"vid_id": len(videos), **_video(clip, entries)}
        _write_json(folder / "meta_expressions.json", {"videos": videos})
        if not hides:
            _write_json(folder / "mask_dict.json", masks)


def write_refer_youtube_vos(root: Path, splits: Splits) -> None:
    """Refer-YouTube-VOS: indexed PNG for train; valid has neither annotations nor object ids."""
    for split, clips in splits.items():
        videos, hidden = {}, split == "valid"
        for clip in clips:
            _write_frames(root / "Refer-YouTube-VOS" / split / "JPEGImages", clip)
            if not hidden:
                _write_indexed(root / "Refer-YouTube-VOS" / split / "Annotations", clip)
            videos[clip.name] = _video(clip, [_entry_of_one(e, hidden) for e in clip.expressions])
        _write_json(root / "Refer-YouTube-VOS/meta_expressions" / split / "meta_expressions.json", {"videos": videos})


def write_davis17(root: Path, splits: Splits) -> None:
    """DAVIS17 (Ref-DAVIS17): indexed PNG and object ids in both splits."""
    for split, clips in splits.items():
        videos = {}
        for clip in clips:
            _write_frames(root / "DAVIS17" / split / "JPEGImages", clip)
            _write_indexed(root / "DAVIS17" / split / "Annotations", clip)
            videos[clip.name] = _video(clip, [_entry_of_one(e, hidden=False) for e in clip.expressions])
        _write_json(root / "DAVIS17/meta_expressions" / split / "meta_expressions.json", {"videos": videos})


def write_lvvis(root: Path, splits: Splits) -> None:
    """LVVIS: frames below train/, both files above it, as GLUS's loader wants them."""
    for split, clips in splits.items():
        videos: dict[str, Any] = {}
        masks: dict[str, list[Rle | None]] = {}
        for clip in clips:
            _write_frames(root / "LVVIS" / split / "JPEGImages", clip)
            annotations = _add_annotations(masks, clip)
            videos[clip.name] = _video(clip, [_entry(e, False, annotations) for e in clip.expressions])
        _write_json(root / "LVVIS/meta_expressions.json", {"videos": videos})
        _write_json(root / "LVVIS/mask_dict.json", masks)


def write_revos(root: Path, splits: Splits) -> None:
    """ReVOS: all splits share frames and mask files. type_id 0 refers, 1 reasons, 2 has no target.

    A foreground entry is one code for a video of one object, else one code an object ("several planes").
    """
    folder = root / "ReVOS"
    masks: dict[str, list[Rle | None]] = {}
    foreground: dict[str, dict[str, list[Any]]] = {}
    for split, clips in splits.items():
        videos: dict[str, Any] = {}
        for clip in clips:
            _write_frames(folder / "JPEGImages", clip)
            annotations = _add_annotations(masks, clip)
            planes = [[encode(mask[t]) for mask in clip.video.masks.values()] for t in range(len(clip.frame_names))]
            foreground[clip.name] = {"masks_rle": [codes if len(codes) > 1 else codes[0] for codes in planes]}
            entries = [_entry(e, False, annotations) | {"type_id": _type_id(e)} for e in clip.expressions]
            height, width = clip.video.frames.shape[1:3]
            size = {"height": height, "width": width}
            videos[clip.name] = {"vid_id": len(videos), **size, **_video(clip, entries)}
        _write_json(folder / f"meta_expressions_{split}_.json", {"videos": videos})
    _write_json(folder / "mask_dict.json", masks)
    _write_json(folder / "mask_dict_foreground.json", foreground)


def write_reasonvos(root: Path, splits: Splits) -> None:
    """ReasonVOS: one split; expressions in a list; Annotations/SOURCE_VIDEO_OBJ/FRAME.png in plain grey, 0 and 255."""
    folder, source = root / "ReasonVOS", "demo"
    videos = {}
    for clips in splits.values():
        for clip in clips:
            _write_frames(folder / "JPEGImages", clip)
            for object_id, mask in clip.video.masks.items():
                below = folder / "Annotations" / f"{source}_{clip.name}_{object_id}"
                below.mkdir(parents=True)
                for frame_name, plane in zip(clip.frame_names, mask, strict=True):
                    Image.fromarray(plane.astype(np.uint8) * 255).save(below / f"{frame_name}.png")
            entries = [
                {
                    "obj_id": e.object_ids[0],
                    "exp_id": number,
                    "exp_text": e.text,
                    "is_sent": int(len(e.text.split()) > 4),
                    "kind": e.kind,
                }
                for number, e in enumerate(clip.expressions)
            ]
            videos[clip.name] = {"source": source, "frames": list(clip.frame_names), "expressions": entries}
    _write_json(folder / "meta_expressions.json", {"videos": videos})


def _video(clip: DemoClip, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "expressions": {str(number): entry for number, entry in enumerate(entries)},
        "frames": list(clip.frame_names),
    }


def _entry(expression: DemoExpression, hidden: bool, annotations: Mapping[int, int]) -> dict[str, Any]:
    """MeViS's form: lists of integers."""
    entry: dict[str, Any] = {"exp": expression.text, "kind": expression.kind}
    if not hidden:
        entry["obj_id"] = list(expression.object_ids)
        entry["anno_id"] = [annotations[object_id] for object_id in expression.object_ids]
    return entry


def _entry_of_one(expression: DemoExpression, hidden: bool) -> dict[str, Any]:
    """Refer-YouTube-VOS's form: one object id, a string."""
    (object_id,) = expression.object_ids
    return {"exp": expression.text, "kind": expression.kind} | ({} if hidden else {"obj_id": str(object_id)})


def _type_id(expression: DemoExpression) -> int:
    if not expression.object_ids:
        return 2
    return int(expression.reasoning)


def _add_annotations(masks: dict[str, list[Rle | None]], clip: DemoClip) -> dict[int, int]:
    """Add the clip's masks under the next annotation ids. Returns object id -> annotation id."""
    annotations = {}
    for object_id, mask in clip.video.masks.items():
        annotations[object_id] = len(masks)
        masks[str(len(masks))] = [encode(plane) if plane.any() else None for plane in mask]
    return annotations


def _write_frames(images: Path, clip: DemoClip) -> None:
    folder = images / clip.name
    folder.mkdir(parents=True)
    for frame_name, frame in zip(clip.frame_names, clip.video.frames, strict=True):
        write_jpeg(folder / f"{frame_name}.jpg", frame)


def write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture, uint8 [H, W, 3] RGB, into a folder that is there."""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), JPEG_SETTINGS)
    path.write_bytes(jpeg.tobytes())


def _write_indexed(annotations: Path, clip: DemoClip) -> None:
    """One indexed PNG a frame, its values the object ids, in the colours of DAVIS."""
    folder = annotations / clip.name
    folder.mkdir(parents=True)
    labels = np.zeros(clip.video.frames.shape[:3], dtype=np.uint8)
    for object_id, mask in clip.video.masks.items():
        labels[mask] = object_id
    palette = _palette().tobytes()
    for frame_name, plane in zip(clip.frame_names, labels, strict=True):
        picture = Image.fromarray(plane)
        picture.putpalette(palette)
        picture.save(folder / f"{frame_name}.png")


def _palette() -> NDArray[np.uint8]:
    """The colours of PASCAL VOC and DAVIS, uint8 [256, 3]: the bits of the index, dealt to red, green and blue."""
    index = np.arange(256)[:, None] >> np.array([0, 1, 2])
    colours = sum(((index >> (3 * bit)) & 1) << (7 - bit) for bit in range(3))
    return np.asarray(colours, dtype=np.uint8)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
