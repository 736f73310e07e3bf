"""Which part of the model an operation belongs to, and which line of ours asked for it: read off Python's stack."""

import sys
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
OTHER = "other"

#: (end of a file's path or of its folder, beginning of a function's qualified name, part): the innermost frame counts.
_PARTS: tuple[tuple[str, str, str], ...] = (
    ("model/preprocess.py", "", "frames resized"),
    ("model/losses.py", "", "mask losses and cross-entropy"),
    ("batches/mask_runs.py", "", "mask losses and cross-entropy"),
    ("model/contrastive.py", "", "contrastive loss"),
    ("language/language.py", "Language.logits", "heads"),
    ("language/language.py", "Language.seg_states", "heads"),
    ("language/language.py", "Language.project", "CLIP and projector"),
    ("models/clip/modeling_clip.py", "", "CLIP and projector"),
    ("models/llama/modeling_llama.py", "", "language model"),
    ("models/phi3/modeling_phi3.py", "", "language model"),
    ("models/qwen3/modeling_qwen3.py", "", "language model"),
    ("language/prompt_rows.py", "", "language model"),
    ("language/language.py", "", "language model"),
    ("backbones/image_encoder.py", "", "image encoder"),
    ("backbones/hieradet.py", "", "image encoder"),
    ("modeling/memory_attention.py", "", "memory attention"),
    ("model/memory_attention.py", "", "memory attention"),
    ("modeling/memory_encoder.py", "", "memory encoder"),
    ("sam/mask_decoder.py", "", "mask decoder"),
    ("model/segmenter.py", "Segmenter._look_back", "memory attention"),
    ("model/segmenter.py", "Segmenter._remember", "memory encoder"),
    ("model/segmenter.py", "Segmenter._decode", "mask decoder"),
    ("model/segmenter.py", "Segmenter.full_size", "mask losses and cross-entropy"),
    ("model/segmenter.py", "Segmenter.encode", "image encoder"),
    ("model/segmenter.py", "", "mask decoder"),
)


@dataclass(frozen=True)
class Where:
    """part: of the model; place: "file:function" of the innermost frame of ours, "" where there is none."""

    part: str
    place: str


def _look_up(code: CodeType) -> tuple[str, str]:
    file = Path(code.co_filename).resolve()
    part = next(
        (part for end, name, part in _PARTS if file.as_posix().endswith(end) and code.co_qualname.startswith(name)), ""
    )
    own = ROOT in file.parents and "site-packages" not in file.parts and HERE not in file.parents
    return part, f"{file.relative_to(ROOT).as_posix()}:{code.co_qualname}" if own else ""


@dataclass
class Parts:
    """Assigns operations to parts: forward by the stack, backward by the number of the node that runs."""

    #: From which number of a node on the graph belongs to which part; numbers rise.
    _numbers: list[int] = field(default_factory=list)
    _names: list[Where] = field(default_factory=list)
    #: id of a code object -> part, place and the object, which keeps the id its own: its hash looks at all of it.
    _codes: dict[int, tuple[str, str, CodeType]] = field(default_factory=dict)

    def now(self) -> Where:
        """Where the operation that is being dispatched belongs."""
        found = self._stack()
        node: Any = torch._C._current_autograd_node()
        if node is None:
            self._note(found)
            return found
        if found.part != OTHER:  # recomputed
            return found
        if node.name().endswith("AccumulateGrad"):
            return Where("gradients", "backward:AccumulateGrad")
        at = bisect_right(self._numbers, node._sequence_nr()) - 1
        part = self._names[at].part if at >= 0 else OTHER
        return Where(part, f"backward:{node.name()}")

    def _note(self, found: Where) -> None:
        # The node of an operation is made just before the operation runs.
        number = torch.autograd._get_sequence_nr() - 1  # type: ignore[attr-defined]
        if not self._names or self._names[-1].part != found.part:
            self._numbers.append(number)
            self._names.append(found)

    def _stack(self) -> Where:
        frame, part, place = sys._getframe(2), "", ""
        while frame is not None and not (part and place):
            of_part, of_place = self._of_code(frame.f_code)
            part, place = part or of_part, place or of_place
            frame = frame.f_back  # type: ignore[assignment]
        return Where(part or OTHER, place)

    def _of_code(self, code: CodeType) -> tuple[str, str]:
        """(part, place) of a frame's code, each "" where it has none."""
        known = self._codes.get(id(code))
        if known is None:
            known = self._codes[id(code)] = (*_look_up(code), code)
        return known[0], known[1]
