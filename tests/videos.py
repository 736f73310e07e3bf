"""Video files that tests write: whole ones, and ones whose header promises more than there is."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np


def write_video(path: Path, frames: Iterable[np.ndarray], codec: str = "MJPG") -> Path:
    """Frames, uint8 [H, W, 3] BGR, at five a second."""
    writer = None
    for frame in frames:
        height, width = frame.shape[:2]
        writer = writer or cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 5, (width, height))
        writer.write(frame)
    if writer is not None:
        writer.release()
    return path


def without_its_end(path: Path, share: float) -> Path:
    """The same video, the last `share` of its samples overwritten: the header still promises them."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4], "big") - 8
    begin = start + int(size * (1 - share))
    content[begin : start + size] = bytes(start + size - begin)
    path.write_bytes(content)
    return path
