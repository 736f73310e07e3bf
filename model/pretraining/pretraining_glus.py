"""`model.method: pretraining`: a GLUS that starts from nothing, trained in stages, each of which is a config.

Its losses stand in for what CLIP, LLaVA and SAM 2 bring, learned from the same data. Such a GLUS learns neither to see
motion nor to prefer one of two look-alike objects by its mask losses alone. It does when patches of the vision tower
first name attributes of their object, then tokens inside the language model, and when [SEG] names a place before it
paints (docs/study.md). No part of the reference: all weights are 0 by default.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.model.glus import BatchLike, Glus, GlusOutput, given_frames
from glus.model.language.prompt_rows import Reading
from glus.model.losses import MasksLike
from glus.model.model_config import ModelConfig
from glus.model.segmenter import Segmenter

#: Least share of a patch that an object must cover to be named by it.
COVERED = 0.12
#: Weight of patches without object against those with one.
EMPTY_WEIGHT = 0.25


class LabelledBatch(Protocol):
    """The fields of a batch that the losses read. Shapes: data_pipeline/batches/batch.py."""

    @property
    def object_masks(self) -> Sequence[MasksLike]: ...
    @property
    def attributes(self) -> Sequence[Tensor]: ...


class StandIns(nn.Module):
    """Heads of these losses. They are not exported, and prediction does not use them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        given = config.stand_ins
        # One class more in each group: no object.
        self.groups = [words + 1 for words in given.attributes]
        if self.groups:
            self.tower = nn.Linear(config.vision.hidden_size, sum(self.groups))
            self.language = nn.Linear(config.language.hidden_size, sum(self.groups))
        if given.place_cells:
            self.place = nn.Linear(config.prompt_width, given.place_cells**2)
        self.cells, self.language_groups = given.place_cells, given.language_groups

    def place_loss(self, states: Tensor, masks: Sequence[MasksLike]) -> Tensor:
        """Cross-entropy of the cells that an object covers, by their share; frames without it count for nothing.

        states: [SEG] states float [E, Q, C]; masks: those of each video, bool [E_v, Q, H, W], in order.
        """
        shares = torch.cat([cell_shares(each.painted(), self.cells) for each in masks]).flatten(2)
        total = shares.sum(-1, keepdim=True)
        target = shares / total.clamp(min=1e-9)
        logits = self.place(states).float()
        there = (total.squeeze(-1) > 0).float()
        loss = -(target * logits.log_softmax(-1)).sum(-1)
        return (loss * there).sum() / there.sum().clamp(min=1)

    def tower_loss(self, patches: Tensor, batch: LabelledBatch) -> Tensor:
        """Loss of patches of the vision tower, float [V, Q, P, hidden], by the attributes of their object."""
        return self._named(self.tower(patches), batch, ())

    def language_loss(self, tokens: Tensor, batch: LabelledBatch) -> Tensor:
        """Loss of tokens of frames inside the language model, float [V, Q, P, hidden], one a patch."""
        return self._named(self.language(tokens), batch, self.language_groups)

    def _named(self, logits: Tensor, batch: LabelledBatch, groups: Sequence[int]) -> Tensor:
        side = round(logits.shape[2] ** 0.5)
        labels = torch.stack(
            [patch_labels(m.painted(), a, side) for m, a in zip(batch.object_masks, batch.attributes, strict=True)]
        )
        losses = []
        for group, of_group in enumerate(logits.float().split(self.groups, dim=-1)):
            if groups and group not in groups:
                continue
            label = labels[..., group]
            empty, known = label == -2, label >= 0
            of_patch = F.cross_entropy(
                of_group.flatten(0, 2),
                torch.where(empty, self.groups[group] - 1, label).clamp(min=0).flatten(),
                reduction="none",
            ).view_as(label)
            for counted, weight in ((known, 1.0), (empty, EMPTY_WEIGHT)):
                losses.append(weight * (of_patch * counted).sum() / counted.sum().clamp(min=1))
        return torch.stack(losses).sum()


def point_prompts(segmenter: Segmenter, masks: Sequence[MasksLike], length: float) -> Tensor:
    """Prompts float [E, Q, C] that point at the middle of each object in its first query frame, zeros afterwards.

    length: factor on SAM's encoding of a point; masks: those of each video, bool [E_v, Q, H, W], in order.
    """
    position_encoding = segmenter.sam2.sam_prompt_encoder.pe_layer
    prompts = []
    for of_video in masks:
        painted = of_video.painted()
        first = painted[:, 0].float()
        height, width = first.shape[-2:]
        rows = (torch.arange(height, device=first.device) + 0.5) / height
        columns = (torch.arange(width, device=first.device) + 0.5) / width
        area = first.sum((1, 2)).clamp(min=1)
        points = torch.stack([(first.sum(1) @ columns) / area, (first.sum(2) @ rows) / area], dim=-1)
        encoded = length * position_encoding._pe_encoding(points)
        absent = first.sum((1, 2)) == 0
        encoded = encoded.masked_fill(absent[:, None], 0)
        rest = encoded.new_zeros(len(encoded), painted.shape[1] - 1, encoded.shape[-1])
        prompts.append(torch.cat([encoded[:, None], rest], dim=1))
    return torch.cat(prompts)


