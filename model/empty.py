"""Models without weights: names and shapes of all parameters, for what is compared before memory is taken."""

import torch

from glus.model.glus import Glus
from glus.model.model_config import ModelConfig
from glus.model.trainable import add_lora


def build_empty(config: ModelConfig, vocab_size: int, seg_id: int) -> Glus:
    """A model with LoRA in place: parameters on the meta device, buffers as they are drawn here."""
    from accelerate import init_empty_weights

    with torch.random.fork_rng(devices=[]):
        with init_empty_weights(include_buffers=False):
            model = Glus(config, vocab_size, seg_id)
        if config.language.tie_embeddings:
            # accelerate makes a parameter of its own for each name.
            model.language.llama.lm_head.weight = model.language.llama.model.embed_tokens.weight
        with init_empty_weights(include_buffers=False):
            add_lora(model, config.lora)
    return model
