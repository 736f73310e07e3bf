"""`model.method: pretraining`: a GLUS that starts from nothing, trained in stages, each of which is a config."""

from typing import Protocol

import torch
from torch import Tensor

from glus.common.errors import ModelError
from glus.model.glus import BatchLike, Glus, GlusOutput
from glus.model.model_config import ModelConfig
from glus.model.pretraining.stand_ins import LabelledBatch, StandIns, point_prompts
from glus.model.prompt_rows import Reading


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
        order = torch.cat([batch.context, batch.query], dim=1)
        frames = [each[index] for each, index in zip(batch.frames, order, strict=True)]
        losses: dict[str, Tensor] = {}
        states = torch.zeros(len(batch.ids), query, config.prompt_width, device=batch.frames[0].device)
        # Each module runs once: ZeRO-3 reduces the gradient of a parameter once for each forward.
        if self.reads or given.language or given.tower:
            patches = self.language.frame_patches(frames).unflatten(0, (videos, context + query))
        if given.tower:
            losses["words_of_tower"] = given.tower * self.stand_ins.tower_loss(patches[:, context:], batch)
        if self.reads or given.language:
            tokens = self.language.project(patches.flatten(0, 1)).unflatten(0, (videos, context + query))
            reading, inside = self._read(batch, tokens)
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
            losses |= self._mask_losses(batch, [each[context:] for each in frames], prompts)
        return GlusOutput(losses, states)

    def _read(self, batch: PretrainingBatch, tokens: Tensor) -> tuple[Reading, Tensor]:
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
