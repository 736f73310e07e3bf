"""LV-VIS (Wang et al. 2023): category names as expressions, in the converted form of VISA and GLUS or the official one.

Converted: meta_expressions.json and mask_dict.json. Official: train_instances.json (YouTube-VIS 2019 form); there a
category's name is the expression for all its instances in a video. Either lies in LVVIS/ or in LVVIS/train/.
"""

from pathlib import Path
from typing import Any

from glus.common.errors import DataError
from glus.data_pipeline.raw.annotated_split import AnnotatedSplit, read_entries
from glus.data_pipeline.raw.annotation_file import open_members, read_annotation
from glus.data_pipeline.raw.mask_sources import RleTable

SPLITS = ("train",)


def annotation_file(root: Path, split: str) -> Path:
    """The converted file where there is one, else the official one, else where the converted one should be."""
    folder = root / "LVVIS"
    names = ("meta_expressions.json", f"{split}_instances.json")
    places = [place / name for name in names for place in (folder, folder / split)]
    return next((path for path in places if path.is_file()), places[0])


def read(root: Path, split: str) -> AnnotatedSplit:
    """Raises DataError."""
    annotation = annotation_file(root, split)
    files: tuple[Path, ...]
    if annotation.name == "meta_expressions.json":
        entries, table = read_entries(annotation), annotation.with_name("mask_dict.json")
        masks, files = RleTable(table, lambda: open_members(table)), (annotation, table)
    else:
        entries, codes = _from_instances(annotation)
        masks, files = RleTable(annotation, lambda: codes), (annotation,)
    return AnnotatedSplit(
        dataset="lv_vis",
        split=split,
        annotation=annotation,
        entries=entries,
        ids_key="anno_id",
        images=root / "LVVIS" / split / "JPEGImages",
        masks=masks,
        files=files,
    )


def _from_instances(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The official file in the converted form: entries of "videos", and codes by annotation id."""
    content = read_annotation(path)
    try:
        categories = {category["id"]: category["name"] for category in content["categories"]}
        names: dict[int, str] = {}
        entries: dict[str, Any] = {}
        for video in content["videos"]:
            # file_names are VIDEO/FRAME.jpg
            folders = {name.rpartition("/")[0] for name in video["file_names"]}
            if len(folders) != 1:
                raise DataError(f"{path}: frames of video {video['id']} lie in {len(folders)} folders", file=str(path))
            names[video["id"]] = folders.pop()
            frames = [name.rpartition("/")[2] for name in video["file_names"]]
            entries[names[video["id"]]] = {"frames": frames, "expressions": {}}
        if not len(entries) == len(names) == len(content["videos"]):
            raise DataError(f"{path}: lists a video twice; take this file again", file=str(path))
        codes = {}
        targets: dict[str, dict[int, list[str]]] = {name: {} for name in entries}
        for annotation in content["annotations"]:
            if str(annotation["id"]) in codes:
                raise DataError(f"{path}: two annotations have the id {annotation['id']}; take this file again")
            codes[str(annotation["id"])] = annotation["segmentations"]
            instances = targets[names[annotation["video_id"]]].setdefault(annotation["category_id"], [])
            instances.append(str(annotation["id"]))
        for name, by_category in targets.items():
            for number, category in enumerate(sorted(by_category)):
                expression = {"exp": categories[category], "anno_id": by_category[category]}
                entries[name]["expressions"][str(number)] = expression
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not in the form of YouTube-VIS 2019 ({error!r}); take this file again", file=str(path)
        ) from error
    return entries, codes
