"""SAM 1's modules at our sizes: the only file that imports transformers' SAM.

Everything not named in Sam1Config is as in build_sam.py of github.com/facebookresearch/segment-anything.
"""

import math

import torch
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import (
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder, SamVisionEncoder

from glus.model.model_config import Sam1Config


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
