"""`glus data stats` and `glus data show`: what shards hold, and what the trainer will see of them."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from glus.common.errors import DataError
from glus.common.paths import PathText
from glus.common.progress import progress
from glus.common.terminal import cells
from glus.data_pipeline.inspect.contact_sheet import draw_slot, write_sheets
from glus.data_pipeline.inspect.statistics import Quantiles, SplitStatistics, split_statistics
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig
from glus.data_pipeline.shards.reader import open_splits
from glus.data_pipeline.shards.storage import Storage

ACTIONS = ("stats", "show")


@dataclass(frozen=True)
class DataConfig:
    """Settings of `glus data stats` and `glus data show`."""

    action: list[str]
    """stats: counts, distributions, partners. show: a contact sheet of slots as the trainer will get them."""
    shards: PathText
    """Folder or URL of the shards of `glus prepare`."""
    splits: list[str] = field(default_factory=list)
    """Names such as mevis/train; none for all."""
    masks: bool = True
    """stats: read all masks too, for their areas. Without, the index alone is read."""
    out: Path | None = None
    """stats: also write the statistics as JSON there. show: the picture (default contact_sheet.png)."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """show: as in a training config. An empty mixture takes the splits alike."""
    seed: int = 0
    """show: the run's seed."""
    step: int = 0
    """show: the step whose first slots are drawn."""
    slots: int = 4
    """show: how many."""


def data(config: DataConfig) -> None:
    """Print statistics, or write a contact sheet. Raises DataError."""
    if len(config.action) != 1 or config.action[0] not in ACTIONS:
        raise DataError(f"glus data {' '.join(config.action)}: say one of {', '.join(ACTIONS)}")
    if config.action == ["stats"]:
        stats(config)
    else:
        show(config)


def stats(config: DataConfig) -> list[SplitStatistics]:
    """Print a table of statistics, a column a split, and return them. Raises DataError."""
    splits = open_splits(config.shards, config.splits or None)
    found = [split_statistics(split, config.masks) for split in progress(splits, desc="data stats", unit="split")]
    table = Table("")
    for name in cells(each.name for each in found):
        table.add_column(name)
    for label, values in _rows(found):
        table.add_row(*cells((label, *values)))
    # As wide as it must be where the output is no terminal.
    console = Console()
    Console(width=None if console.is_terminal else 60 + 60 * len(found)).print(table)
    if config.out:
        content = json.dumps([asdict(each) for each in found], indent=1) + "\n"
        Storage.at(config.out.absolute().parent).write(config.out.name, content.encode())
    return found


def _rows(found: list[SplitStatistics]) -> list[tuple[str, list[str]]]:
    names = {
        "frames_a_video": "frames a video",
        "expressions_a_video": "expressions a video",
        "expressions_an_object_set": "expressions an object set",
        "objects_an_expression": "objects an expression",
        "words_an_expression": "words an expression",
        "mask_area": "mask area, % of its frame",
    }
    rows = [(name, [f"{asdict(each.counts)[name]:,}" for each in found]) for name in asdict(found[0].counts)]
    rows.append(("videos left out (quarantine)", [f"{each.left_out:,}" for each in found]))
    rows.append(("expressions without known target", [f"{each.without_target:,}" for each in found]))
    rows.append(("kinds", [", ".join(f"{kind} {count}" for kind, count in each.kinds.items()) for each in found]))
    for name, label in names.items():
        rows.append((label, [_cell(getattr(each, name), 100 if name == "mask_area" else 1) for each in found]))
    rows.append(("frames where an object is not seen", [_share(each.frames_unseen) for each in found]))
    rows.append(("expressions with a partner (same objects)", [_share(each.with_partner) for each in found]))
    rows.append(("videos with partners", [_share(each.videos_with_partners) for each in found]))
    complete = [_share(each.videos_with_partners_and_rival) for each in found]
    return [*rows, ("videos with partners and a rival", complete)]


def _cell(found: Quantiles | None, factor: int) -> str:
    if found is None:
        return "not read"
    low, lower, median, upper, high, mean = (f"{factor * each:.3g}" for each in asdict(found).values())
    return f"{median} ({lower} to {upper}; {low} to {high}; mean {mean})"


def _share(share: float | None) -> str:
    return "not read" if share is None else f"{100 * share:.2f} %"


def show(config: DataConfig) -> Path:
    """Write the contact sheet of a step's first slots and return its place. Raises DataError."""
    names = config.splits or list(config.sampling.mixture)
    splits = open_splits(config.shards, names or None)
    sampling = config.sampling
    if not sampling.mixture:
        sampling = replace(sampling, mixture={f"{split.dataset}/{split.split}": 1.0 for split in splits})
    if config.slots < 1 or config.step < 0 or config.seed < 0:
        raise DataError("slots must be 1 or more, seed and step 0 or more")
    plan = SamplePlan(splits, sampling, config.seed, config.slots)
    drawn = [
        draw_slot(plan, slot, f"step {config.step}, slot {number}")
        for number, slot in enumerate(plan.global_batch(config.step))
    ]
    place = write_sheets(drawn, config.out or Path("contact_sheet.png"))
    print(f"contact sheet of {len(drawn)} slots: {place}")
    return place
