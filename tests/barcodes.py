"""Video files whose frames show their own number, written by PyAV in many containers and codecs.

Squares of 16 pixels stand in the first row of a frame; square b is white where bit b of the number is set. A white
bar down the left side below them and a grey one at the bottom tell every turned or mirrored picture from the upright.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH, BITS, SIDE = 112, 160, 6, 16
BLACK, GREY, WHITE = 16, 110, 235

Picture = NDArray[np.uint8]


def draw(number: int, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """uint8 [H, W, 3] RGB of frame `number`: its bar code, the two bars, and a blue square that moves."""
    picture = np.full((height, width, 3), 60, np.uint8)
    for bit in range(BITS):
        picture[:SIDE, bit * SIDE : (bit + 1) * SIDE] = WHITE if number >> bit & 1 else BLACK
    picture[SIDE * 2 :, :SIDE] = WHITE
    picture[-SIDE:, SIDE:] = GREY
    left = SIDE + 4 * number % (width - 3 * SIDE)
    picture[3 * SIDE : 5 * SIDE, left : left + SIDE] = (20, 40, 200)
    return picture


def number_shown(picture: Picture) -> int:
    """The number that a picture's bar code shows; -1 where the picture is turned, mirrored or none of ours."""
    grey = picture.astype(np.float32).mean(2)
    height = grey.shape[0]
    left, bottom = grey[3 * SIDE : height - 4, 4 : SIDE - 4], grey[-SIDE + 4 : -4, SIDE + 4 : -4]
    right, top = grey[2 * SIDE + 4 : -SIDE - 4, -SIDE + 4 :], grey[4 : SIDE - 4, BITS * SIDE + 4 : -4]
    upright = left.mean() > 180 and 80 < bottom.mean() < 150 and right.mean() < 85 and top.mean() < 85
    if not upright:
        return -1
    squares = [grey[4 : SIDE - 4, bit * SIDE + 4 : (bit + 1) * SIDE - 4].mean() for bit in range(BITS)]
    return sum(int(bright > 128) << bit for bit, bright in enumerate(squares))


@dataclass(frozen=True)
class Coded:
    """How a video is written.

    `ticks` are the frames' times in units of 1 / (`rate` * 10); None is evenly spaced. `turned`: by how many degrees
    players turn the pictures counter-clockwise, and whether they mirror them left to right and top to bottom.
    """

    ending: str = "mp4"
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    rate: Fraction = Fraction(24)
    options: Mapping[str, str] = field(default_factory=dict)
    container: Mapping[str, str] = field(default_factory=dict)
    ticks: Sequence[int] | None = None
    audio: bool = False
    cover: bool = False
    turned: tuple[float, bool, bool] | None = None


def write_coded(path: Path, pictures: Iterable[Picture], how: Coded) -> Path:
    """Write pictures, uint8 [H, W, 3] RGB, as one video file."""
    with av.open(str(path), "w", container_options=dict(how.container)) as output:
        sound = output.add_stream("aac", rate=48000) if how.audio else None
        stream = None
        cover = None
        tick = 1 / (how.rate * 10)
        for index, picture in enumerate(pictures):
            if stream is None:
                stream = output.add_stream(how.codec, rate=how.rate, options=dict(how.options))
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], how.pix_fmt
                stream.codec_context.time_base = tick
                if how.turned is not None:
                    degrees, hflip, vflip = how.turned
                    stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
                if how.cover:
                    cover = output.add_stream("mjpeg", rate=1)
                    cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
                    cover.disposition = av.stream.Disposition.attached_pic
                    blank = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 200, np.uint8), format="rgb24")
                    output.mux(cover.encode(blank))
                    output.mux(cover.encode(None))
                if sound is not None:
                    silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                    silence.sample_rate = 48000
                    output.mux(sound.encode(silence))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = tick
            frame.pts = how.ticks[index] if how.ticks is not None else index * 10
            output.mux(stream.encode(frame))
        assert stream is not None
        output.mux(stream.encode(None))
        if sound is not None:
            output.mux(sound.encode(None))
    return path


def copy_packets(
    sources: Path | Sequence[Path],
    target: Path,
    change: Callable[[int, bytes], bytes | None] = lambda _, content: content,
    shift: int = 0,
) -> Path:
    """Copy the packets of files' video streams one after the other, each changed or (for None) left out.

    The first `shift` frames come before time 0: an edit list hides them, as in a file cut by `ffmpeg -c copy`.
    """
    options = {"avoid_negative_ts": "disabled"} if shift else {}
    copy, number, offset = None, 0, 0
    with av.open(str(target), "w", container_options=options) as output:
        for source in [sources] if isinstance(sources, Path) else sources:
            with av.open(str(source)) as given:
                stream = given.streams.video[0]
                copy = copy or output.add_stream_from_template(stream)
                packets = [packet for packet in given.demux(stream) if packet.size]
                times = sorted(packet.pts for packet in packets)
                for packet in packets:
                    content = change(number, bytes(packet))
                    number += 1
                    if content is not None:
                        new = av.Packet(content)
                        new.pts = packet.pts - times[shift] + offset
                        new.dts = packet.dts - times[shift] + offset
                        new.duration, new.time_base = packet.duration, packet.time_base
                        new.is_keyframe, new.stream = packet.is_keyframe, copy
                        output.mux(new)
                offset += times[-1] - times[0] + packets[0].duration
    return target
