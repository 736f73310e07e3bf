"""SAM 2's memory attention, each thing computed once. The parameters, and their names, are those of sam2's module.

    state = frame + 0.1 * place                                      of the frame alone
    each layer: state += self-attention(state)                       in the first layer of the frame alone
                state += cross-attention(state, memories)            keys and values were made with the memory
                state += MLP(state)

sam2's own forward does all of it for every expression, and makes keys and values of all memories in every frame.
The results are the same to about 1e-6 (tests/model/test_memory_attention.py), gradients too. Under dropout each
expression draws for itself, as in sam2: then the first layer is not shared either.

On a CPU without gradients, values are mixed as the D numbers that a memory's tokens have and projected to C after that.
Attention weights add up to 1, so weights @ (tokens @ W + b) = (weights @ tokens) @ W + b. Kernels of GPUs want keys and
values of one width; there, and where gradients flow, values are projected when they are remembered.

Parameters are read through their own modules, inside `Segmenter.forward`, which ZeRO-3 gathers as one leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glus.model.memory import Memory
from glus.model.sam2_parts import rotate

#: sam2's MemoryAttention, which sam2_parts builds.
MemoryAttention = Any
#: Queries a thread and keys that are compared at a time on a CPU: the scores stay in its cache.
_QUERIES, _KEYS = 256, 1024


@dataclass(frozen=True)
class Begun:
    """The first layer of V frames up to its cross-attention: state and queries, float [V, N, C] each."""

    state: Tensor
    query: Tensor


def drops(attention: MemoryAttention) -> bool:
    """Whether dropout is drawn, for each expression apart."""
    return bool(attention.training and attention.layers[0].dropout_value)


def begin_attention(attention: MemoryAttention, frames: Tensor, places: Tensor) -> Begun:
    """What no memory and no expression changes. frames, places: tokens of V frames and their encoding, [V, N, C]."""
    layer = attention.layers[0]
    state = layer._forward_sa(frames + 0.1 * places, None)
    return Begun(state, _query(layer, state))


def remember_tokens(attention: MemoryAttention, tokens: Tensor, places: Tensor) -> Memory:
    """Keys and values of a decoded frame. tokens: float [E, N, D]; places: float [1, N, D], their encoding."""
    crosses = [layer.cross_attn_image for layer in attention.layers]
    placed = tokens + places
    keys = tuple(rotate(cross, cross.k_proj(placed)) for cross in crosses)
    exact = torch.finfo(tokens.dtype).bits >= 32
    if tokens.device.type == "cpu" and exact and not torch.is_grad_enabled() and not drops(attention):
        return Memory(keys, (tokens,), projected=False)
    return Memory(keys, tuple(cross.v_proj(tokens) for cross in crosses), projected=True)


def look_back(attention: MemoryAttention, begun: Begun, frame_of: Tensor, memories: Sequence[Memory]) -> Tensor:
    """Tokens of E expressions that have looked at one memory or more: float [E, N, C].

    begun: of V frames (of the expressions, one row each, where dropout is drawn); frame_of: int64 [E].
    """
    state, query = rows_of(begun.state, frame_of), begun.query
    for number, layer in enumerate(attention.layers):
        if number:
            state = layer._forward_sa(state, None)
            query, frame_of = _query(layer, state), torch.arange(len(state), device=state.device)
        cross = layer.cross_attn_image
        keys = [memory.keys[number] for memory in memories]
        if memories[0].projected:
            values = torch.cat([memory.values[number] for memory in memories], dim=1).unsqueeze(1)
            dropout = cross.dropout_p if cross.training else 0.0
            asked, given = rows_of(query, frame_of).unsqueeze(1), torch.cat(keys, dim=1).unsqueeze(1)
            mixed = F.scaled_dot_product_attention(asked, given, values, dropout_p=dropout).squeeze(1)
        else:
            mixed = cross.v_proj(_mix(query, frame_of, keys, [memory.values[0] for memory in memories]))
        state = state + layer.dropout2(cross.out_proj(mixed))
        inner = layer.activation(layer.linear1(layer.norm3(state)))
        state = state + layer.dropout3(layer.linear2(layer.dropout(inner)))
    out: Tensor = attention.norm(state)
    return out


def rows_of(frames: Tensor, frame_of: Tensor) -> Tensor:
    """[V, ...] -> [E, ...]: the frame of each expression, int64 [E]; one frame is not copied."""
    return frames.expand(len(frame_of), *frames.shape[1:]) if len(frames) == 1 else frames[frame_of]


def _query(layer: Any, state: Tensor) -> Tensor:
    cross = layer.cross_attn_image
    query: Tensor = rotate(cross, cross.q_proj(layer.norm2(state)))
    return query


def _mix(query: Tensor, frame_of: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """softmax(query @ keys.T / sqrt(C)) @ values over several memories, keys [E, N, C], values [E, N, D]: [E, N, D].

    Softmax goes on from block to block of keys, as in FlashAttention (Dao et al. 2022).
    """
    asked = query * query.shape[-1] ** -0.5
    together = _QUERIES * torch.get_num_threads()
    out = torch.empty_like(values[0])
    for row, frame in enumerate(frame_of.tolist()):
        blocks = [
            pair
            for of_keys, of_values in zip(keys, values, strict=True)
            for pair in zip(of_keys[row].split(_KEYS), of_values[row].split(_KEYS), strict=True)
        ]
        for some, into in zip(asked[frame].split(together), out[row].split(together), strict=True):
            _mix_block(some, blocks, into)
    return out


def _mix_block(query: Tensor, blocks: Sequence[tuple[Tensor, Tensor]], out: Tensor) -> None:
    """Fill `out` [n, D] for queries [n, C], scaled, over blocks of keys [m, C] and values [m, D]."""
    top = query.new_full((len(query), 1), float("-inf"))
    total = torch.zeros_like(top)
    out.zero_()
    for keys, values in blocks:
        scores = query @ keys.T
        higher = torch.maximum(top, scores.amax(1, keepdim=True))
        weights = scores.sub_(higher).exp_()
        shrunk = (top - higher).exp_()
        total.mul_(shrunk).add_(weights.sum(1, keepdim=True))
        out.mul_(shrunk).addmm_(weights, values)
        top = higher
    out.div_(total)
