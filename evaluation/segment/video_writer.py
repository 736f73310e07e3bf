"""Video files that play everywhere: H.264 in MP4, 4:2:0, its index first; each frame is shown when it is due."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from glus.common.errors import EvaluationError

#: Constant quality: no visible loss. Few frames are looked ahead, so that few are in memory.
_OPTIONS = {"crf": "18", "preset": "veryfast", "rc-lookahead": "10", "threads": "2"}
#: Finest unit of time: a ninety-thousandth of a second, which broadcast uses.
_TICKS = 90_000
_BT709 = 1
#: The length is kept in a unit of its own: in milliseconds, the default, the last frame could be cut.
_CONTAINER = {"movflags": "+faststart", "movie_timescale": str(_TICKS)}


class VideoWriter:
    """An MP4 that is written frame by frame: a context manager that finishes the file.

    `times`: when each frame is shown, in seconds from the first, rising; the last is shown as long as `rate` says.
    """

    def __init__(self, place: Path, size: tuple[int, int], times: Sequence[Fraction], rate: Fraction) -> None:
        """`size`: (height, width) of the frames, both even. The file is opened with the first frame."""
        self._place = place
        self._unit = _unit(times)
        self._ticks: list[int] = []
        for time in times:
            self._ticks.append(max(round(time / self._unit), self._ticks[-1] + 1 if self._ticks else 0))
        ends = [*self._ticks[1:], self._ticks[-1] + max(1, round(1 / rate / self._unit))]
        self._durations = {tick: end - tick for tick, end in zip(self._ticks, ends, strict=True)}
        self._count = 0
        self._output: OutputContainer = av.open(str(place.absolute()), "w", format="mp4", container_options=_CONTAINER)
        self._stream: VideoStream = self._output.add_stream(
            "libx264", rate=rate.limit_denominator(65535), options=_OPTIONS
        )
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        coder = self._stream.codec_context
        coder.time_base = self._unit
        coder.color_range = ColorRange.MPEG
        coder.colorspace = coder.color_primaries = coder.color_trc = _BT709

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Add the next frame, uint8 [H, W, 3] RGB. Raises EvaluationError where it cannot be written."""
        frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            dst_color_trc=ColorTrc.BT709,
            dst_color_primaries=ColorPrimaries.BT709,
        )
        frame.pts, frame.time_base = self._ticks[self._count], self._unit
        self._count += 1
        self._mux(frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._mux(None)
        try:
            self._output.close()
        except (av.FFmpegError, OSError) as failed:
            if kind is None:
                raise self._unwritable(failed) from failed

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                if packet.pts is not None:
                    due = round(packet.pts * packet.time_base / self._unit)
                    packet.duration = round(self._durations[due] * self._unit / packet.time_base)
                self._output.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> EvaluationError:
        reason = getattr(error, "strerror", None) or error
        return EvaluationError(f"{self._place}: cannot be written ({reason}); make room or choose another folder")


def even_times(count: int, rate: Fraction) -> list[Fraction]:
    """When frames of a constant rate are shown, in seconds from the first."""
    return [index / rate for index in range(count)]


def _unit(times: Sequence[Fraction]) -> Fraction:
    """The unit of time in which all times are integers, or the finest that is used."""
    unit = math.lcm(*(time.denominator for time in times))
    return Fraction(1, unit if unit <= _TICKS else _TICKS)
