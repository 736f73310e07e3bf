"""What `glus segment` writes: the benchmarks' layout for one video, renamed when it is complete.

OUT/masks/VIDEO/EXP_ID/FRAME.png    one a frame, in the one form of masks (mask_png.py): 8-bit grey, 0 and 255
OUT/meta_expressions.json           which expression an EXP_ID is, as in MeViS, and what was counted
OUT/overlay.mp4, contact_sheet.png  pictures of it (segment_pictures.py)
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glus.common.errors import EvaluationError
from glus.common.files import make_folder_aside
from glus.evaluation.predict.background import WriteBehind
from glus.evaluation.predict.mask_png import encode_mask, read_mask
from glus.evaluation.segment.clip import Clip

MASKS, DOCUMENT = "masks", "meta_expressions.json"
OVERLAY, SHEET = "overlay.mp4", "contact_sheet.png"


@contextmanager
def renamed_when_complete(out: Path) -> Iterator[Path]:
    """Yield a new folder next to `out`; rename it to `out` when the block ends well, else remove it.

    Raises EvaluationError where `out` is there already and not an empty folder, or cannot be written.
    """
    check_free(out)
    out = out.absolute()
    aside: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = make_folder_aside(out.parent, f".{out.name}.", ".part")
        yield aside
        os.rename(aside, out)
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(out.parent):
            raise  # about something that is read
        raise EvaluationError(
            f"{out}: cannot be written ({error.strerror or error}); make room or choose another `out`. No half-written "
            "folder was left"
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raises EvaluationError where `out` is there already and not an empty folder."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise EvaluationError(f"{out} is there already: choose another `out`, or remove it first")


@dataclass
class Outcome:
    """What came out for one expression: its key frame's index, frames without [SEG], frames whose mask is not empty."""

    text: str
    key_frame: int
    frames_without_seg: int = 0
    frames_with_mask: int = 0


@dataclass
class MaskFiles:
    """Masks of a clip below `folder`, written as they come; `outcomes` (one an expression, in order) count them."""

    folder: Path
    clip: Clip
    outcomes: list[Outcome]
    _made: set[int] = field(default_factory=set)

    def write(
        self,
        index: int,
        expressions: Sequence[int],
        masks: NDArray[np.bool_],
        answered: Sequence[bool],
        behind: WriteBehind,
    ) -> None:
        """Write frame `index` of some expressions: masks bool [n, H, W]; one that was not answered is to be empty.

        They are counted at once, and written by `behind`.
        """
        for expression, mask, seg in zip(expressions, masks, answered, strict=True):
            if expression not in self._made:
                self._place(expression, index).parent.mkdir(parents=True)
                self._made.add(expression)
            outcome = self.outcomes[expression]
            outcome.frames_without_seg += not seg
            outcome.frames_with_mask += bool(mask.any())
            behind.call(_write_mask, self._place(expression, index), mask)

    def read(self, index: int) -> NDArray[np.bool_]:
        """Masks of frame `index`, bool [E, H, W]."""
        masks = np.empty((len(self.outcomes), *self.clip.size), np.bool_)
        for expression in range(len(self.outcomes)):
            masks[expression] = read_mask(self._place(expression, index), *self.clip.size)
        return masks

    def write_document(self) -> None:
        """Write meta_expressions.json."""
        names = self.clip.frame_names
        expressions = {
            str(number): {
                "exp": outcome.text,
                "key_frame": names[outcome.key_frame],
                "frames_without_seg": outcome.frames_without_seg,
                "frames_with_mask": outcome.frames_with_mask,
            }
            for number, outcome in enumerate(self.outcomes)
        }
        document = {"videos": {self.clip.name: {"frames": list(names), "expressions": expressions}}}
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (self.folder / DOCUMENT).write_text(f"{text}\n", encoding="utf-8")

    def _place(self, expression: int, index: int) -> Path:
        return self.folder / MASKS / self.clip.name / str(expression) / f"{self.clip.frame_names[index]}.png"


def _write_mask(place: Path, mask: NDArray[np.bool_]) -> None:
    place.write_bytes(encode_mask(mask))
