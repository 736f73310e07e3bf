"""Families of causal language models of transformers: the one table of what differs between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from glus.common.errors import ModelError
from glus.model.model_config import Family, LanguageConfig


def _nothing_of_its_own(sizes: LanguageConfig) -> dict[str, Any]:
    return {}


def _of_phi3(sizes: LanguageConfig) -> dict[str, Any]:
    """The window, and no ids beyond a small table.

    In transformers 5 a query sees `sliding_window` keys. In 4.40, and in FlashAttention 2 as the reference calls it, it
    sees one more (keys i - W to i).
    """
    return {"sliding_window": sizes.sliding_window + 1 if sizes.sliding_window else None, "eos_token_id": None}


def _of_qwen3(sizes: LanguageConfig) -> dict[str, Any]:
    return {"head_dim": sizes.head_width}


@dataclass(frozen=True)
class LanguageFamily:
    """One family. `layer`: the module that ZeRO-3 gathers at once and whose activations may be computed again.

    `settings`: what its config has that LlamaConfig does not.
    """

    config: type[Any]
    model: type[Any]
    layer: type[nn.Module]
    settings: Callable[[LanguageConfig], dict[str, Any]]

    def build(self, sizes: LanguageConfig, vocab_size: int) -> Any:
        """A freshly drawn causal language model. Raises ModelError where flash-attn is set and not installed."""
        sizes.check_attention()
        return self.model(
            self.config(
                vocab_size=vocab_size,
                hidden_size=sizes.hidden_size,
                intermediate_size=sizes.intermediate_size,
                num_hidden_layers=sizes.layers,
                num_attention_heads=sizes.heads,
                num_key_value_heads=sizes.key_value_heads,
                max_position_embeddings=sizes.max_positions,
                rms_norm_eps=sizes.rms_norm_eps,
                rope_theta=sizes.rope_theta,
                tie_word_embeddings=sizes.tie_embeddings,
                initializer_range=sizes.initializer_range,
                attn_implementation=sizes.attention,
                use_cache=False,
                pad_token_id=None,
                **self.settings(sizes),
            )
        )


#: `model.language.family` -> what it is.
FAMILIES: Mapping[Family, LanguageFamily] = MappingProxyType(
    {
        "llama": LanguageFamily(LlamaConfig, LlamaForCausalLM, LlamaDecoderLayer, _nothing_of_its_own),
        "phi3": LanguageFamily(Phi3Config, Phi3ForCausalLM, Phi3DecoderLayer, _of_phi3),
        "qwen3": LanguageFamily(Qwen3Config, Qwen3ForCausalLM, Qwen3DecoderLayer, _of_qwen3),
    }
)
#: Decoder layers of all families.
DECODER_LAYERS: tuple[type[nn.Module], ...] = tuple(family.layer for family in FAMILIES.values())


def lora_targets(language_model: nn.Module, wanted: tuple[str, ...]) -> list[str]:
    """Names (without their module's) of linear layers that contain one of `wanted`, as the references choose them.

    So "v_proj" is Phi-3's fused qkv_proj too, whose queries, keys and values then share one A and one B. Source:
    find_linear_layers of LISA. Raises ModelError where none contains any.
    """
    linear = {
        name.rsplit(".", 1)[-1] for name, module in language_model.named_modules() if isinstance(module, nn.Linear)
    }
    found = sorted(name for name in linear if any(target in name for target in wanted))
    if not found:
        raise ModelError(
            f"model.lora.targets: no linear layer contains {' or '.join(wanted)}; there are {', '.join(sorted(linear))}"
        )
    return found


def _two_layers(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))


#: `model.vision.projector` -> what makes, of (width, hidden), the module from patches float [..., width] to tokens
#: float [..., hidden] (LLaVA's multimodal_projector).
PROJECTORS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {"linear": nn.Linear, "mlp2x_gelu": _two_layers}
)
