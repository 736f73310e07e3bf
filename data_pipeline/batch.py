"""Batch: what a micro-batch holds. The one place where its shapes are written down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glus.data_pipeline.errors import DataError
from glus.data_pipeline.prompts import conversation, templates_named, tokenize_conversation
from glus.data_pipeline.reader import Empty
from glus.data_pipeline.sampling import SamplePlan, Slot
from glus.data_pipeline.tokenizer import IGNORED_LABEL, IMAGE_TOKEN_ID, Tokenizer


@dataclass(frozen=True)
class Batch:
    """V videos with E expressions in all, F frames given of each (context first, then query), Q of them query frames.

    frames: V x uint8 [F', 3, H, W], each distinct frame once, at its own size (sizes differ between videos), with the
    colours of a pixel side by side in memory;
    context: int64 [V, C] and query: int64 [V, Q], indices into the video's frames;
    query_numbers: int64 [V, Q], which frames of the whole video the query frames are;
    video_of: int64 [E], ascending; ids, labels: int64 [E, L], padded, -200 a frame and -100 no label;
    attention: bool [E, L];
    masks: V x bool [E_v, Q, H, W], the union of each expression's objects;
    video_key: int64 [E], which video of all the data; objects: bool [E, O], its object set, as columns of that video;
    names: E x "dataset/split/video/expression", for messages.
    """

    frames: list[Tensor]
    context: Tensor
    query: Tensor
    query_numbers: Tensor
    video_of: Tensor
    ids: Tensor
    labels: Tensor
    attention: Tensor
    masks: list[Tensor]
    video_key: Tensor
    objects: Tensor
    names: list[str]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device (asynchronously from pinned memory)."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory; torch's DataLoader calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def changed(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            return [changed(each) for each in value] if isinstance(value, list) else value

        return replace(self, **{each.name: changed(getattr(self, each.name)) for each in fields(self)})


def padded_ids(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids int64 [E, L] of rows of unlike lengths, filled up at the end, and where they are real, bool [E, L]."""
    lengths = np.array([len(row) for row in rows])
    ids = np.full((len(rows), int(lengths.max())), pad, dtype=np.int64)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(ids), torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])


def collate(
    plan: SamplePlan, slots: Sequence[Slot], tokenizer: Tokenizer, max_text_tokens: int = 512, empty: Empty = np.empty
) -> Batch:
    """Read the frames and masks of `slots` and tokenize their expressions.

    Raises DataError from the reader, and for an expression that does not leave one [SEG] for each query frame.
    Token ids beyond `max_text_tokens` (frames counted as one) are cut off as in the reference. `empty` gives the memory
    of frames and masks.
    """
    frames, context, query, masks = [], [], [], []
    ids, labels, video_of, video_key, objects, names = [], [], [], [], [], []
    words = templates_named(plan.config.prompts)
    widest = max(len(plan.splits[slot.split].videos[slot.video].object_ids) for slot in slots)
    for number, slot in enumerate(slots):
        split = plan.splits[slot.split]
        entry = split.videos[slot.video]
        distinct = sorted({*slot.context, *slot.query})
        place = {frame: index for index, frame in enumerate(distinct)}
        pictures = split.read_frames(slot.video, distinct, empty)
        # A view: the colours stay where the decoder put them, and are moved on the model's device when they are scaled.
        frames.append(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        context.append([place[frame] for frame in slot.context])
        query.append([place[frame] for frame in slot.query])
        for expression, templates in zip(slot.expressions, slot.templates, strict=True):
            said = entry.expressions[expression]
            name = f"{entry.dataset}/{entry.split}/{entry.video}/{said.id}"
            text = tokenize_conversation(tokenizer, conversation(said.text, len(slot.context), templates, words))
            ids.append(text.ids[:max_text_tokens])
            labels.append(text.labels[:max_text_tokens])
            # The model gives the n-th frame the n-th <image>, and the n-th [SEG] to the n-th query frame.
            held = (ids[-1].count(IMAGE_TOKEN_ID), ids[-1].count(tokenizer.seg_id))
            if held != (len(slot.context) + len(slot.query), len(slot.query)):
                raise DataError(
                    f"{name}: {said.text!r} has an <image> of its own or is too long for {max_text_tokens} tokens with "
                    f"{len(slot.query)} query frames; change it in the annotations and prepare again"
                )
            video_of.append(number)
            video_key.append(slot.split * 2**32 + slot.video)
            objects.append(
                [
                    column < len(entry.object_ids) and entry.object_ids[column] in said.object_ids
                    for column in range(widest)
                ]
            )
            names.append(name)
        said_here = [entry.expressions[expression] for expression in slot.expressions]
        masks.append(torch.from_numpy(split.read_targets(slot.video, said_here, slot.query, empty)))
    padded, attention = padded_ids(ids, tokenizer.pad_id)
    return Batch(
        frames=frames,
        context=torch.tensor(context, dtype=torch.int64),  # an empty list has no dtype of its own
        query=torch.tensor(query),
        query_numbers=torch.tensor([slot.query for slot in slots]),
        video_of=torch.tensor(video_of),
        ids=padded,
        labels=padded_ids(labels, IGNORED_LABEL)[0],
        attention=attention,
        masks=masks,
        video_key=torch.tensor(video_key),
        objects=torch.tensor(objects),
        names=names,
    )
