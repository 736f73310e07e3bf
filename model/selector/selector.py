"""The key frame selector: the language half of GLUS with a score of one frame instead of masks."""

from typing import Protocol

import torch
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.model.glus import BatchLike, GlusOutput
from glus.model.language.language import Language
from glus.model.losses import seg_cross_entropy
from glus.model.model_config import ModelConfig


class ScoredBatch(BatchLike, Protocol):
    """The fields of a batch that `Selector.forward` reads. Shapes: data_pipeline/batches/batch.py."""

    @property
    def score(self) -> Tensor | None: ...


class Selector(nn.Module):
    """GLUS's key frame selector (Lin et al., CVPR 2025). `vocab_size` and `seg_id` come from the tokenizer.

    `seg_id` is the id of [SCORE] too: a vocabulary has one answer token, and a GLUS starts it. Nothing of
    `model.segmenter` is built; its `hidden_dim` is the width of `text_hidden_fcs`, as in GLUS.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, seg_id: int):
        super().__init__()
        self.config = config
        self.language = Language(config, vocab_size, seg_id)
        self.score_head = nn.Sequential(nn.ReLU(), nn.Linear(config.prompt_width, 1))

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores float [...] of the states before [SCORE], float [..., hidden]; J of a perfect frame is 1.

        Nothing bounds them: the reference has no sigmoid.
        """
        return self._scores(self.language.seg_states(hidden))

    def _scores(self, states: Tensor) -> Tensor:
        return self.score_head(states).squeeze(-1)

    def forward(self, batch: ScoredBatch) -> GlusOutput:
        """Losses of one micro-batch; `seg_states` are float [E, 1, C].

        batch.context: int64 [V, R], the references; batch.query: int64 [V, 1], the target; batch.score: float [E, 1],
        the labels. CLIP encodes a frame once, though the target is one of the references.
        Raises ModelError for a batch without labels.
        """
        if batch.score is None:
            raise ModelError("the batch has no scores to learn from: set sampling.frame_scores")
        tokens = self.language.frame_tokens(batch.frames).split([len(each) for each in batch.frames])
        order = torch.cat([batch.context, batch.query], dim=1)
        shown = torch.stack([each[index] for each, index in zip(tokens, order, strict=True)])
        share = self.config.shares_beginnings
        reading = self.language.read(batch.ids, batch.attention, shown, batch.video_of, share=share)
        hidden = reading.before(self.language.seg_id)
        states = self.language.seg_states(hidden)
        found, weight = self._scores(states), self.config.loss
        losses = {
            "cross_entropy": weight.cross_entropy
            * seg_cross_entropy(self.language.logits(hidden), self.language.seg_id),
            "score_l1": weight.score * (found.float() - batch.score).abs().mean(),
        }
        return GlusOutput(losses, states)
