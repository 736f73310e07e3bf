"""What a pass over a video file found: which frames it holds, which of them are lost, and where damage may show.

A frame's number is its place among all frames that the file shows, those included that cannot be decoded: a lost frame
leaves a gap, and later frames keep their numbers. Packets that an edit list hides are not shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from glus.data_pipeline.raw.orientation import Orientation

#: Every so many frames a checksum is kept.
SAMPLED = 16
#: Containers in which a packet is a frame (VP8's hidden ones aside).
_FRAME_PACKETS = ("mov", "matroska", "avi")
#: Containers without an index: what is lost between two packets shows in the times only.
_UNINDEXED = ("mpegts", "mpeg", "matroska")
#: Formats of pixels that decord gives to the bit as FFmpeg does.
_PLAIN_PIXELS = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
_SHOWN = 12


@dataclass(frozen=True)
class LostFrame:
    """A frame that cannot be decoded, and when it is shown, in seconds from the first frame; None where unknown."""

    number: int
    seconds: float | None


@dataclass(frozen=True)
class Survey:
    """The frames of a video file.

    `numbers`: of each frame that decodes, rising; `given`: the same in the order in which the decoder gives them, which
    is another one after damage; `times`: when each is shown, seconds from the first, or None where
    the file does not say; `promised`: how many frames the file shows, lost ones included; `lost`: those that cannot be
    decoded; `doubtful`: numbers of frames that decode but may show traces of damage; `size`: (height, width) as shown;
    `turned`: what is done to a stored picture; `rate`: frames a second, 0 unknown; `samples`: a frame's CRC-32 of RGB
    bytes as stored, or None; `plain`: whether nothing about the file is odd; `notes`: what the user should know of it.
    """

    numbers: tuple[int, ...]
    given: tuple[int, ...]
    times: tuple[Fraction, ...] | None
    promised: int
    lost: tuple[LostFrame, ...]
    doubtful: tuple[int, ...]
    size: tuple[int, int]
    turned: Orientation
    rate: Fraction
    samples: tuple[int | None, ...]
    plain: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DecodedFrame:
    """One frame that came out of the decoder; `pts` is its time in the stream's unit."""

    pts: int | None
    key: bool
    corrupt: bool
    interlaced: bool
    pixels: str
    sample: int | None


