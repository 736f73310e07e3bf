"""How a stored picture is turned before it is shown: EXIF's eight orientations, and the display matrix of a video."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: What players do for each of EXIF's values (tag 0x0112).
_WORDS = {
    1: "upright",
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored and turned by 90 degrees",
    6: "turned by 90 degrees clockwise",
    7: "mirrored and turned by 270 degrees",
    8: "turned by 270 degrees clockwise",
}
#: (sides swapped, mirrored left to right after that, mirrored top to bottom) of each value.
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Orientation:
    """One of EXIF's values, 1 (as stored) to 8."""

    value: int = 1

    @classmethod
    def of_matrix(cls, matrix: bytes) -> "Orientation | None":
        """The orientation of FFmpeg's display matrix (nine int32: a b u c d v x y w); None for any other angle."""
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
        # A point (p, q) goes to (a p + c q, b p + d q). Scales do not matter, only what is turned.
        small = 0.02 * max(abs(a), abs(b), abs(c), abs(d))
        if a and d and max(abs(b), abs(c)) <= small:
            steps = (False, a < 0, d < 0)
        elif b and c and max(abs(a), abs(d)) <= small:
            steps = (True, c < 0, b < 0)
        else:
            return None
        return cls(next(value for value, each in _STEPS.items() if each == steps))

    @property
    def upright(self) -> bool:
        return self.value == 1

    @property
    def swaps(self) -> bool:
        """Whether height and width change places."""
        return _STEPS[self.value][0]

    def __str__(self) -> str:
        return _WORDS[self.value]

    def size_shown(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) as shown of a picture that is stored with this height and width."""
        return (width, height) if self.swaps else (height, width)

    def show(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture, uint8 [H, W, ...], as players show it."""
        swapped, across, down = _STEPS[self.value]
        if swapped:
            picture = picture.swapaxes(0, 1)
        if across:
            picture = picture[:, ::-1]
        if down:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)
