"""Our forward over the submodules of sam2's memory attention against sam2's own forward, with the same parameters."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glus.model import memory_attention
from glus.model.memory_attention import begin_attention, drops, look_back, remember_tokens
from glus.model.segmenter import Segmenter

from .tiny import tiny_config

#: Videos, and which of them an expression is of.
VIDEOS, FRAME_OF = 2, torch.tensor([0, 0, 1])
EXPRESSIONS, MEMORIES, SIDE = len(FRAME_OF), 3, 4


def attention_of(layers: int, dropout: float = 0.0) -> Any:
    """A memory attention whose parameters are far from what they start as."""
    torch.manual_seed(3)
    sizes = replace(tiny_config().segmenter, memory_layers=layers, dropout=dropout)
    attention = Segmenter(sizes).sam2.memory_attention
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return attention


@dataclass(frozen=True)
class Given:
    """Tokens of frames, and of memories, with the encodings of their places."""

    frames: Tensor
    places: Tensor
    memories: tuple[Tensor, ...]
    memory_places: Tensor

    @classmethod
    def drawn(cls) -> "Given":
        random = torch.Generator().manual_seed(4)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random)

        tokens = SIDE * SIDE
        memories = tuple(draw(EXPRESSIONS, tokens, 16).requires_grad_() for _ in range(MEMORIES))
        frames = draw(VIDEOS, tokens, 32).requires_grad_()
        return cls(frames, draw(1, tokens, 32).expand(VIDEOS, -1, -1), memories, draw(1, tokens, 16))


def ours(attention: Any, given: Given) -> Tensor:
    frames, places, frame_of = given.frames, given.places, FRAME_OF
    memories = [remember_tokens(attention, tokens, given.memory_places) for tokens in given.memories]
    if drops(attention):
        frames, places, frame_of = frames[frame_of], places[frame_of], torch.arange(EXPRESSIONS)
    return look_back(attention, begin_attention(attention, frames, places), frame_of, memories)


def sam2s(attention: Any, given: Given) -> Tensor:
    def batch_second(tokens: Tensor) -> Tensor:
        return tokens.transpose(0, 1)

    memory_places = given.memory_places.expand(EXPRESSIONS, -1, -1)
    out: Tensor = attention(
        curr=[batch_second(given.frames[FRAME_OF])],
        curr_pos=[batch_second(given.places[FRAME_OF])],
        memory=batch_second(torch.cat(given.memories, dim=1)),
        memory_pos=batch_second(torch.cat([memory_places] * MEMORIES, dim=1)),
        num_obj_ptr_tokens=0,
    )
    return batch_second(out)


Run = Callable[[Any, Given], Tensor]


@pytest.mark.parametrize("layers", [1, 4])
@torch.no_grad()
def test_values_mixed_before_their_projection_give_what_sam2_gives(monkeypatch, layers):
    attention, given = attention_of(layers).eval(), Given.drawn()
    assert not remember_tokens(attention, given.memories[0], given.memory_places).projected
    torch.testing.assert_close(ours(attention, given), sam2s(attention, given), atol=5e-6, rtol=0)
    # Blocks that cut both queries and keys, as those of large frames do.
    monkeypatch.setattr(memory_attention, "_QUERIES", 5)
    monkeypatch.setattr(memory_attention, "_KEYS", 7)
    torch.testing.assert_close(ours(attention, given), sam2s(attention, given), atol=5e-6, rtol=0)


@torch.no_grad()
def test_scores_that_exp_cannot_hold_do_no_harm():
    """Keys of the second memory outweigh those of the first by far more than float32 reaches."""
    attention, given = attention_of(1).eval(), Given.drawn()
    for scale, tokens in zip((1.0, 3e3, 30.0), given.memories, strict=True):
        tokens.mul_(scale)
    expected = sam2s(attention, given)
    assert expected.isfinite().all()
    torch.testing.assert_close(ours(attention, given), expected, atol=1e-4, rtol=1e-4)


def gradients(run: Run, attention: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """The result, and the gradients of all parameters and inputs; a random direction is followed back."""
    given = Given.drawn()
    attention.zero_grad()
    torch.manual_seed(5)
    out = run(attention, given)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(6))).sum().backward()
    inputs = {"frames": given.frames, **{f"memory {place}": each for place, each in enumerate(given.memories)}}
    named = {**dict(attention.named_parameters()), **inputs}
    return out.detach(), {name: each.grad.clone() for name, each in named.items() if each.grad is not None}


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_has_the_outputs_and_gradients_of_sam2_and_draws_the_same_dropout(layers, dropout):
    attention = attention_of(layers, dropout).train()
    out, found = gradients(ours, attention)
    expected_out, expected = gradients(sam2s, attention)
    torch.testing.assert_close(out, expected_out, atol=5e-6, rtol=0)
    assert found.keys() == expected.keys() and len(found) == len(list(attention.parameters())) + 1 + MEMORIES
    for name, gradient in expected.items():
        largest = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, atol=2e-6 * max(largest, 1.0), rtol=0, msg=name)


def test_the_first_self_attention_is_computed_once_a_frame_and_keys_once_a_memory():
    attention, given = attention_of(4).eval(), Given.drawn()
    rows: dict[str, list[int]] = {"self": [], "keys": []}
    first, last = attention.layers[0], attention.layers[-1]
    first.self_attn.q_proj.register_forward_hook(lambda module, args, out: rows["self"].append(len(out)))
    last.cross_attn_image.k_proj.register_forward_hook(lambda module, args, out: rows["keys"].append(len(out)))
    with torch.no_grad():
        begun = begin_attention(attention, given.frames, given.places)
        memories = [remember_tokens(attention, tokens, given.memory_places) for tokens in given.memories]
        for seen in (1, 2, 3):
            look_back(attention, begun, FRAME_OF, memories[:seen])
    assert rows == {"self": [VIDEOS], "keys": [EXPRESSIONS] * MEMORIES}
