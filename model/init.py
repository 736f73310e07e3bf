"""How parts without released weights start: draws from which a small model learns in minutes.

Measured effects: docs/log.md, "Learning from scratch".
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from glus.model.language import Language

#: Random texts with which the spread of [SEG] states is measured, and their length in tokens.
TEXTS, LENGTH = 128, 12


@torch.no_grad()
def spread_seg_states(language: "Language", spread: float) -> None:
    """Scale and shift the last layer of `text_hidden_fcs`: over texts, states get mean 0 and deviation `spread`.

    Drawn as torch does, the states of different expressions are nearly alike, and the mask decoder learns to ignore
    them before they grow apart. After Mishkin and Matas, "All you need is a good init" (ICLR 2016).
    """
    embeddings = language.llama.get_input_embeddings()
    ids = torch.randint(embeddings.num_embeddings, (TEXTS, LENGTH))
    hidden = language.llama.model(inputs_embeds=embeddings(ids), use_cache=False).last_hidden_state[:, -1]
    states = language.seg_states(hidden)
    (projection,) = language.text_hidden_fcs
    assert isinstance(projection, nn.Sequential)
    last = projection[-1]
    assert isinstance(last, nn.Linear)
    factor = spread / (states - states.mean(0)).square().mean().sqrt()
    last.weight.mul_(factor)
    last.bias.mul_(factor).sub_(factor * states.mean(0))
