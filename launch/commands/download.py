"""`glus download`: weights of the Hugging Face hub into the cache; for datasets, their pages and what is there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rich import box
from rich.console import Console
from rich.table import Table

from glus.common.errors import DataError, LaunchError
from glus.common.paths import PathText
from glus.common.terminal import cell, plain
from glus.data_pipeline.datasets.table import DATASETS, check_split, read_dataset
from glus.launch.config.configuration import load_config
from glus.model.released.hub import (
    HubId,
    Wanted,
    cache_folder,
    check_digests,
    check_room,
    fetch,
    hub_id,
    look_up,
    shown_size,
)

_REFER = "https://github.com/lichengunc/refer"
#: The official page of each dataset, where its files and its licence are. Nothing of it is downloaded by this code.
PAGES: Mapping[str, str] = MappingProxyType(
    {
        "mevis": "https://github.com/henghuiding/MeViS",
        "refer_youtube_vos": "https://youtube-vos.org/dataset/rvos/",
        "ref_davis17": "https://davischallenge.org/davis2017/code.html",
        "revos": "https://github.com/cilinyan/ReVOS-api",
        "lv_vis": "https://github.com/haochenheheda/LVVIS",
        "reason_vos": "https://github.com/showlab/VideoLISA",
        "youtube_vos": "https://youtube-vos.org/dataset/vos/",
        "reason_seg": "https://github.com/dvlab-research/LISA",
        **dict.fromkeys(("refcoco", "refcoco_plus", "refcocog", "refclef"), _REFER),
        "grefcoco": "https://github.com/henghuiding/gRefCOCO",
        "ade20k": "https://groups.csail.mit.edu/vision/datasets/ADE20K/",
        "coco_stuff": "https://github.com/nightrome/cocostuff",
        "paco_lvis": "https://github.com/facebookresearch/paco",
        "pascal_part": "https://github.com/facebookresearch/VLPart",
    }
)


@dataclass(frozen=True)
class DownloadConfig:
    """Which weights to fetch, and which datasets to look for."""

    weights: tuple[str, ...] = ()
    """Ids of the Hugging Face hub: org/name, or org/name@revision."""
    config: Path | None = None
    """Config file of `glus train`: what its `weights` names by an id is fetched."""
    datasets: tuple[str, ...] = ()
    """Datasets (docs/data_format.md): their official pages, and what of them is below `root`."""
    root: PathText = "."
    """The folder of all raw datasets."""


def download(config: DownloadConfig) -> None:
    """Print sizes, fetch, and print digests; then the datasets. Raises ModelError, DataError, InputError, LaunchError.

    What is complete stays when the command is stopped, and is not fetched again.
    """
    if not (config.weights or config.config or config.datasets):
        raise LaunchError("nothing to do: name ids (org/name), the config of a training, or datasets=[...]")
    for name in config.datasets:
        check_split(name, DATASETS[name].splits[0] if name in DATASETS else "")
    wanted = list(_wanted(config))
    folders = _fetch_all(wanted)
    given = {each.given.repo for each in wanted}
    towers = {HubId(_tower_for(folder)) for folder in folders} - {HubId("")}
    _fetch_all([look_up(each) for each in sorted(towers, key=str) if each.repo not in given])
    if config.datasets:
        _print_datasets(config)


def _wanted(config: DownloadConfig) -> Iterator[Wanted]:
    from glus.training.run_config import RunConfig

    for name in config.weights:
        given = hub_id(name)
        if given is None:
            raise LaunchError(f"{name} is a path here, or no id (org/name, org/name@revision): name a repository")
        yield look_up(given)
    if config.config is None:
        return
    for key, place in load_config(RunConfig, config.config, []).weights.named.items():
        given = hub_id(place)
        if given is not None:
            yield look_up(given, segmenter=key == "segmenter")
        elif Path(place).exists():
            print(plain(f"weights.{key}: {place} is there"))
        else:
            print(plain(f"weights.{key}: {place} is not there, and no id of the hub: docs/weights.md says where from"))


def _fetch_all(wanted: Sequence[Wanted]) -> list[Path]:
    """Print sizes, fetch, print digests. Returns the folders in the cache."""
    if not wanted:
        return []
    _print_sizes(wanted)
    # Together, before anything is fetched: two that fit alone may not fit both.
    check_room(wanted)
    folders = [fetch(each) for each in wanted]
    for each, folder in zip(wanted, folders, strict=True):
        digests = check_digests(each, folder)
        print(plain(f"{each.title}: {folder}"))
        for name, digest in digests.items():
            print(plain(f"  {digest}  {name}"))
        if not digests:
            print("  digests not compared: the hub cannot be reached")
    return folders


def _tower_for(folder: Path) -> str:
    """The hub's id of the vision tower that a released GLUS or VideoLISA comes without; "" for anything else."""
    from glus.model.released.release_methods import method_of
    from glus.training.hub_weights import missing_tower

    method = method_of(folder)
    return missing_tower(folder, method) if method else ""


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print_sizes(wanted: Sequence[Wanted]) -> None:
    table = _table("repository", "commit", "files", "size", "to download")
    for each in wanted:
        size = shown_size(sum(each.files.values()))
        row = (str(each.given), each.commit[:12], str(len(each.files)), size, shown_size(each.left))
        table.add_row(*map(cell, row))
    Console().print(table)
    print(plain(f"cache: {cache_folder()}"))


def _print_datasets(config: DownloadConfig) -> None:
    """A row for each split: its page, the file that should be there, and what is there."""
    print("Datasets are not downloaded: get them from their pages, under their licences (docs/data_format.md).")
    table = _table("split", "below root", "what is there")
    for name in config.datasets:
        print(plain(f"{name}: {PAGES[name]}"))
        for split in DATASETS[name].splits:
            place = DATASETS[name].annotation_file(Path(config.root), split)
            table.add_row(
                *map(cell, (f"{name}/{split}", str(place.relative_to(config.root)), _found(config, name, split)))
            )
    Console().print(table)


def _found(config: DownloadConfig, name: str, split: str) -> str:
    """Videos whose annotation can be read and whose frames are there, of a split; the message where it cannot be."""
    if not DATASETS[name].annotation_file(Path(config.root), split).exists():
        return "not there"
    try:
        found = read_dataset(name, Path(config.root), split)
        videos = found.videos()
        if videos:
            found.record(videos[0]).frames.read_bytes(0)
    except (DataError, OSError) as error:
        return f"cannot be read: {error}"
    return f"{len(videos)} videos, the first one can be read"
