"""SAM 1 as a segmenter of single frames: one prompt an expression, no memory.

Under ZeRO-3 this module is a leaf, as SAM 2 is: the prompt encoder's tables are read outside their modules' forward.
Source: model/VideoLISA.py and model/segment_anything of github.com/showlab/VideoLISA (commit 146f2bc).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import (
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder, SamVisionEncoder

from glus.model.model_config import ModelConfig, Sam1Config
from glus.model.preprocess import for_sam1, sam1_size


class Sam1(nn.Module):
    """SAM 1: image encoder, prompt encoder, mask decoder; each called by its segmenter."""

    def __init__(self, sizes: Sam1Config):
        super().__init__()
        vision = SamVisionConfig(
            hidden_size=sizes.width,
            output_channels=sizes.hidden_dim,
            num_hidden_layers=sizes.depth,
            num_attention_heads=sizes.heads,
            image_size=sizes.image_size,
            patch_size=sizes.patch_size,
            window_size=sizes.window,
            global_attn_indexes=list(sizes.global_attention_blocks),
            num_pos_feats=sizes.hidden_dim // 2,
            # Its own 1e-10 would leave a fresh encoder without signal.
            initializer_range=0.02,
        )
        prompt = SamPromptEncoderConfig(
            hidden_size=sizes.hidden_dim, image_size=sizes.image_size, patch_size=sizes.patch_size
        )
        # SAM's transformer has torch's epsilon; transformers' default here is 1e-6.
        decoder = SamMaskDecoderConfig(
            hidden_size=sizes.hidden_dim, mlp_dim=sizes.decoder_feedforward, layer_norm_eps=1e-5
        )
        for each in (vision, decoder):
            each._attn_implementation = "sdpa"
        self.vision_encoder = SamVisionEncoder(vision)
        self.prompt_encoder = SamPromptEncoder(SamConfig(vision_config=vision, prompt_encoder_config=prompt))
        self.mask_decoder = SamMaskDecoder(decoder)
        # A buffer, as in SAM: it stays float32 in every precision, and never trains.
        positions = self.prompt_encoder.shared_embedding
        del positions.positional_embedding
        positions.register_buffer("positional_embedding", torch.randn(2, sizes.hidden_dim // 2))

    def encode(self, pixels: Tensor) -> Tensor:
        """float [N, 3, S, S] -> float [N, C, S/16, S/16]."""
        embedding: Tensor = self.vision_encoder(pixels).last_hidden_state
        return embedding

    def decode(self, embedding: Tensor, prompts: Tensor) -> Tensor:
        """float [n, C, h, w], prompts float [n, C] -> logits of the first mask, float [n, 4h, 4w]."""
        no_mask = self.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        masks, _ = self.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self._positions(embedding.shape[-1]).to(embedding.dtype).expand_as(embedding),
            sparse_prompt_embeddings=prompts[:, None, None],
            dense_prompt_embeddings=no_mask.expand_as(embedding),
            multimask_output=False,
        )
        logits: Tensor = masks[:, 0, 0]
        return logits

    def _positions(self, grid: int) -> Tensor:
        """float32 [1, C, grid, grid] (PositionEmbeddingRandom of SAM)."""
        table = self.prompt_encoder.shared_embedding.positional_embedding
        assert isinstance(table, Tensor)
        along = (torch.arange(grid, device=table.device, dtype=torch.float32) + 0.5) / grid
        across = torch.stack([along.expand(grid, grid), along[:, None].expand(grid, grid)], dim=-1)
        angles = 2 * math.pi * ((2 * across - 1) @ table)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).permute(2, 0, 1)[None]


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

    def compiled_parts(self) -> list[nn.Module]:
        """What torch.compile takes (model/compiling.py)."""
        return [self.sam1.vision_encoder, self.sam1.mask_decoder]

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