def without_later(prompts: Tensor, share: float) -> Tensor:
    """Prompts float [E, Q, C], zeros in `share` of the query frames after the first, drawn by torch's generator."""
    left_out = torch.rand(prompts.shape[:2], device=prompts.device) < share
    left_out[:, 0] = False
    return prompts.masked_fill(left_out[..., None], 0)


def cell_shares(masks: Tensor, side: int) -> Tensor:
    """The share of each of side x side cells that masks bool [N, Q, H, W] cover, float [N, Q, side, side]."""
    return F.adaptive_avg_pool2d(masks.float().flatten(0, 1)[:, None], side).view(*masks.shape[:2], side, side)


def patch_labels(masks: Tensor, attributes: Tensor, side: int) -> Tensor:
    """The word of the object that covers most of each patch, int64 [Q, P, G]; -1: unknown, -2: no object there.

    masks: bool [O, Q, H, W]; attributes: int64 [O, G].
    """
    cover, of = cell_shares(masks, side).flatten(2).max(0)
    return torch.where((cover > COVERED)[..., None], attributes[of], torch.where(cover[..., None] > 0, -1, -2))


class PretrainingBatch(BatchLike, LabelledBatch, Protocol):
    """The fields of a batch that `PretrainingGlus.forward` reads."""


class PretrainingGlus(Glus):
    """GLUS with further losses. A GLUS starts from its checkpoint without the heads of these (`stand_ins.*`)."""

    def __init__(self, config: ModelConfig, vocab_size: int, seg_id: int):
        """Raises ModelError where tokens of a frame are not its patches, or there is no such layer."""
        super().__init__(config, vocab_size, seg_id)
        given = config.stand_ins
        if given.language and config.vision.pool != 1:
            raise ModelError(
                f"model.vision.pool is {config.vision.pool}: with model.stand_ins.language a frame's tokens are its "
                "patches; set it to 1"
            )
        if given.language and given.language_layer > config.language.layers:
            raise ModelError(
                f"model.stand_ins.language_layer is {given.language_layer}, but the language model has "
                f"{config.language.layers} layers"
            )
        self.stand_ins = StandIns(config)

    @property
    def segments(self) -> bool:
        """Whether a step runs the segmenter: some loss on its masks has a weight."""
        return bool(self.config.loss.mask_bce or self.config.loss.mask_dice)

    @property
    def reads(self) -> bool:
        """Whether a step reads [SEG] states: some loss needs them."""
        loss, given = self.config.loss, self.config.stand_ins
        masks = self.segments and not given.points
        return bool(masks or loss.cross_entropy or loss.contrastive or given.place)

    def forward(self, batch: PretrainingBatch) -> GlusOutput:  # type: ignore[override]
        """Losses of one micro-batch. Parts that no loss of the config needs are not run.

        Raises ModelError for a batch without attributes where a loss needs them.
        """
        config, given = self.config, self.config.stand_ins
        if (given.tower or given.language) and not batch.attributes:
            raise ModelError("the batch has no attributes to learn from: set sampling.attributes")
        videos, context, query = len(batch.frames), batch.context.shape[1], batch.query.shape[1]
        frames = given_frames(batch)
        losses: dict[str, Tensor] = {}
        states = torch.zeros(len(batch.ids), query, config.prompt_width, device=batch.frames[0].device)
        # Each module runs once: ZeRO-3 reduces the gradient of a parameter once for each forward.
        if self.reads or given.language or given.tower:
            patches = self.language.frame_patches(frames).unflatten(0, (videos, context + query))
        if given.tower:
            losses["words_of_tower"] = given.tower * self.stand_ins.tower_loss(patches[:, context:], batch)
        if self.reads or given.language:
            tokens = self.language.project(patches.flatten(0, 1)).unflatten(0, (videos, context + query))
            reading, inside = self.read_inside(batch, tokens)
        if given.language:
            losses["words_of_language"] = given.language * self.stand_ins.language_loss(inside[:, context:], batch)
        if self.reads:
            hidden = reading.before(self.language.seg_id)
            states = self.language.seg_states(hidden)
        if config.loss.cross_entropy:
            losses["cross_entropy"] = self._cross_entropy(hidden)
        if given.place:
            losses["place"] = given.place * self.stand_ins.place_loss(states, batch.masks)
        if self.segments:
            prompts = point_prompts(self.segmenter, batch.masks, given.points) if given.points else states
            if given.unprompted and self.training:
                prompts = without_later(prompts, given.unprompted)
            losses |= self._mask_losses(batch, [each[context:] for each in frames], prompts)
        return GlusOutput(losses, states)

    def read_inside(self, batch: PretrainingBatch, tokens: Tensor) -> tuple[Reading, Tensor]:
        """Read all prompts, or the first of each video where no [SEG] is needed.

        tokens: float [V, F, P, hidden]. Returns the reading, and the states of the frames' tokens after
        `language_layer` layers in each video's first prompt: float [V, F, P, hidden]. What stands before a frame in
        its prompt is all that these see.
        """
        videos, video_of = torch.arange(len(tokens)), batch.video_of.cpu()
        first = torch.searchsorted(video_of, videos)
        rows = slice(None) if self.reads else first
        reading = self.language.read(
            batch.ids.cpu()[rows],
            batch.attention.cpu()[rows],
            tokens,
            video_of[rows],
            share=self.config.shares_beginnings,
            layer=self.config.stand_ins.language_layer,
        )
        return reading, reading.image_states(first if self.reads else videos, tokens.shape[2])
