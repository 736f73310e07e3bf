"""Count the tokens that a language model reads while a video is predicted: the cost that methods differ by most."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class TokensRead:
    """`tokens`: rows times length of all passes so far, padding included."""

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], keys: dict[str, Any]) -> None:
        """Add one pass (a forward pre-hook with keyword arguments)."""
        self.tokens += keys["inputs_embeds"].shape[:2].numel()


@contextmanager
def counting_tokens(language: nn.Module) -> Iterator[TokensRead]:
    """Count within the block; `language` is a causal language model of transformers, whose decoder is `model`."""
    count = TokensRead()
    decoder = language.get_submodule("model")
    hook = decoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield count
    finally:
        hook.remove()
