"""SAM 2 as one module: frames and [SEG] prompts in, mask logits out.

Under ZeRO-3 this module is a leaf: sam2 reads parameters outside their modules' forward (no_mem_embed, the prompt
encoder's tables), so all of them are gathered together, once for a clip.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glus.model.memory import Memory, MemoryBank
from glus.model.memory_attention import Begun, begin_attention, drops, look_back, remember_tokens, rows_of
from glus.model.model_config import SegmenterConfig
from glus.model.preprocess import for_segmenter
from glus.model.sam2_parts import build_sam2, encode_frames

#: Logit of an absent object (sam2's NO_OBJ_SCORE).
ABSENT = -1024.0


@dataclass(frozen=True)
class FrameFeatures:
    """SAM 2's features of N frames, finest first: float [N, C/8, 4h, 4w], [N, C/4, 2h, 2w], [N, C, h, w].

    position: float [N, C, h, w], the encoding of the coarsest; begun: where memory attention of them has begun.
    """

    levels: tuple[Tensor, Tensor, Tensor]
    position: Tensor
    begun: Begun | None = None

    def pick(self, index: Tensor) -> "FrameFeatures":
        """Features of the frames `index` (int64 [E]), repeated where it repeats; one frame is not copied."""
        fine, middle, coarse, position = (rows_of(each, index) for each in (*self.levels, self.position))
        return FrameFeatures((fine, middle, coarse), position)

    def every(self, first: int, stride: int) -> "FrameFeatures":
        """Features of the frames first, first + stride, ...; not copied."""
        fine, middle, coarse = (level[first::stride] for level in self.levels)
        return FrameFeatures((fine, middle, coarse), self.position[first::stride])


class Segmenter(nn.Module):
    """SAM 2's image encoder, memory and mask decoder, prompted by [SEG] states."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        self.config = config
        self.sam2 = build_sam2(config)

    def forward(self, pixels: Tensor, prompts: Tensor, video_of: Tensor) -> Tensor:
        """Low-resolution mask logits of every expression in every query frame of its video, decoded in order.

        pixels: float [V, Q, 3, S, S], normalised; prompts: float [E, Q, C]; video_of: int64 [E].
        Returns float [E, Q, S/4, S/4].
        """
        queries = pixels.shape[1]
        video_of = video_of.to(pixels.device, non_blocking=True)
        features = self.encode(pixels.flatten(0, 1))
        bank = MemoryBank.empty(self.config.memories)
        logits = []
        for frame in range(queries):
            # No frame attends to the last one.
            last = frame + 1 == queries
            of_frame = features.every(frame, queries)
            masks, bank = self.step(of_frame, prompts[:, frame], bank, frame, remember=not last, frame_of=video_of)
            logits.append(masks)
        return torch.stack(logits, dim=1)

    def pixels(self, frames: Tensor, dtype: torch.dtype) -> Tensor:
        """uint8 [N, 3, H, W] -> float [N, 3, S, S], as the image encoder expects them; aspect ratio not kept."""
        return for_segmenter(frames, self.config.image_size, self.config.mean, self.config.std, dtype)

    def full_size(self, low: Tensor, height: int, width: int) -> Tensor:
        """Logits float [..., h, w] -> float32 [..., height, width], bilinear."""
        planes = low.float().flatten(0, -3)[:, None]
        full = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)
        return full.view(*low.shape[:-2], height, width)

    def encoder_blocks(self) -> list[nn.Module]:
        """Blocks of the image encoder."""
        return list(self.sam2.image_encoder.trunk.blocks)

    def compiled_parts(self) -> list[nn.Module]:
        """What torch.compile takes (model/compiling.py): not memory attention, whose rotary encoding is complex."""
        memory = self.sam2.memory_encoder
        return [self.sam2.image_encoder.trunk, self.sam2.sam_mask_decoder, memory.mask_downsampler, memory.fuser]

    def encode(self, pixels: Tensor) -> FrameFeatures:
        """Features of frames; pixels: float [N, 3, S, S], normalised with the config's mean and std."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_image_encoder):
            levels, position = encode_frames(self.sam2, pixels)
        # The coarsest level and the encoding are in float32 whatever is given, as in sam2.
        fine, middle, coarse = (level.to(pixels.dtype) for level in levels)
        return FrameFeatures((fine, middle, coarse), position.to(pixels.dtype).expand_as(coarse))

    def step(
        self,
        features: FrameFeatures,
        prompts: Tensor,
        bank: MemoryBank,
        position: int,
        stride: int = 1,
        remember: bool = True,
        shown: Tensor | None = None,
        frame_of: Tensor | None = None,
    ) -> tuple[Tensor, MemoryBank]:
        """Decode one frame for E expressions and, with `remember`, add it to the memory.

        features: of that frame in V videos; prompts: float [E, C]; position: place in the clip; stride: the memory's (1
        in training, 3 in the reference's inference); shown: bool [E], False where the object is to be remembered as
        absent whatever the logits say; frame_of: int64 [E], which of the V is an expression's (left out: one each).
        Returns low-resolution logits [E, S/4, S/4] and the new bank.
        """
        if frame_of is None:
            frame_of = torch.arange(len(prompts), device=prompts.device)
        memories = bank.for_frame(position, stride) if self.config.use_memory else []
        of_each = features.pick(frame_of)
        if memories:
            conditioned = self._look_back(features, frame_of, memories)
        else:
            conditioned = of_each.levels[-1] + self.sam2.no_mem_embed.view(1, -1, 1, 1)
        logits = self._decode(conditioned, of_each, prompts)
        if self.config.use_memory and remember:
            bank = bank.with_frame(position, self._remember(conditioned, logits, shown), stride)
        return logits[:, 0], bank

    def begin(self, features: FrameFeatures) -> FrameFeatures:
        """The same features, with what all calls of `step` that look back from these frames have in common."""
        with self._memory_gradients():
            tokens, places = _rows_of_tokens(features.levels[-1]), _rows_of_tokens(features.position)
            return replace(features, begun=begin_attention(self.sam2.memory_attention, tokens, places))

    def _look_back(self, features: FrameFeatures, frame_of: Tensor, memories: list[Memory]) -> Tensor:
        attention = self.sam2.memory_attention
        with self._memory_gradients():
            if drops(attention):
                features, frame_of = features.pick(frame_of), torch.arange(len(frame_of), device=frame_of.device)
            begun = features.begun or self.begin(features).begun
            assert begun is not None
            out = look_back(attention, begun, frame_of, memories)
        return out.transpose(1, 2).unflatten(2, features.levels[-1].shape[-2:])

    def _memory_gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_memory)

    def _decode(self, conditioned: Tensor, features: FrameFeatures, prompts: Tensor) -> Tensor:
        encoder = self.sam2.sam_prompt_encoder
        no_mask = encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        logits, _, _, _ = self.sam2.sam_mask_decoder(
            image_embeddings=conditioned,
            image_pe=encoder.get_dense_pe().to(conditioned.dtype),
            sparse_prompt_embeddings=prompts.unsqueeze(1),
            dense_prompt_embeddings=no_mask.expand_as(conditioned),
            multimask_output=False,
            repeat_image=False,
            high_res_features=list(features.levels[:-1]),
        )
        return logits

    def _remember(self, conditioned: Tensor, logits: Tensor, shown: Tensor | None) -> Memory:
        size = self.config.image_size
        if shown is not None:
            logits = torch.where(shown.view(-1, 1, 1, 1), logits, ABSENT)
        if not self.config.train_memory:
            conditioned, logits = conditioned.detach(), logits.detach()
        # As in the reference, the memory-conditioned features are encoded (SAM 2 itself encodes the raw ones).
        features, position = self.sam2._encode_new_memory(
            current_vision_feats=[_tokens(conditioned)],
            feat_sizes=[tuple(conditioned.shape[-2:])],
            pred_masks_high_res=F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False),
            object_score_logits=None,
            is_mask_from_pts=False,
        )
        with self._memory_gradients():
            # The encoding is the same for all expressions.
            places = _rows_of_tokens(position[0][:1])
            return remember_tokens(self.sam2.memory_attention, _rows_of_tokens(features), places)


def _rows_of_tokens(grid: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, h*w, C]."""
    return grid.flatten(2).transpose(1, 2)


def _tokens(grid: Tensor) -> Tensor:
    """[N, C, h, w] -> [h*w, N, C], sam2's order of tokens."""
    return grid.flatten(2).permute(2, 0, 1)