@dataclass
class Packets:
    """A pass over a file as it goes on. `errors`: time of a packet that failed, and how many frames came before."""

    format: str
    codec: str
    rate: Fraction | None
    time_base: Fraction | None
    frames: list[DecodedFrame] = field(default_factory=list)
    errors: list[tuple[int | None, int]] = field(default_factory=list)
    shown: list[int | None] = field(default_factory=list)
    packets: int = 0
    ends: float = 0.0
    others: bool = False
    stopped: str = ""
    indexed: int = 0
    header_frames: int = 0
    header_rate: Fraction | None = None
    header_seconds: float = 0.0

    def add(self, pts: int | None, duration: int | None, hidden: bool, content: bytes) -> None:
        """A packet of the video stream."""
        self.packets += 1
        self.note_end(pts, duration, self.time_base, other=False)
        # VP8 has packets that only later frames look at: bit 4 of the first byte says that a frame is shown.
        if not hidden and not (self.codec.startswith(("vp8", "libvpx")) and not content[0] & 0x10):
            self.shown.append(pts)

    def note_end(self, pts: int | None, duration: int | None, time_base: Fraction | None, other: bool = True) -> None:
        """A packet of any stream: how far the file goes."""
        self.others |= other
        if pts is not None and time_base:
            self.ends = max(self.ends, float((pts + (duration or 0)) * time_base))

    def summed_up(self, path: Path, size: tuple[int, int], turned: Orientation, streams: int, stream: int) -> Survey:
        """The result; `size` is that of the frames as stored, of `streams` video streams number `stream` was read."""
        order = self._order()
        numbers = tuple(number for number, (_, frame) in enumerate(order) if frame is not None)
        start = next((pts for pts, _ in order if pts is not None), 0)
        unit = self.time_base or Fraction(0)
        times = self._times(order)
        lost = [
            LostFrame(number, None if pts is None else float((pts - start) * unit))
            for number, (pts, frame) in enumerate(order)
            if frame is None
        ]
        missing = self._missing_at_the_end()
        lost += [LostFrame(len(order) + number, None) for number in range(missing)]
        doubtful = self._doubtful(order)
        promised = len(order) + missing
        notes = []
        if lost:
            notes.append(
                f"{path}: its header promises {promised} frames, {len(numbers)} can be decoded; lost: {_listed(lost)}"
            )
        if doubtful:
            shown = _ranges(doubtful)
            notes.append(f"{path}: decoded with errors, or before the next key frame after damage: frames {shown}")
        if self.stopped:
            notes.append(f"{path}: cannot be read behind frame {promised - 1} ({self.stopped})")
        elif seconds := self._cut_short():
            notes.append(
                f"{path}: its header says {seconds:.2f} s, but it ends at {self.ends:.2f} s; it may be cut off"
            )
        if missed := self._missed():
            notes.append(f"{path}: {missed}")
        if streams > 1:
            notes.append(f"{path}: holds {streams} video streams; stream {stream} is read")
        return Survey(
            numbers=numbers,
            given=self._given(order),
            times=times,
            promised=promised,
            lost=tuple(lost),
            doubtful=tuple(doubtful),
            size=turned.size_shown(*size),
            turned=turned,
            rate=self._rate(numbers, times),
            samples=tuple(frame.sample for frame in self.frames),
            plain=not notes and turned.upright and self._ordinary(),
            notes=tuple(notes),
        )

    def _order(self) -> list[tuple[int | None, DecodedFrame | None]]:
        """Time of every frame that the file shows, in order; None for a frame that cannot be decoded."""
        decoded = {frame.pts: frame for frame in self.frames}
        times = [frame.pts for frame in self.frames if frame.pts is not None]
        known = len(set(times)) == len(self.frames)
        failed = [pts for pts, _ in self.errors if pts is not None and pts not in decoded]
        if not known or len(failed) != len(self.errors):
            order: list[tuple[int | None, DecodedFrame | None]] = [(frame.pts, frame) for frame in self.frames]
            for pts, before in reversed(self.errors):
                order.insert(before, (pts, None))
            return order
        shown = {pts for pts in self.shown if pts is not None}
        if self.format.startswith(_FRAME_PACKETS) and len(shown) == len(self.shown) and shown.issuperset(times):
            silent = len(shown) - len(times)
            # Without any error half of the packets gave no frame: each holds a field, two make a frame.
            if self.errors or silent < 0.4 * len(shown):
                return [(pts, decoded.get(pts)) for pts in sorted({*shown, *failed})]
        return [(pts, decoded.get(pts)) for pts in sorted({*times, *failed})]

    def _given(self, order: Sequence[tuple[int | None, DecodedFrame | None]]) -> tuple[int, ...]:
        """The number of each decoded frame, in the decoder's order."""
        number_of = {id(frame): number for number, (_, frame) in enumerate(order) if frame is not None}
        return tuple(number_of[id(frame)] for frame in self.frames)

    def _doubtful(self, order: Sequence[tuple[int | None, DecodedFrame | None]]) -> list[int]:
        """Numbers of frames that the decoder found damaged, or decoded after damage and before the next key frame.

        Frames that are shown before a damaged one may be decoded after it, and look at it.
        """
        place = {pts: index for index, pts in enumerate(self.shown)}
        numbers = list(range(len(order)))
        if all(pts in place for pts, _ in order):
            numbers.sort(key=lambda number: place[order[number][0]])
        found = set[int]()
        for sequence in (numbers, range(len(order))):  # as decoded, and as shown
            damaged, clean_from = False, 0
            for number in sequence:
                frame = order[number][1]
                if frame is None or frame.corrupt:
                    damaged, clean_from = True, len(order)
                elif frame.key and damaged:
                    clean_from = min(clean_from, number)
                if frame is not None and damaged and number < clean_from:
                    found.add(number)
        return sorted(found)

    def _missed(self) -> str:
        """What a container without an index misses: packets before the first frame, jumps in otherwise even times."""
        times = sorted(frame.pts for frame in self.frames if frame.pts is not None)
        if not self.format.startswith(_UNINDEXED) or len(times) != len(self.frames) or self.errors:
            return ""
        early = sum(pts is not None and pts < times[0] for pts in self.shown)
        if early and not self.format.startswith(_FRAME_PACKETS):
            return f"its first {early} packets give no frame; frames may be lost at the start"
        steps = [after - before for before, after in zip(times, times[1:], strict=False)]
        usual = sorted(steps)[len(steps) // 2] if steps else 0
        jumps = [index for index, step in enumerate(steps) if step >= 1.7 * usual]
        even = sum(abs(step - usual) <= 0.1 * usual + 1 for step in steps)
        if usual <= 0 or not jumps or even + len(jumps) < len(steps) or len(jumps) > 0.1 * len(steps) + 1:
            return ""
        lost = sum(round(steps[index] / usual) - 1 for index in jumps)
        return f"its times jump after frames {_ranges(jumps)}; about {lost} frames may be lost there"

    def _missing_at_the_end(self) -> int:
        """Packets that the container's index lists behind the last one that was there."""
        if self.format.startswith("mov"):
            return max(0, self.indexed - self.packets)
        if self.format.startswith("avi"):
            listed = self.header_frames if self.header_rate == self.rate else 0
            return max(0, self.indexed - self.packets, listed - self.packets)
        return 0

    def _cut_short(self) -> float:
        """Seconds that the header says, where the file ends clearly earlier; else 0."""
        seconds = 0.0
        if self.format.startswith("matroska"):
            seconds = self.header_seconds
        elif self.format.startswith("avi") and self.header_rate:
            seconds = float(self.header_frames / self.header_rate)
        # Sound and pictures need not end together; without sound the last frames' lengths may be unknown.
        slack = (0.25 if self.others else 0.0) + (2.5 / float(self.rate) if self.rate else 0.25)
        return seconds if seconds > self.ends + slack else 0.0

    def _times(self, order: Sequence[tuple[int | None, DecodedFrame | None]]) -> tuple[Fraction, ...] | None:
        times = [pts for pts, frame in order if frame is not None and pts is not None]
        rising = all(a < b for a, b in zip(times, times[1:], strict=False))
        if self.time_base is None or len(times) != len(self.frames) or not rising or self.format == "avi":
            return None  # AVI has a rate only
        return tuple((pts - times[0]) * self.time_base for pts in times)

    def _rate(self, numbers: Sequence[int], times: Sequence[Fraction] | None) -> Fraction:
        """Frames a second over the file's length, lost ones included; `numbers` and `times` of those that are there."""
        listed = self.rate or Fraction(0)
        if times is None or len(times) < 2:
            return listed
        measured = (numbers[-1] - numbers[0]) / times[-1]
        # Matroska rounds times to milliseconds; the rate that it lists is exact.
        return listed if abs(measured - listed) < 0.02 * measured else measured

    def _ordinary(self) -> bool:
        pixels = {frame.pixels for frame in self.frames}
        complete = len(self.shown) == self.packets == len(self.frames)
        smooth = not any(frame.interlaced for frame in self.frames)
        return (
            complete
            and smooth
            and len(pixels) == 1
            and pixels <= _PLAIN_PIXELS
            and self.format.startswith(_FRAME_PACKETS)
        )


def _ranges(numbers: Sequence[int]) -> str:
    """ "3, 5 to 8" of rising numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{first}" if first == last else f"{first} to {last}" for first, last in runs[:_SHOWN]]
    more = [f"and {len(runs) - _SHOWN} more places"] if len(runs) > _SHOWN else []
    return ", ".join(shown + more)


def _listed(lost: Sequence[LostFrame]) -> str:
    first = lost[0].seconds
    where = "" if first is None else f", the first at {first:.3f} s"
    return f"frame{'s' if len(lost) > 1 else ''} {_ranges([each.number for each in lost])}{where}"
