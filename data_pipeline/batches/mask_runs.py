"""Masks on their way to the model's device: where they begin and end, a few kB instead of megabytes of pixels."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MaskRuns:
    """Masks of E expressions, bool [E, Q, H, W], as runs of set pixels that are painted where they are needed.

    begins, ends: int64 [N], places in the pixels of S object sets by Q frames, the columns of each plane one after the
    other; runs may overlap: what any of them covers is set; covered: the sum of their lengths;
    set_of: int64 [E], each expression's object set; size: (S, Q, H, W);
    void: pixels that nobody annotated, bool [1, Q, H, W], which count in no loss; None where there are none.
    """

    begins: Tensor
    ends: Tensor
    covered: int
    set_of: Tensor
    size: tuple[int, int, int, int]
    void: "MaskRuns | None" = None

    @property
    def shape(self) -> torch.Size:
        """Of `painted()`."""
        return torch.Size([len(self.set_of), *self.size[1:]])

    def painted(self) -> Tensor:
        """bool [E, Q, H, W], on the device where the runs are."""
        sets, frames, height, width = self.size
        device, lengths = self.begins.device, self.ends - self.begins
        # The place of each set pixel: its run's begin, and how many pixels of the run come before it. That their number
        # is known beforehand spares a GPU the wait for it.
        before = lengths.cumsum(0) - lengths
        places = torch.repeat_interleave(self.begins - before, lengths, output_size=self.covered)
        places += torch.arange(self.covered, device=device)
        columns = torch.zeros(sets * frames * width * height, dtype=torch.bool, device=device).index_fill_(
            0, places, True
        )
        planes = columns.view(sets, frames, width, height).transpose(2, 3).contiguous()
        return planes.index_select(0, self.set_of)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MaskRuns":
        """The same on another device (asynchronously from pinned memory)."""
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in _TENSORS}
        return replace(self, **moved, void=self.void and self.void.to(device, non_blocking))

    def pin_memory(self) -> "MaskRuns":
        """The same in pinned memory."""
        pinned = {name: getattr(self, name).pin_memory() for name in _TENSORS}
        return replace(self, **pinned, void=self.void and self.void.pin_memory())

    @classmethod
    def between(
        cls,
        begins: Tensor,
        ends: Tensor,
        set_of: Tensor,
        size: tuple[int, int, int, int],
        void: "MaskRuns | None" = None,
    ) -> "MaskRuns":
        """Runs on the CPU, what they cover counted."""
        return cls(begins, ends, int((ends - begins).sum()), set_of, size, void)

    @classmethod
    def of(cls, masks: Tensor) -> "MaskRuns":
        """The runs of masks that are pixels already, bool [E, Q, H, W], each expression a set of its own."""
        expressions, frames, height, width = masks.shape
        columns = masks.transpose(2, 3).reshape(expressions * frames, height * width).to(torch.int8)
        edges = F.pad(columns, (1, 1)).diff(dim=1)
        plane, begins = (edges > 0).nonzero(as_tuple=True)
        _, ends = (edges < 0).nonzero(as_tuple=True)
        shift = plane * (height * width)
        size = (expressions, frames, height, width)
        return cls.between(begins + shift, ends + shift, torch.arange(expressions, device=masks.device), size)


_TENSORS = ("begins", "ends", "set_of")
