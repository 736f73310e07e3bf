"""Batch: what a micro-batch holds. The one place where its shapes are written down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glus.common.errors import DataError
from glus.data_pipeline.batches.buffers import Buffers
from glus.data_pipeline.batches.conversations import templates_named
from glus.data_pipeline.batches.mask_runs import MaskRuns
from glus.data_pipeline.batches.tokenizer import IMAGE_TOKEN_ID, Tokenizer
from glus.data_pipeline.raw.masks import CodedPlanes, edges
from glus.data_pipeline.sampling.attributes import object_attributes, word_groups
from glus.data_pipeline.sampling.sample_plan import SamplePlan, Slot
from glus.data_pipeline.shards.reader import ShardedSplit, distinct_sets

#: Fields that `Batch.to` leaves where they are.
_ON_THE_CPU = (
    *("ids", "attention", "answer", "video_of"),
    *("query_numbers", "split", "video_key", "expression", "objects"),
)


@dataclass(frozen=True)
class Batch:
    """V videos with E expressions in all, F frames given of each (context first, then query), Q of them query frames.

    With sampling.frame_choice sparse_dense the context frames are the sparse ones, ascending and repeated where the
    video is short, and the query frames the dense ones, each one of the sparse frames.

    frames: V x uint8 [F', 3, H, W], each distinct frame once, at its own size (sizes differ between videos), with the
    colours of a pixel side by side in memory;
    context: int64 [V, C] and query: int64 [V, Q], indices into the video's frames;
    query_numbers: int64 [V, Q], which frames of the video the query frames are;
    video_of: int64 [E], ascending; ids: int64 [E, L], padded, -200 a frame (VideoLISA: one for all video tokens);
    attention: bool [E, L]; answer: bool [E, L], where the ids are labels of the cross-entropy, each predicted from the
    position before it (GLUS: [SEG]; VideoLISA: the complete answer and the mark of its end);
    masks: V x MaskRuns of bool [E_v, Q, H, W], the union of each expression's objects, and void;
    split: int64 [E], which split of the sample plan; video_key: int64 [E], which video of all splits; expression:
    int64 [E], its number in the video; objects: bool [E, O], its object set, as columns of that video;
    names: E x "dataset/split/video/expression", for messages;
    score: float [E, Q], J of each query frame, 0 to 1, by which the selector learns; None for other methods;
    object_masks: V x MaskRuns of bool [O_v, Q, H, W] and attributes: V x int64 [O_v, G], with sampling.attributes: all
    objects of a video, and the place of their word in each group, -1 where it is unknown; empty without.
    """

    frames: list[Tensor]
    context: Tensor
    query: Tensor
    query_numbers: Tensor
    video_of: Tensor
    ids: Tensor
    attention: Tensor
    answer: Tensor
    masks: list[MaskRuns]
    split: Tensor
    video_key: Tensor
    expression: Tensor
    objects: Tensor
    names: list[str]
    score: Tensor | None = None
    object_masks: list[MaskRuns] = field(default_factory=list)
    attributes: list[Tensor] = field(default_factory=list)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device (asynchronously from pinned memory), but for what is read on the CPU.

        ids, attention, answer and video_of stay there: the model lays out its rows by them. What identifies [SEG]
        states stays too: the contrastive loss finds its pairs by it.
        """
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory."""
        return self._each(lambda part: part.pin_memory())

    def _each(self, change: Callable[[Tensor | MaskRuns], Tensor | MaskRuns]) -> "Batch":
        def changed(value: Any) -> Any:
            if isinstance(value, Tensor | MaskRuns):
                return change(value)
            return [changed(each) for each in value] if isinstance(value, list) else value

        moved = [each.name for each in fields(self) if each.name not in _ON_THE_CPU]
        return replace(self, **{name: changed(getattr(self, name)) for name in moved})


def padded_ids(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids int64 [E, L] of rows of unlike lengths, filled up at the end, and where they are real, bool [E, L]."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, pad, dtype=np.int64)
    ids[real] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return torch.from_numpy(ids), torch.from_numpy(real)


@dataclass(frozen=True)
class Described:
    """A batch without its frames, and which these are: for each video its split, number and distinct frames."""

    batch: Batch
    wanted: list[tuple[ShardedSplit, int, list[int]]]

    def with_frames(self, buffers: Buffers) -> Batch:
        """Read the frames into memory of `buffers`. Raises DataError from the reader."""
        sizes = [(split.videos[video].height, split.videos[video].width) for split, video, _ in self.wanted]
        pictures = [buffers.empty((len(each[2]), *size, 3)) for each, size in zip(self.wanted, sizes, strict=True)]
        for (split, video, frames), into in zip(self.wanted, pictures, strict=True):
            split.read_frames(video, frames, into)
        # A view: the colours stay where the decoder put them, and are moved on the model's device when they are scaled.
        return replace(self.batch, frames=[torch.from_numpy(each).permute(0, 3, 1, 2) for each in pictures])


def describe(
    plan: SamplePlan, batches: Sequence[Sequence[Slot]], tokenizer: Tokenizer, max_text_tokens: int | None = None
) -> list[Described]:
    """All that is known of micro-batches of slots without decoding a frame: ids of their conversations, masks.

    Raises DataError from the reader, for an expression that does not leave one [SEG] for each round, and for a
    tokenizer without the tokens of `sampling.prompts`.
    Token ids beyond `max_text_tokens` (an <image> counted as one; without it, those of the prompts' reference) are cut
    off as in the reference.
    """
    masks = iter(_read_masks(plan, list(chain.from_iterable(batches))))
    return [_describe(plan, slots, list(islice(masks, len(slots))), tokenizer, max_text_tokens) for slots in batches]


def _read_masks(plan: SamplePlan, slots: Sequence[Slot]) -> list[MaskRuns]:
    coded, sets_of, coded_void = [], [], {}
    for slot in slots:
        split = plan.splits[slot.split]
        entry = split.videos[slot.video]
        sets, set_of = distinct_sets([entry.expressions[expression] for expression in slot.expressions])
        codes = split.read_target_codes(slot.video, sets, slot.query)
        coded.append(CodedPlanes(codes, entry.height, entry.width))
        sets_of.append(set_of)
        void = split.read_void_codes(slot.video, slot.query)
        if void is not None:
            coded_void[len(coded) - 1] = CodedPlanes([[code] for code in void], entry.height, entry.width)
    found = edges([*coded, *coded_void.values()])
    voids = {
        number: _runs(planes, len(slots[number].query), [0], ends)
        for (number, planes), ends in zip(coded_void.items(), found[len(coded) :], strict=True)
    }
    return [
        _runs(planes, len(slot.query), set_of, ends, voids.get(number))
        for number, (slot, set_of, planes, ends) in enumerate(
            zip(slots, sets_of, coded, found[: len(coded)], strict=True)
        )
    ]


def _runs(
    video: CodedPlanes,
    queries: int,
    set_of: Sequence[int],
    runs: tuple[NDArray[np.int64], NDArray[np.int64]],
    void: MaskRuns | None = None,
) -> MaskRuns:
    size = (len(video.planes) // queries, queries, video.height, video.width)
    begins, ends = (torch.from_numpy(each) for each in runs)
    return MaskRuns.between(begins, ends, torch.tensor(set_of), size, void)


def _objects(plan: SamplePlan, slots: Sequence[Slot]) -> tuple[list[MaskRuns], list[Tensor]]:
    """Masks of all objects of each slot's video in its query frames, and their attributes."""
    entries = [plan.splits[slot.split].videos[slot.video] for slot in slots]
    coded = []
    for slot, entry in zip(slots, entries, strict=True):
        each = [frozenset([object_id]) for object_id in entry.object_ids]
        codes = plan.splits[slot.split].read_target_codes(slot.video, each, slot.query)
        coded.append(CodedPlanes(codes, entry.height, entry.width))
    masks = [
        _runs(planes, len(slot.query), range(len(entry.object_ids)), ends)
        for slot, entry, planes, ends in zip(slots, entries, coded, edges(coded), strict=True)
    ]
    groups = word_groups(plan.config.attributes)
    said = [object_attributes(entry.expressions, entry.object_ids, groups) for entry in entries]
    return masks, [torch.from_numpy(each) for each in said]


def _describe(
    plan: SamplePlan, slots: Sequence[Slot], masks: list[MaskRuns], tokenizer: Tokenizer, max_text_tokens: int | None
) -> Described:
    wanted, context, query = [], [], []
    ids, answers, video_of, keys, objects, names = [], [], [], [], [], []
    scores: list[NDArray[np.float32]] = []
    words = templates_named(plan.config.prompts)
    tokenizer.check_has(words.tokens, plan.config.prompts)
    most = words.max_tokens if max_text_tokens is None else max_text_tokens
    widest = max(len(plan.splits[slot.split].videos[slot.video].object_ids) for slot in slots)
    for number, slot in enumerate(slots):
        split = plan.splits[slot.split]
        entry = split.videos[slot.video]
        distinct = sorted({*slot.context, *slot.query})
        place = {frame: index for index, frame in enumerate(distinct)}
        wanted.append((split, slot.video, distinct))
        context.append([place[frame] for frame in slot.context])
        query.append([place[frame] for frame in slot.query])
        # The model gives the n-th frame the n-th <image>, and the n-th [SEG] to the n-th query frame; or one to all.
        due = (words.images(len(slot.context), len(slot.query)), words.rounds(len(slot.query)))
        for expression, templates in zip(slot.expressions, slot.templates, strict=True):
            said = entry.expressions[expression]
            name = f"{entry.dataset}/{entry.split}/{entry.video}/{said.id}"
            conversation = words.say(said.text, said.kind, len(slot.context), templates)
            ids.append(tokenizer.encode(conversation.text)[:most])
            answers.append(_labels(ids[-1], conversation.asked, tokenizer))
            if (ids[-1].count(IMAGE_TOKEN_ID), ids[-1].count(tokenizer.seg_id)) != due:
                raise DataError(
                    f"{name}: {said.text!r} has an <image> of its own or is too long for {most} tokens with "
                    f"{len(slot.query)} query frames; change it in the annotations and prepare again"
                )
            video_of.append(number)
            keys.append((slot.split, slot.split * 2**32 + slot.video, expression))
            objects.append(
                [
                    column < len(entry.object_ids) and entry.object_ids[column] in said.object_ids
                    for column in range(widest)
                ]
            )
            names.append(name)
            if plan.labels:
                scores.append(plan.labels.splits[slot.split].of(slot.video, expression, slot.query))
    padded, attention = padded_ids(ids, tokenizer.pad_id)
    answer, _ = padded_ids(answers, 0)
    split_of, video_key, expression_of = torch.tensor(keys).unbind(1)
    object_masks, attributes = _objects(plan, slots) if plan.config.attributes else ([], [])
    batch = Batch(
        frames=[],
        context=torch.tensor(context, dtype=torch.int64),  # an empty list has no dtype of its own
        query=torch.tensor(query),
        query_numbers=torch.tensor([slot.query for slot in slots]),
        video_of=torch.tensor(video_of),
        ids=padded,
        attention=attention,
        answer=answer.bool(),
        masks=masks,
        split=split_of,
        video_key=video_key,
        expression=expression_of,
        objects=torch.tensor(objects),
        names=names,
        score=torch.from_numpy(np.stack(scores)) if scores else None,
        object_masks=object_masks,
        attributes=attributes,
    )
    return Described(batch, wanted)


def _labels(ids: Sequence[int], asked: str | None, tokenizer: Tokenizer) -> list[int]:
    """1 at the ids that are learnt: what follows the part that is asked, or [SEG] alone; 0 elsewhere."""
    if asked is None:
        return [int(each == tokenizer.seg_id) for each in ids]
    # An answer begins after a special token or with one: its beginning does not depend on what follows.
    begins = min(len(tokenizer.encode(asked)), len(ids))
    return [0] * begins + [1] * (len(ids) - begins)
