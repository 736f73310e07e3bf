"""VideoLISA: one [SEG] an expression for all frames, decoded in each frame alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from glus.common.errors import ModelError
from glus.model.glus import BatchLike, GlusOutput
from glus.model.inference.video_segmenter import FrameMasks
from glus.model.language.language import Language
from glus.model.language.prompt_rows import IMAGE_TOKEN_ID, common_length
from glus.model.losses import label_cross_entropy, mask_losses
from glus.model.model_config import ModelConfig
from glus.model.videolisa.frame_segmenter import build_frame_segmenter


def check_prompts(ids: Tensor, attention: Tensor, seg_id: int, tokens: int, max_positions: int) -> None:
    """Refuse prompts that VideoLISA cannot be asked with, naming the expression by its place.

    ids: int64 [E, L]; attention: bool [E, L]; tokens: how many stand for the video.
    Raises ModelError for no prompt, other than one <image>, other than one [SEG] after it, too many positions.
    """
    if not len(ids):
        raise ModelError("no expression was given: name at least one")
    images, answers = (ids == IMAGE_TOKEN_ID) & attention, (ids == seg_id) & attention
    lengths = attention.sum(1) + tokens - 1
    for row, (image, answer, length) in enumerate(zip(images, answers, lengths.tolist(), strict=True)):
        where = f"expression {row + 1} of {len(ids)}"
        if int(image.sum()) != 1:
            raise ModelError(
                f"{where}: its prompt holds {int(image.sum())} <image> where one stands for the video; an expression "
                "may not contain <image>"
            )
        if int(answer.sum()) != 1 or int(answer.long().argmax()) < int(image.long().argmax()):
            raise ModelError(
                f"{where}: its prompt holds {int(answer.sum())} [SEG] where the answer after the video has one; an "
                "expression may not contain [SEG]"
            )
        if length > max_positions:
            raise ModelError(
                f"{where} is too long: its prompt takes {length} positions, the language model has {max_positions} "
                "(model.language.max_positions); shorten the expression"
            )


def seg_states(
    language: Language, video: Tensor, ids: Tensor, attention: Tensor, together: int, reuse_prefix: bool
) -> Tensor:
    """[SEG] states float [E, C] of E prompts about one video; `together` prompts are read at a time.

    video: float [N, hidden], its tokens; ids: int64 [E, L] and attention: bool [E, L], as `check_prompts` wants them.
    With `reuse_prefix` the beginning that all prompts share, video tokens included, is read once.
    """
    answer = (ids == language.seg_id) & attention
    # The state is read one position before [SEG]; what comes after it changes nothing.
    ends = answer.long().argmax(1)
    tokens = video.unsqueeze(0)
    begun, prefix = 0, None
    if reuse_prefix and len(ids) > 1:
        begun = min(common_length(ids, attention), int(ends.min()) - 1)
        shared = ids[0, :begun]
        if IMAGE_TOKEN_ID in shared:
            prefix = language.prefix(shared, tokens)
            tokens = tokens[:0]
        else:
            begun = 0
    states = []
    for rows in torch.arange(len(ids)).split(together):
        stop = int(ends[rows].max()) + 1
        given = ids[rows, begun:stop], attention[rows, begun:stop], tokens.unsqueeze(0)
        reading = language.read(*given, prefix=prefix)
        states.append(language.seg_states(reading.before(language.seg_id)[:, 0]))
    return torch.cat(states)


def video_tokens(tokens: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
    """What stands for a video in a prompt: a mean of each sparse frame's tokens, then all tokens of the dense frames.

    Source: "Sparse Dense Sampling", prepare_inputs of VideoLISA's model/VideoLISA.py.

    tokens: float [F, P, hidden]; sparse: int64 [S] and dense: int64 [D], indices of frames.
    Returns float [S + D * P, hidden].
    """
    return torch.cat([tokens.mean(1)[sparse], tokens[dense].flatten(0, 1)])


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
        ids, attention = (each.cpu() for each in prompt)  # laid out there: a GPU is not waited for
        sizes = self.config
        shown = len(sparse) + len(dense) * sizes.vision.tokens_per_frame
        check_prompts(ids, attention, self.language.seg_id, shown, sizes.language.max_positions)
        distinct = sorted({*sparse, *dense})
        place = {index: number for number, index in enumerate(distinct)}
        tokens = self.language.frame_tokens([torch.stack([frame(index) for index in distinct])])
        at = [torch.tensor([place[index] for index in each], device=tokens.device) for each in (sparse, dense)]
        video = video_tokens(tokens, *at)
        prompts = seg_states(self.language, video, ids, attention, expressions_together, reuse_prefix)
        every = torch.ones(len(ids), dtype=torch.bool, device=prompts.device)
        for index in range(frames):
            picture = frame(index).unsqueeze(0)
            features = self.segmenter.encode(self.segmenter.pixels(picture, self.language.dtype))
            low = torch.cat(
                [
                    self.segmenter.decode(features.pick(torch.zeros_like(chunk[:, 0], dtype=torch.int64)), chunk)
                    for chunk in prompts.split(expressions_together)
                ]
            )
            full = self.segmenter.full_size(low, *picture.shape[-2:])
            yield FrameMasks(index, full, every, torch.arange(len(ids)))
