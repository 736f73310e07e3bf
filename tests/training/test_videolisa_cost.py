"""FLOP of VideoLISA's parts, against a forward and backward pass that torch counts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glus.launch.config.configuration import load_config
from glus.model.trainable import build_empty, set_trainable
from glus.training.build import build_to_count
from glus.training.metrics.cost import COUNTED_TOKENS, Load, step_cost
from glus.training.run_config import RunConfig
from tests.model.tiny_videolisa import SEG, VOCABULARY, WIDE, small_batch, small_config, small_videolisa


@pytest.mark.parametrize("kind", ["sam1", "sam2"])
def test_flop_of_a_step_are_those_that_torch_counts(kind, monkeypatch):
    config = small_config(kind=kind)
    batch = small_batch(replace(WIDE, words=(5, 5, 5)))
    rows = 3 + 38 - 6  # text before the video, its tokens
    tokens = rows + 3 * 9
    monkeypatch.setitem(COUNTED_TOKENS, "videolisa", tokens)
    model = small_videolisa(config).train()
    set_trainable(model, ["*"])
    with FlopCounterMode(display=False) as counter:
        model(batch).loss.backward()
    empty = build_empty(replace(config, lora=replace(config.lora, rank=0)), VOCABULARY, SEG)
    set_trainable(empty, ["*"])
    load = Load(1, 5, 2, 3, tokens, 24 * 40)
    assert step_cost(empty).model_flop(load) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_published_size_takes_the_flop_of_its_parts():
    """Phi-3-mini has 3.8 billion parameters: 2 FLOP each and token, and attention. SAM 1's encoder: 2.98e12 MAC."""
    config = load_config(RunConfig, Path(__file__).parents[2] / "configs" / "videolisa.yaml", [])
    parts = {part.name: part for part in step_cost(build_to_count(config, 32_012, 32_011), torch.bfloat16).parts}
    layers = 32 * (3072 * 3 * 3072 + 3072 * 3072 + 3 * 3072 * 8192)
    attention = 32 * 4 * 3072 * COUNTED_TOKENS["videolisa"]
    assert parts["Llama"].forward == pytest.approx(2 * layers + attention, rel=0.01)
    assert parts["SAM 1 image encoder"].forward == pytest.approx(2 * 2.98e12, rel=0.01)
    assert parts["SAM 1 image encoder"].times == 1 and parts["CLIP and projector"].times == 1
