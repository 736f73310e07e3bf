"""Which parameters learn: LoRA on the language model, and a table of name patterns for everything.

`build_empty` makes the same model without weights, for checks before memory is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from glus.common.errors import ModelError
from glus.model.language.language_families import lora_targets
from glus.model.methods import AnyModel, model_class
from glus.model.model_config import LoraConfig, ModelConfig

#: What the losses never reach, whatever the table says: SAM 2's clicks and object pointers, the decoder's
#: three other masks, and heads whose output GLUS drops. ZeRO would wait for their gradients.
NEVER_TRAINED = (
    "language.vision_tower.post_layernorm.*",
    "segmenter.sam2.maskmem_tpos_enc",
    "segmenter.sam2.no_mem_pos_enc",
    "segmenter.sam2.no_obj_ptr",
    "segmenter.sam2.mask_downsample.*",
    "segmenter.sam2.obj_ptr_proj.*",
    "segmenter.sam2.sam_prompt_encoder.point_embeddings.*",
    "segmenter.sam2.sam_prompt_encoder.not_a_point_embed.*",
    "segmenter.sam2.sam_prompt_encoder.mask_downscaling.*",
    "segmenter.sam2.sam_mask_decoder.output_hypernetworks_mlps.[123].*",
    "segmenter.sam2.sam_mask_decoder.iou_prediction_head.*",
    "segmenter.sam2.sam_mask_decoder.pred_obj_score_head.*",
    # SAM 1: points, boxes and masks as prompts, the decoder's three other masks.
    "segmenter.sam1.prompt_encoder.point_embed.*",
    "segmenter.sam1.prompt_encoder.not_a_point_embed.*",
    "segmenter.sam1.prompt_encoder.mask_embed.*",
    "segmenter.sam1.mask_decoder.output_hypernetworks_mlps.[123].*",
    "segmenter.sam1.mask_decoder.iou_prediction_head.*",
)

#: Parts of SAM 2's mask decoder that run with its image encoder: without gradient unless that is trained, as in the
#: reference, whose table they are in too (docs/fidelity.md).
WITH_IMAGE_ENCODER = ("segmenter.sam2.sam_mask_decoder.conv_s[01].*",)


def add_lora(model: AnyModel, config: LoraConfig) -> None:
    """Add LoRA to the named projections of the language model, in place (peft); rank 0 adds none."""
    if config.rank == 0:
        return
    import peft

    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=lora_targets(model.language.llama, config.targets),
        bias="none",
    )
    peft.inject_adapter_in_model(lora, model.language.llama)


def build_empty(config: ModelConfig, vocab_size: int, seg_id: int) -> AnyModel:
    """A model with LoRA in place: parameters on the meta device, buffers as they are drawn here."""
    from accelerate import init_empty_weights

    with torch.random.fork_rng(devices=[]):
        with init_empty_weights(include_buffers=False):
            model = model_class(config.method)(config, vocab_size, seg_id)
        if config.language.tie_embeddings:
            # accelerate makes a parameter of its own for each name.
            model.language.llama.lm_head.weight = model.language.llama.model.embed_tokens.weight
        with init_empty_weights(include_buffers=False):
            add_lora(model, config.lora)
    return model


@dataclass(frozen=True)
class TrainableRow:
    """Parameter tensors that one pattern selects, and their elements."""

    pattern: str
    tensors: int
    elements: int


def set_trainable(model: nn.Module, patterns: Sequence[str]) -> list[TrainableRow]:
    """Train the parameters whose name matches a pattern, freeze the others; returns a row a pattern.

    Those of NEVER_TRAINED stay frozen.
    Raises ModelError for a pattern that matches nothing.
    """
    rows = []
    parameters = dict(model.named_parameters(remove_duplicate=False))  # lm_head may be the embedding table
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    parameters = {
        name: parameter
        for name, parameter in parameters.items()
        if not any(fnmatchcase(name, never) for never in NEVER_TRAINED)
    }
    for pattern in patterns:
        matched = [parameter for name, parameter in parameters.items() if fnmatchcase(name, pattern)]
        if not matched:
            parts = sorted({".".join(name.split(".")[:3]) for name in parameters})
            raise ModelError(f"trainable: {pattern!r} matches no parameter; there are {', '.join(parts)}")
        for parameter in matched:
            parameter.requires_grad_(True)
        rows.append(TrainableRow(pattern, len(matched), sum(parameter.numel() for parameter in matched)))
    return rows
