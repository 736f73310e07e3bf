"""Keys and values of the tokens that prompts begin with: computed once, read by every prompt that continues them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(frozen=True)
class Prefix:
    """Llama's keys and values of the first N positions of a prompt, one pair a layer: float [1, heads, N, d]."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def length(self) -> int:
        """Positions N, frames expanded."""
        return self.layers[0][0].shape[-2]

    def shared(self) -> Cache:
        """Return a cache for any number of prompts that begin with this; they add nothing to it."""
        return Cache(layers=[_Shared(*pair) for pair in self.layers])


def growing(prefix: Prefix | None, layers: int) -> Cache:
    """Return a cache for computing a longer prefix: what is read is added to a copy of `prefix`."""
    return Cache(
        layers=[_Grown(*pair) for pair in prefix.layers] if prefix else [DynamicLayer() for _ in range(layers)]
    )


def grown(cache: Cache) -> Prefix:
    """Return the prefix that a cache of `growing` holds."""
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))


class _Grown(DynamicLayer):
    """A layer that begins with given keys and values."""

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values


class _Shared(_Grown):
    """A layer whose keys and values stay as they are: E rows read one copy, and nothing need be cut off again."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return its own keys and values before those of the rows [E, heads, L, d]."""
        rows = (len(key_states), -1, -1, -1)
        return (
            torch.cat([self.keys.expand(rows), key_states], dim=-2),
            torch.cat([self.values.expand(rows), value_states], dim=-2),
        )
