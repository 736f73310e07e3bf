"""How many [SEG] tokens the contrastive loss has something to say about: our groups, and the reference's bank.

    python benchmarks/data_contrast.py ANNOTATION.json [steps=100]

Draws from a file of expressions alone (Refer-YouTube-VOS train, for one); no frames are needed. The bank is that of the
reference's utils/contrastive_loss.py and seg_token_bank.py: the last 512 tokens of a GPU with their frame's name; a
token counts where the bank holds one of another expression for the same objects on the same frame, and 128 others.
There it takes MeViS tokens only; here it takes all.
"""

import argparse
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glus.data_pipeline.raw.annotated_split import parse_video, read_entries
from glus.data_pipeline.sampling.sample_plan import SamplePlan, SamplingConfig, Slot
from glus.data_pipeline.shards.index import Counts, IndexedVideo, Manifest, VideoEntry
from glus.data_pipeline.shards.index_table import IndexBuilder, IndexTable, spans_from
from glus.data_pipeline.shards.reader import ShardedSplit
from glus.data_pipeline.shards.storage import Storage

#: The reference's training: GPUs, slots of a micro-batch, micro-batches of a step, tokens of a bank, its negatives.
GPUS, MICRO_BATCH, ACCUMULATION, BANK, NEGATIVES = 4, 2, 10, 512, 128
SPLIT = "refer_youtube_vos/train"


@dataclass(frozen=True)
class Shares:
    """Shares of [SEG] tokens."""

    contrasted: float
    within_video: float


def split_of(annotation: Path) -> ShardedSplit:
    """A split that can be drawn from but not read: expressions and frame names of a file, without shards."""
    dataset, split = SPLIT.split("/")
    videos = []
    for video, content in read_entries(annotation).items():
        parsed = parse_video(annotation, video, content, "obj_id")
        names = parsed.frame_names or ("00000",)
        objects = tuple(dict.fromkeys(each for said in parsed.expressions for each in said.object_ids))
        entry = VideoEntry(dataset, split, video, 720, 1280, names, parsed.expressions, objects)
        metadata, masks, *frames = spans_from(512, [1] * (2 + len(names)))
        videos.append(IndexedVideo(entry, "shard-00000.tar", video, metadata, masks, tuple(frames), 0))
    index = IndexBuilder()
    index.add(0, videos)
    content = index.to_bytes()
    counts = Counts.of(video.entry for video in videos)
    manifest = Manifest(dataset, split, counts, (), "", {}, ())
    table = IndexTable.open(content, dataset, split, ["shard-00000.tar"])
    return ShardedSplit(Storage.at("/nowhere"), manifest, table, content)


def tokens_of(split: ShardedSplit, slots: Sequence[Slot]) -> Iterator[tuple[int, frozenset[str]]]:
    """(video, object set) of each expression of a micro-batch."""
    for slot in slots:
        said = split.videos[slot.video].expressions
        yield from ((slot.video, said[number].object_set) for number in slot.expressions)


def contrasted(tokens: Iterable[tuple[object, frozenset[str]]]) -> tuple[int, int, int]:
    """Of the expressions of a micro-batch, each (video, object set): all, those with a partner and any rival, and

    those with a partner and a rival of their own video.
    """
    held = list(tokens)
    with_both = with_near = 0
    for video, objects in held:
        partner = sum(other == (video, objects) for other in held) > 1
        near = any(other_video == video and not other & objects for other_video, other in held)
        with_near += partner and near
        with_both += partner and (near or any(other_video != video for other_video, _ in held))
    return len(held), with_both, with_near


def our_shares(split: ShardedSplit, steps: int, expressions: int = 4, seed: int = 0) -> Shares:
    """Tokens with a partner and a rival in their micro-batch, and with a rival in their own video."""
    config = SamplingConfig(mixture={SPLIT: 1.0}, expressions=expressions)
    plan = SamplePlan([split], config, seed, GPUS * MICRO_BATCH * ACCUMULATION)
    everything = both = near = 0
    for step in range(steps):
        slots = plan.global_batch(step)
        for first in range(0, len(slots), MICRO_BATCH):
            found = contrasted(tokens_of(split, slots[first : first + MICRO_BATCH]))
            everything, both, near = everything + found[0], both + found[1], near + found[2]
    return Shares(both / everything, near / everything)


def bank_share(split: ShardedSplit, steps: int, seed: int = 0) -> float:
    """Tokens for which the reference's bank gives a loss, over the same number of steps of its own way to draw."""
    config = SamplingConfig(mixture={SPLIT: 1.0}, group_by_object=False, independent_draws=True)
    plan = SamplePlan([split], config, seed, GPUS * MICRO_BATCH * ACCUMULATION)
    banks: list[deque[tuple[int, int, frozenset[str], int]]] = [deque(maxlen=BANK) for _ in range(GPUS)]
    everything = counted = 0
    for step in range(steps):
        slots = plan.global_batch(step)
        for number, first in enumerate(range(0, len(slots), MICRO_BATCH)):
            bank, tokens = banks[number % GPUS], []
            for slot in slots[first : first + MICRO_BATCH]:
                said = split.videos[slot.video].expressions
                for expression in slot.expressions:
                    objects = said[expression].object_set
                    tokens += [(slot.video, expression, objects, frame) for frame in slot.query]
            bank.extend(tokens)
            for token in tokens:
                everything += 1
                counted += _has_loss(token, bank)
    return counted / everything


def _has_loss(token: tuple[int, int, frozenset[str], int], bank: deque[tuple[int, int, frozenset[str], int]]) -> bool:
    video, expression, objects, frame = token
    positives = sum(
        other[0] == video and other[3] == frame and other[1] != expression and other[2] == objects for other in bank
    )
    own = sum(other[0] == video and other[1] == expression for other in bank)
    return positives > 0 and len(bank) - positives - own >= NEGATIVES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("annotation", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    split = split_of(arguments.annotation)
    shares = {expressions: our_shares(split, arguments.steps, expressions) for expressions in (3, 4)}
    results = {
        "steps": arguments.steps,
        "contrasted, 4 expressions": shares[4].contrasted,
        "contrasted, 4 expressions, rival of the same video": shares[4].within_video,
        "contrasted, 3 expressions": shares[3].contrasted,
        "the reference's bank": bank_share(split, arguments.steps),
    }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
