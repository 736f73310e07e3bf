"""Parameters that are drawn or read when they are asked for have the values of a model that is made complete."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glus.model.methods import model_class
from glus.model.model_config import LoraConfig, ModelConfig
from glus.model.pretraining.stand_in_config import StandInConfig
from glus.model.released.late_values import LateValues
from glus.model.trainable import add_lora

from .tiny import SEG, VOCABULARY, tiny_config
from .tiny_videolisa import small_config

pytestmark = pytest.mark.slow
LORA = LoraConfig(rank=2, alpha=4, dropout=0.0)


def _language(**changes: Any) -> Callable[[], ModelConfig]:
    return lambda: replace(tiny_config(), language=replace(tiny_config().language, **changes))


CONFIGS: dict[str, Callable[[], ModelConfig]] = {
    "glus": tiny_config,
    "tied": _language(tie_embeddings=True),
    "spread": _language(seg_spread=3.0),
    "mask prior": lambda: tiny_config(mask_prior=-3.0),
    "tower": lambda: replace(tiny_config(), vision=replace(tiny_config().vision, spread=0.2)),
    "selector": lambda: replace(tiny_config(), method="selector"),
    "pretraining": lambda: replace(
        tiny_config(), method="pretraining", stand_ins=StandInConfig(attributes=(3, 2), place_cells=4)
    ),
    "videolisa, phi3, sam 1": small_config,
    "videolisa, qwen3, sam 2": lambda: small_config("qwen3", "sam2"),
}


def make(config: ModelConfig) -> Any:
    model = model_class(config.method)(config, VOCABULARY, SEG)
    add_lora(model, LORA)
    return model


@pytest.mark.parametrize("least", [1, 512])
@pytest.mark.parametrize("which", CONFIGS)
def test_a_model_that_is_drawn_later_has_the_same_numbers(which: str, least: int) -> None:
    config = CONFIGS[which]()
    torch.manual_seed(3)
    complete = make(config)
    after = torch.rand(4)
    torch.manual_seed(3)
    values = LateValues()
    with values.drawing_later(least) as take_notes:
        model = make(config)
    assert torch.equal(torch.rand(4), after)  # the draws go on alike
    take_notes(model)
    empty = [name for name, each in model.named_parameters() if each.is_meta]
    assert len(empty) > 20
    torch.manual_seed(99)
    values.fill_model(model)
    wanted = dict(complete.named_parameters(remove_duplicate=False))
    own = dict(model.named_parameters(remove_duplicate=False))
    assert own.keys() == wanted.keys()
    assert [name for name in own if not torch.equal(own[name], wanted[name])] == []
    assert all(own[name].requires_grad == wanted[name].requires_grad for name in own)
    assert len(list(model.parameters())) == len(list(complete.parameters()))
    buffers = dict(complete.named_buffers())
    assert all(torch.equal(each, buffers[name]) for name, each in model.named_buffers())


def test_asking_for_values_in_another_order_changes_none_of_them() -> None:
    torch.manual_seed(0)
    complete = dict(make(tiny_config()).named_parameters())
    torch.manual_seed(0)
    values = LateValues()
    with values.drawing_later(1) as take_notes:
        model = make(tiny_config())
    take_notes(model)
    state = torch.get_rng_state()
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.is_meta:
            assert torch.equal(values.take(parameter), complete[name])
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_drawn_later_takes_no_memory() -> None:
    values, before = LateValues(), held_megabytes()
    with values.drawing_later() as take_notes:
        # More than 32 MB each, for which malloc never takes what other tests have freed.
        layers = nn.ModuleList([nn.Linear(4096, 2560) for _ in range(3)])
    assert held_megabytes() < before + 48  # of 120
    take_notes(layers)
    values.fill_model(layers)
    assert held_megabytes() > before + 96


def held_megabytes() -> float:
    """Memory of this process that no file backs."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith("Anonymous:")]
    return int(line.split()[1]) / 1024


def test_what_reads_or_changes_a_part_gets_the_values() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 8)
            self.scale = nn.Parameter(torch.empty(8))

    def steps(layer: Scaled) -> Tensor:
        nn.init.normal_(layer.weight, std=2.0)
        layer.weight.data.mul_(0.5)
        with torch.no_grad():
            layer.weight[3].zero_()
            layer.weight.add_(torch.arange(8.0))
        nn.init.uniform_(layer.bias, -3, 1)
        layer.bias.data.clamp_(min=-1)
        nn.init.trunc_normal_(layer.scale, std=0.1)
        return layer.weight.detach().sum()

    torch.manual_seed(1)
    complete = Scaled()
    total = steps(complete)
    torch.manual_seed(1)
    values = LateValues()
    with values.drawing_later(1) as take_notes:
        layer = Scaled()
        assert torch.equal(steps(layer), total)
    take_notes(layer)
    assert layer.bias.is_meta and not layer.weight.is_meta
    values.fill_model(layer)
    assert all(torch.equal(one, other) for one, other in zip(layer.parameters(), complete.parameters(), strict=True))


def test_a_later_write_replaces_a_draw_and_a_change_follows_it() -> None:
    values = LateValues()
    with values.drawing_later(1) as take_notes:
        layer = nn.Linear(4, 4)
    take_notes(layer)
    values.change(layer.bias, lambda made: made.mul_(0))
    values.write(layer.weight, lambda made: made.fill_(2))
    values.change(layer.weight, lambda made: made.add_(1))
    assert torch.equal(values.take(layer.weight), torch.full((4, 4), 3.0))
    assert not values.take(layer.bias).any()
    with pytest.raises(KeyError):
        values.take(layer.weight)
