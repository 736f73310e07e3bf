"""VideoLISA: one [SEG] an expression for all frames, decoded in each frame alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.model.glus import BatchLike, GlusOutput
from glus.model.inference.video_segmenter import FrameMasks
from glus.model.language import Language
from glus.model.losses import label_cross_entropy, mask_losses
from glus.model.model_config import ModelConfig
from glus.model.videolisa.frame_segmenter import build_frame_segmenter
from glus.model.videolisa.one_prompt import check_prompts, seg_states
from glus.model.videolisa.video_tokens import video_tokens


class AnsweredBatch(BatchLike, Protocol):
    """The fields of a batch that `VideoLisa.forward` reads. Shapes: data_pipeline/batches/batch.py."""

    answer: Tensor


class VideoLisa(nn.Module):
    """VideoLISA (Bai et al., NeurIPS 2024). `vocab_size` and `seg_id` come from the tokenizer."""

    def __init__(self, config: ModelConfig, vocab_size: int, seg_id: int):
        super().__init__()
        self.config = config
        self.language = Language(config, vocab_size, seg_id)
        self.segmenter = build_frame_segmenter(config)

    def forward(self, batch: AnsweredBatch) -> GlusOutput:
        """Losses of one micro-batch; `seg_states` are float [E, 1, C].

        batch.context: int64 [V, S], the sparse frames; batch.query: int64 [V, D], the dense ones; batch.ids: one
        <image> a prompt. A prompt without [SEG] has no part in the mask losses.
        """
        tokens = self.language.frame_tokens(batch.frames).split([len(each) for each in batch.frames])
        videos = zip(tokens, batch.context, batch.query, strict=True)
        shown = torch.stack([video_tokens(each, sparse, dense) for each, sparse, dense in videos])
        share = self.config.shares_beginnings
        reading = self.language.read(batch.ids, batch.attention, shown.unsqueeze(1), batch.video_of, share=share)
        hidden, found = reading.before_first(self.language.seg_id)
        states = self.language.seg_states(hidden)
        dense_frames = [frames[index] for frames, index in zip(batch.frames, batch.query, strict=True)]
        pixels = torch.stack([self.segmenter.pixels(each, self.language.dtype) for each in dense_frames])
        # Rows without [SEG] are decoded too: under ZeRO-3 each rank runs every part, whatever its batch holds.
        low = self.segmenter(pixels, states, batch.video_of)
        read, labels = reading.labelled(batch.answer)
        weight = self.config.loss
        bce, dice = mask_losses(low, batch.masks, self.segmenter.full_size)
        counts = found.repeat_interleave(low.shape[1]).to(bce.dtype)
        # Means over all masks of the batch; 0, with a gradient of 0, where it has none.
        masks = counts.sum().clamp(min=1)
        losses = {
            "cross_entropy": weight.cross_entropy * label_cross_entropy(self.language.logits(read), labels),
            "mask_bce": weight.mask_bce * (bce * counts).sum() / masks,
            "mask_dice": weight.mask_dice * (dice * counts).sum() / masks,
        }
        return GlusOutput(losses, states.unsqueeze(1))

    @torch.no_grad()
    def segment_video(
        self,
        frame: Callable[[int], Tensor],
        frames: int,
        sparse: Sequence[int],
        dense: Sequence[int],
        prompt: tuple[Tensor, Tensor],
        *,
        expressions_together: int = 16,
        reuse_prefix: bool = True,
    ) -> Iterator[FrameMasks]:
        """Masks of E expressions, frame by frame from the first to the last.

        frame: index -> uint8 [3, H, W] on the model's device; frames: their number; sparse, dense: indices of the
        frames that the language model is shown; prompt: ids int64 [E, L] and attention bool [E, L], padded at the end.
        The language model reads what all prompts share once, and each prompt once, whatever the number of frames. Each
        frame is encoded once, whatever E, and decoded for `expressions_together` expressions at a time. `reuse_prefix`
        False reads every prompt from its first token (for comparison).
        Raises ModelError for a video without frames, a shown frame outside it, a prompt that does not fit.
        Source: evaluate of VideoLISA's model/VideoLISA.py; its answer is given, so `answered` is always True.
        """
        if frames < 1:
            raise ModelError("the video has no frames: nothing can be segmented in it")
        outside = [index for index in (*sparse, *dense) if not 0 <= index < frames]
        if outside or not sparse or not dense:
            raise ModelError(
                f"{len(sparse)} sparse and {len(dense)} dense frames, outside the video {outside}: show at least "
                f"one of each, from 0 to {frames - 1}"
            )
        ids, attention = prompt
        sizes = self.config
        shown = len(sparse) + len(dense) * sizes.vision.tokens_per_frame
        check_prompts(ids, attention, self.language.seg_id, shown, sizes.language.max_positions)
        distinct = sorted({*sparse, *dense})
        place = {index: number for number, index in enumerate(distinct)}
        tokens = self.language.frame_tokens([torch.stack([frame(index) for index in distinct])])
        at = [torch.tensor([place[index] for index in each], device=tokens.device) for each in (sparse, dense)]
        video = video_tokens(tokens, *at)
        prompts = seg_states(self.language, video, ids, attention, expressions_together, reuse_prefix)
        rows = torch.arange(len(ids), device=ids.device)
        for index in range(frames):
            picture = frame(index).unsqueeze(0)
            features = self.segmenter.encode(self.segmenter.pixels(picture, self.language.dtype))
            low = torch.cat(
                [
                    self.segmenter.decode(features.pick(torch.zeros_like(chunk)), prompts[chunk])
                    for chunk in rows.split(expressions_together)
                ]
            )
            full = self.segmenter.full_size(low, *picture.shape[-2:])
            yield FrameMasks(index, full, torch.ones_like(rows, dtype=torch.bool), rows)
