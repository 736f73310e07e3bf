"""SAM 1 as a segmenter of single frames: one prompt an expression, no memory.

Under ZeRO-3 this module is a leaf, as SAM 2 is: the prompt encoder's tables are read outside their modules' forward.
Source: model/VideoLISA.py and model/segment_anything of github.com/showlab/VideoLISA (commit 146f2bc).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glus.model.model_config import ModelConfig
from glus.model.preprocess import for_sam1, sam1_size
from glus.model.sam1.sam1_parts import Sam1


@dataclass(frozen=True)
class Sam1Features:
    """SAM 1's features of N frames: float [N, C, h, w]."""

    embedding: Tensor

    def pick(self, index: Tensor) -> "Sam1Features":
        """Features of the frames `index` (int64 [n]), repeated where it repeats."""
        return Sam1Features(self.embedding[index])


class Sam1Segmenter(nn.Module):
    """SAM 1's image encoder and mask decoder, prompted by [SEG] states (glus.model.videolisa.frame_segmenter)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.sizes = config.sam1
        self.train_image_encoder = config.segmenter.train_image_encoder
        self.sam1 = Sam1(config.sam1)

    def pixels(self, frames: Tensor, dtype: torch.dtype) -> Tensor:
        """uint8 [N, 3, H, W] -> float [N, 3, S, S], the longer side resized, normalised, padded with zeros."""
        return for_sam1(frames, self.sizes.image_size, self.sizes.mean, self.sizes.std, dtype)

    def encoder_blocks(self) -> list[nn.Module]:
        """Blocks of the image encoder."""
        return list(self.sam1.vision_encoder.layers)

    def encode(self, pixels: Tensor) -> Sam1Features:
        """Features of frames, float [N, 3, S, S]; without gradient unless the image encoder trains."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_image_encoder):
            return Sam1Features(self.sam1.encode(pixels))

    def decode(self, features: Sam1Features, prompts: Tensor) -> Tensor:
        """Features of n rows, prompts float [n, C] -> logits of mask 0, float [n, S/4, S/4]."""
        return self.sam1.decode(features.embedding, prompts)

    def full_size(self, low: Tensor, height: int, width: int) -> Tensor:
        """Logits float [..., h, w] -> float32 [..., height, width] (SAM's postprocess_masks).

        They are resized to S x S, the padding is cut off, then to the frame's size; bilinear.
        """
        size = self.sizes.image_size
        inner_height, inner_width = sam1_size(height, width, size)
        planes = low.float().flatten(0, -3)[:, None]
        padded = F.interpolate(planes, (size, size), mode="bilinear", align_corners=False)
        inner = padded[..., :inner_height, :inner_width]
        full = F.interpolate(inner, (height, width), mode="bilinear", align_corners=False)
        return full.view(*low.shape[:-2], height, width)
