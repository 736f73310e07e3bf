"""SAM 2's memory of a clip as a value: frames decoded so far, their masks encoded. Passed in and out, never hidden."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """What memory attention reads of one decoded frame of N tokens, for E expressions (model/memory_attention.py).

    keys: one a layer, float [E, N, C], their places encoded; values: with `projected` one a layer, float [E, N, C],
    else the frame's own tokens alone, float [E, N, D], which each layer projects once they are mixed.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    projected: bool


@dataclass(frozen=True)
class MemoryBank:
    """Memories by position in the clip (0 is the key frame). Adding gives a new bank; the old one stays as it is."""

    memories: dict[int, Memory]
    size: int = 7

    @classmethod
    def empty(cls, size: int) -> "MemoryBank":
        """A bank that has seen no frame; `size` is SAM 2's num_maskmem."""
        return cls({}, size)

    def with_frame(self, position: int, memory: Memory, stride: int = 1) -> "MemoryBank":
        """The bank after frame `position`; what no later frame attends to is dropped, so memory stays bounded."""
        oldest = position - self.size * stride
        # Every `stride`-th frame stays long, any other for the next frame alone.
        kept = {place: held for place, held in self.memories.items() if place >= oldest and place % stride == 0}
        return MemoryBank(kept | {position: memory}, self.size)

    def for_frame(self, position: int, stride: int = 1) -> list[Memory]:
        """Memories that frame `position` looks at, oldest first: every `stride`-th frame, and the one before.

        Source: the reference's GLUS.get_visual_embs, itself after SAM2Base._prepare_memory_conditioned_features.
        """
        wanted = []
        for slot in range(self.size):
            back = self.size - slot
            place = position - 1 if back == 1 else ((position - 2) // stride) * stride - (back - 2) * stride
            wanted.append(place)
        return [self.memories[place] for place in wanted if place >= 0 and place in self.memories]
