"""`glus select-frames`: a key frame selector's scores of every frame, and each expression's best frame as a file."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from glus.common.errors import LaunchError
from glus.common.out_of_memory import memory_explained
from glus.common.paths import PathText
from glus.common.terminal import plain
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.evaluation.predict.asking import check_text
from glus.evaluation.predict.model_source import ModelSource
from glus.evaluation.predict.predictions import check_entries
from glus.evaluation.predict.provenance import claim, removed_where_unused
from glus.evaluation.predict.worklist import WorkItem, exclusive_out, share, work_list
from glus.evaluation.select.selection_folder import (
    KEPT,
    check_keys,
    folder_of,
    left_to_score,
    write_selection,
    write_video_scores,
)
from glus.evaluation.select.video_scores import check_selector, scores_of_video
from glus.launch.commands.score import chosen_splits
from glus.launch.commands.work_processes import open_model, processes_of_rank, wait_for_all, work_through
from glus.training.devices import Kind, choose_device, choose_precision, gpu_count
from glus.training.distributed import Rank

COMMAND = "glus select-frames"


@dataclass(frozen=True)
class SelectFramesConfig:
    """Which selector, for which splits, and where the key frames go."""

    checkpoint: Path
    """A key frame selector: a run folder (its latest checkpoint) or one checkpoint folder."""
    shards: PathText
    """Folder with the shards of `glus prepare`, or its URL."""
    out: Path
    """The file of key frames to write, FILE.json; all scores go to FILE.parquet, those of finished videos to
    FILE.scores/, from which the same command goes on."""
    splits: tuple[str, ...] = ()
    """Splits as DATASET/SPLIT; without any, those that `glus evaluate` takes."""
    processes: int = 0
    """Processes that score; 0 takes one a GPU, and without GPU one a core."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """What is computed on; auto refuses the CPU where there should be GPUs and torch sees none (docs/gpu.md)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 takes half the memory and less time on a GPU, and changes scores a little; auto takes it on GPUs."""
    expressions_together: int = 16
    """Expressions of one video that the language model reads at a time; its frames are encoded once for all of them."""
    fresh: bool = False
    """Remove the scores that an earlier selection left in FILE.scores/, and score again."""
    write: bool = True
    """Write the files when everything is scored; false only scores, one part of many of a job array."""
    wait_minutes: float = 60
    """Of several ranks, the first waits for the others' scores: how long nothing new may come before it gives up."""


@dataclass(frozen=True)
class Scoring:
    """Videos to score: `items` of the work list of the splits by one selector, into `folder`.

    `weights` is the selector's digest; `device` is the first GPU to use where `kind` is "cuda".
    """

    source: ModelSource
    splits: tuple[ShardedSplit, ...]
    folder: Path
    weights: str
    precision: Literal["bf16", "fp32"]
    together: int
    items: tuple[WorkItem, ...]
    device: int = 0
    kind: Kind = "cpu"
    verb: ClassVar[str] = "scores"
    label: ClassVar[str] = "score frames"

    def worker(self, index: int) -> Callable[[WorkItem], None]:
        """As `Work` says."""
        with self._memory_explained():
            loaded, device = open_model(self.source, self.kind, self.device + index, self.precision, quiet=index > 0)

        def done(item: WorkItem) -> None:
            split = self.splits[item.split]
            entry = split.videos[item.video]
            texts = [expression.text for expression in entry.expressions]
            with self._memory_explained():
                scores = scores_of_video(
                    loaded,
                    lambda frame: split.read_frames(item.video, [frame])[0],
                    len(entry.frame_names),
                    texts,
                    item.name,
                    self.together,
                    device,
                )
            write_video_scores(self.folder, split, entry, self.weights, scores)

        return done

    def _memory_explained(self) -> AbstractContextManager[None]:
        half = "" if self.precision == "bf16" else "precision=bf16, "
        advice = f"set {half}a smaller expressions_together (now {self.together}) or fewer processes"
        return memory_explained(f"scoring frames on {self.kind}", advice, LaunchError)


def select_frames(config: SelectFramesConfig) -> None:
    """Score all frames and write the key frames; skips videos whose scores are on disk.

    Under torchrun or srun each rank scores its share on its GPU; the first then waits for the others and writes.
    Raises TrainingError, DataError, EvaluationError or LaunchError, each with one clear message.
    """
    if config.expressions_together < 1:
        raise LaunchError(f"expressions_together={config.expressions_together}: give 1 or more")
    folder = folder_of(config.out)
    rank = Rank.from_environment()
    kind = choose_device(config.device, "device")
    rank.check_device(gpu_count(kind))
    precision = choose_precision(config.precision, kind)
    source = ModelSource.find(config.checkpoint)
    check_selector(source, "checkpoint")
    if source.notes and rank.rank == 0:
        print(plain("\n".join(source.notes)))
    splits = chosen_splits(config.shards, config.splits)
    check_entries(entry for split in splits for entry in split.videos)
    check_keys(splits)
    _check_texts(splits)
    items = work_list(splits)
    processes = processes_of_rank(config.processes, config.fresh, rank, len(items), kind)
    settings: dict[str, int | bool | str] = {
        "method": "selector",
        "prompts": source.sampling.prompts,
        "precision": precision,
        "expressions_together": config.expressions_together,
    }
    with exclusive_out(folder, rank.rank, rank.ranks, COMMAND):
        with removed_where_unused(folder, KEPT, (), rank.ranks):
            made = claim(folder, source, settings, splits, config.fresh, KEPT)
            mine = left_to_score(share(items, rank.rank, rank.ranks), splits, folder)
            asked = precision, config.expressions_together
            work = Scoring(source, tuple(splits), folder, made.weights, *asked, mine, rank.local, kind)
            work_through(work, processes)
        if rank.rank != 0 or not config.write:
            writer = "rank 0" if config.write else "the same with write=true"
            print(f"rank {rank.rank} of {rank.ranks}: {len(mine)} videos scored; {writer} writes the key frames")
            return
        wait_for_all(items, lambda those: left_to_score(those, splits, folder), config.wait_minutes, "scores")
        chosen = write_selection(config.out, splits, made.weights)
    print(f"key frames of {len(chosen)} expressions of {len(items)} videos")
    for place in (config.out, config.out.with_suffix(".parquet")):
        print(plain(f"written: {place}"))


def _check_texts(splits: list[ShardedSplit]) -> None:
    """Raise EvaluationError for an expression with nothing in it, before hours of scoring."""
    for split in splits:
        for entry in split.videos:
            for expression in entry.expressions:
                where = f"{split.dataset}/{split.split} video {entry.video} expression {expression.id}"
                check_text(expression.text, where)
