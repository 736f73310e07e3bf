"""SAM 2's own modules at our sizes: the only file that imports sam2.

Everything not named in SegmenterConfig is as in the released sam2_hiera_*.yaml.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from glus.model.model_config import SegmenterConfig

#: Where the layer scales (gamma) of the memory encoder's fuser start.
LAYER_SCALE = 1e-6

if TYPE_CHECKING:
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.memory_attention import MemoryAttention
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.modeling.sam2_base import SAM2Base


def build_sam2(config: SegmenterConfig) -> "SAM2Base":
    """A SAM2Base with freshly drawn weights."""
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import TwoWayTransformer
    from sam2.modeling.sam2_base import SAM2Base

    trunk = Hiera(
        embed_dim=config.embed_dim,
        num_heads=config.heads,
        stages=config.stages,
        global_att_blocks=config.global_attention_blocks,
        window_pos_embed_bkg_spatial_size=config.window_pos_embed_size,
        window_spec=config.window_spec,
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=config.hidden_dim, normalize=True),
        d_model=config.hidden_dim,
        backbone_channel_list=[config.embed_dim * 2**level for level in (3, 2, 1, 0)],
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    sam2 = SAM2Base(
        image_encoder=ImageEncoder(trunk=trunk, neck=neck, scalp=1),
        memory_attention=_memory_attention(config),
        memory_encoder=_memory_encoder(config),
        num_maskmem=config.memories,
        image_size=config.image_size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=False,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        # In eval mode the decoder falls back to one of its three other masks where the first is unstable.
        sam_mask_decoder_extra_args={
            "dynamic_multimask_via_stability": config.multimask_fallback,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
    )
    # SAM2Base takes no width for it.
    sam2.sam_mask_decoder.transformer = TwoWayTransformer(
        depth=2, embedding_dim=config.hidden_dim, num_heads=8, mlp_dim=config.decoder_feedforward
    )
    if config.mask_prior:
        _start_at(sam2.sam_mask_decoder, config.mask_prior)
    return sam2


def _start_at(decoder: "MaskDecoder", logit: float) -> None:
    """Set the biases of a fresh decoder so that its masks, hypernetwork x upscaled features, start near `logit`."""
    upscaled = decoder.output_upscaling[3].bias
    level = 2.0  # well inside the part where GELU is linear
    with torch.no_grad():
        upscaled.fill_(level)
        for network in decoder.output_hypernetworks_mlps:
            network.layers[-1].bias.fill_(logit / (level * len(upscaled)))


@torch.no_grad()
def draw_image_encoder(trunk: "Hiera") -> None:
    """Redraw what decides how soon a Hiera learns shapes.

    Patches get three times their variance-keeping deviation, position embeddings are not 0.
    """
    weight = trunk.patch_embed.proj.weight
    torch.nn.init.normal_(weight, std=3 * weight[0].numel() ** -0.5)
    torch.nn.init.normal_(trunk.pos_embed, std=0.2)
    torch.nn.init.normal_(trunk.pos_embed_window, std=0.2)


def encode_frames(sam2: "SAM2Base", pixels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Three levels of features, finest first, as the mask decoder takes them, and the encoding of the coarsest.

    pixels: float [N, 3, S, S]. Returns float [N, C/8, S/4, S/4], [N, C/4, S/8, S/8], [N, C, S/16, S/16], and
    [1, C, S/16, S/16]. The same as sam2's `forward_image` (its finest two levels to about 1e-6), which also makes
    encodings of all levels for each frame, and projects the finest two levels to C channels and those to C/8 and C/4:
    nothing else takes them, so the two products are one.
    """
    neck, decoder = sam2.image_encoder.neck, sam2.sam_mask_decoder
    fine, middle, coarse, coarsest = sam2.image_encoder.trunk(pixels)
    to_coarsest, to_coarse, to_middle, to_fine = (each.conv for each in neck.convs)
    from_above = F.interpolate(to_coarsest(coarsest).float(), scale_factor=2.0, mode=neck.fpn_interp_model)
    joined = to_coarse(coarse) + from_above
    levels = [_both(to_fine, decoder.conv_s0, fine), _both(to_middle, decoder.conv_s1, middle), joined]
    return levels, neck.position_encoding(joined[:1])


def _both(first: torch.nn.Conv2d, second: torch.nn.Conv2d, grid: torch.Tensor) -> torch.Tensor:
    """second(first(grid)) of two convolutions of 1x1, by their product, which is made in float32 or finer."""
    exact = torch.promote_types(grid.dtype, torch.float32)
    inner, outer = first.weight.flatten(1).to(exact), second.weight.flatten(1).to(exact)
    assert first.bias is not None and second.bias is not None
    bias = outer @ first.bias.to(exact) + second.bias.to(exact)
    return F.conv2d(grid, (outer @ inner)[..., None, None].to(grid.dtype), bias.to(grid.dtype))


@torch.no_grad()
def look_past_memory(attention: "MemoryAttention", length: float) -> None:
    """Let a fresh memory change nothing at first: what its layers add starts at 0, and features leave with `length`.

    `length`: the root mean square of the features that a mask decoder was trained on without memory. Drawn as SAM 2
    does, the attention gives it features of another length and direction, and clips begin by unlearning.
    """
    for layer in attention.layers:
        for last in (layer.self_attn.out_proj, layer.cross_attn_image.out_proj, layer.linear2):
            last.weight.zero_()
            last.bias.zero_()
    attention.norm.weight.fill_(length)
    attention.norm.bias.zero_()


@torch.no_grad()
def reset_layer_scales(model: torch.nn.Module) -> None:
    """Set the layer scales of the memory encoder's fuser in `model` to LAYER_SCALE, in place.

    transformers 4.31 renames "gamma" to "weight" while it loads, so the reference's inference does not find them in its
    own checkpoints and leaves them as drawn. Its training, which loads SAM 2 by itself, has the trained ones.
    """
    for name, parameter in model.named_parameters():
        if ".memory_encoder.fuser.layers." in name and name.endswith(".gamma"):
            parameter.fill_(LAYER_SCALE)


def rotate(attention: "RoPEAttention", tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of square frames, float [n, N, C], with their places encoded as `attention` does (one head)."""
    from sam2.modeling.position_encoding import apply_rotary_enc

    count = tokens.shape[1]
    if len(attention.freqs_cis) != count:
        side = math.isqrt(count)
        attention.freqs_cis = attention.compute_cis(end_x=side, end_y=side)
    attention.freqs_cis = attention.freqs_cis.to(tokens.device)
    one_head = tokens.unsqueeze(1)
    rotated: torch.Tensor
    rotated, _ = apply_rotary_enc(one_head, one_head[:, :, :0], attention.freqs_cis)
    return rotated.squeeze(1)


def _memory_attention(config: SegmenterConfig):  # type: ignore[no-untyped-def]
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.sam.transformer import RoPEAttention

    grid = config.image_size // 16

    def attention(**keys: object) -> RoPEAttention:
        return RoPEAttention(
            rope_theta=10000.0,
            feat_sizes=(grid, grid),
            embedding_dim=config.hidden_dim,
            num_heads=1,
            downsample_rate=1,
            dropout=config.dropout,
            **keys,
        )

    layer = MemoryAttentionLayer(
        activation="relu",
        d_model=config.hidden_dim,
        dim_feedforward=config.memory_feedforward,
        dropout=config.dropout,
        pos_enc_at_attn=False,
        self_attention=attention(),
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=attention(rope_k_repeat=True, kv_in_dim=config.memory_dim),
    )
    return MemoryAttention(
        d_model=config.hidden_dim, pos_enc_at_input=True, layer=layer, num_layers=config.memory_layers
    )


def _memory_encoder(config: SegmenterConfig):  # type: ignore[no-untyped-def]
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    block = CXBlock(config.hidden_dim, kernel_size=7, padding=3, layer_scale_init_value=LAYER_SCALE, use_dwconv=True)
    return MemoryEncoder(
        in_dim=config.hidden_dim,
        out_dim=config.memory_dim,
        position_encoding=PositionEmbeddingSine(num_pos_feats=config.memory_dim, normalize=True),
        mask_downsampler=MaskDownSampler(embed_dim=config.hidden_dim, kernel_size=3, stride=2, padding=1),
        fuser=Fuser(block, num_layers=config.memory_fuser_layers),
    )
