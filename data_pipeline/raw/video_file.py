"""Video files, read by FFmpeg through PyAV: every frame with its true number, turned as players show it.

The only file that imports decord, and with `evaluation/segment/video_writer.py` the only one that imports PyAV.
`survey` goes through a file once and finds what it holds; `pictures` then decodes, one frame at a time.
"""

import re
import shlex
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import av
import av.logging
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from glus.common.errors import DataError
from glus.data_pipeline.raw.orientation import Orientation
from glus.data_pipeline.raw.video_survey import SAMPLED, DecodedFrame, Packets, Survey

#: Demuxers that may open a file. Playlists are not among them: they would open other files and addresses.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,gif,apng,flv,asf,ogg,mxf,nut,ivf,h264,hevc,m4v,mjpeg,"
    "dv,rm,obu"
)
#: Most bytes of decoded frames for which decord reads a file: its threads may hold the complete video decoded.
DECORD_HOLDS = 2**27

Picture = NDArray[np.uint8]


class DisagreementError(Exception):
    """decord fails, or reads another picture than FFmpeg."""


def survey(path: Path) -> Survey:
    """Go through a video file once: its frames' numbers and times, what is lost, how pictures are turned.

    Raises DataError where the file is missing, is no video, has no frame that can be decoded, has a codec that cannot
    be decoded, or has frames of several sizes or orientations.
    """
    with _opened(path) as (container, stream):
        found = Packets(
            format=container.format.name,
            codec=stream.codec_context.name,
            rate=stream.guessed_rate or stream.average_rate,
            time_base=stream.time_base,
        )
        first: VideoFrame | None = None
        turned = Orientation()
        for frame in _decoded(container, stream, found):
            if first is None:
                first, turned = frame, _orientation(path, frame)
            number = len(found.frames)
            if (frame.height, frame.width) != (first.height, first.width):
                raise DataError(
                    f"{path}: frame {number} is {frame.height}x{frame.width} (height x width), the first is "
                    f"{first.height}x{first.width}; frames of one size are wanted. {_conversion(path)}",
                    file=str(path),
                    frame=f"{number:05d}",
                )
            # `side_data` would make a reference cycle of every frame, which is then kept until Python looks for such.
            if frame.rotation != first.rotation:
                raise DataError(
                    f"{path}: from frame {number} on its pictures are turned another way. {_conversion(path)}",
                    file=str(path),
                    frame=f"{number:05d}",
                )
            sample = zlib.crc32(_rgb(frame).data) if number % SAMPLED == 0 else None
            found.frames.append(
                DecodedFrame(
                    frame.pts,
                    frame.key_frame,
                    frame.is_corrupt,
                    bool(frame.interlaced_frame),
                    frame.format.name,
                    sample,
                )
            )
        if first is None:
            raise DataError(
                f"{path}: not one frame can be decoded (codec {found.codec}); take the file again, or convert it. "
                f"{_conversion(path)}",
                file=str(path),
            )
        found.indexed = len(stream.index_entries)
        found.header_frames = stream.frames
        found.header_rate = stream.average_rate
        found.header_seconds = container.duration / av.time_base if container.duration else 0.0
        real = [each for each in container.streams.video if not each.disposition & each.disposition.attached_pic]
        return found.summed_up(path, (first.height, first.width), turned, len(real), stream.index)


def pictures(path: Path, known: Survey) -> Iterator[Picture]:
    """uint8 [H, W, 3] RGB of each frame of `known.given`, in that order, one in memory at a time.

    Raises DataError where the file is another one since the survey.
    """
    count = 0
    with _opened(path) as (container, stream):
        for frame in _decoded(container, stream, None):
            count += 1
            if count > len(known.numbers):
                break
            yield known.turned.show(_rgb(frame))
    if count != len(known.numbers):
        raise DataError(f"{path}: changed while it was read; run again", file=str(path))


def pictures_by_decord(path: Path, known: Survey) -> Iterator[Picture]:
    """The same by decord, for a file for which `known.plain` holds.

    Raises DisagreementError where decord fails or a sample differs: it loses frames at the start of MPEG-TS, repeats
    frames that it cannot decode, and turns mirrored pictures wrongly.
    """
    import decord  # here, because it loads its own FFmpeg

    decord.logging.set_level(decord.logging.QUIET)
    # decord's own errors are no RuntimeError; that one is what it passes on from FFmpeg.
    errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration)
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    except errors as error:
        raise DisagreementError(f"{path}: decord cannot read it") from error
    for index, sample in enumerate(known.samples):
        try:
            picture = _unpadded(reader.next().asnumpy())
        except errors as error:
            raise DisagreementError(f"{path}: decord fails at frame {index}") from error
        if picture.shape[:2] != known.size or (sample is not None and zlib.crc32(picture.data) != sample):
            raise DisagreementError(f"{path}: decord reads another frame {index}")
        yield picture


def reads_by_decord(known: Survey) -> bool:
    """Whether decord is asked first: nothing is odd, and what its threads may hold is bounded."""
    return known.plain and len(known.numbers) * known.size[0] * known.size[1] * 3 <= DECORD_HOLDS


def _is_webp(path: Path) -> bool:
    with open(path, "rb") as file:
        begin = file.read(12)
    return begin[:4] == b"RIFF" and begin[8:] == b"WEBP"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream, cover pictures passed over. Raises DataError."""
    try:
        if not path.exists():
            raise DataError(f"{path}: this video file is missing", file=str(path))
        if not path.is_file():
            raise DataError(f"{path}: is no regular file", file=str(path))
    except OSError as error:  # a name of 300 characters, a folder without rights
        raise DataError(f"{path}: cannot be opened ({error.strerror})", file=str(path)) from error
    try:
        container = av.open(
            str(path.absolute()),
            "r",
            container_options={"protocol_whitelist": "file", "format_whitelist": FORMATS},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "take the file again, or name a video file"
        if _is_webp(path):
            reason, remedy = "FFmpeg reads no animated WebP", "convert it first: magick IN.webp OUT.mp4"
        raise DataError(f"{path}: no video that can be read ({reason}); {remedy}", file=str(path)) from error
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & stream.disposition.attached_pic:
            raise DataError(f"{path}: holds no video stream; name a video file", file=str(path))
        if getattr(stream, "codec_context", None) is None:  # the stub says that there always is one
            codec = _codec_name(container)
            raise DataError(
                f"{path}: its codec ({codec}) cannot be decoded here; the file may be intact. {_conversion(path)}",
                file=str(path),
            )
        stream.codec_context.thread_count = 1  # an error then belongs to the packet that was just given
        yield container, stream


def _codec_name(container: InputContainer) -> str:
    """The name or four letters of a codec without a decoder, which PyAV gives in its log only."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        named = re.search(r"Video: (?:none \()?(\w+)", cast(Any, container).dumps_format())  # absent from the stub
    finally:
        av.logging.set_level(level)
    return named[1] if named else "unknown"


def _decoded(container: InputContainer, stream: VideoStream, found: Packets | None) -> Iterator[VideoFrame]:
    """Frames in the order in which they are shown; packets and errors are added to `found`.

    A packet that cannot be decoded is passed over, and the decoder goes on with the next.
    """
    packets: Iterator[Packet[Any]] = container.demux() if found is not None else container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            if found is not None:
                found.stopped = str(getattr(error, "strerror", None) or error)
            return
        if packet is None:
            return
        if packet.stream.index != stream.index:  # of the last packets, which are empty, the number is not set
            if found is not None:
                found.note_end(packet.pts, packet.duration, packet.time_base)
            continue
        if found is not None and packet.size:
            found.add(packet.pts, packet.duration, packet.is_discard, bytes(packet))
        try:
            frames = stream.codec_context.decode(packet if packet.size else None)
        except EOFError:
            return
        except (av.FFmpegError, OSError, ValueError):
            if found is not None and not packet.is_discard:
                found.errors.append((packet.pts, len(found.frames)))
            continue
        yield from frames


def _orientation(path: Path, frame: VideoFrame) -> Orientation:
    # PyAV's type stub takes this mapping for something else.
    matrix = cast(Mapping[str, Buffer], frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    turned = Orientation.of_matrix(bytes(matrix))
    if turned is None:
        raise DataError(
            f"{path}: its pictures are turned by an angle that is no multiple of 90 degrees. {_conversion(path)}",
            file=str(path),
        )
    return turned


def _rgb(frame: VideoFrame) -> Picture:
    """uint8 [H, W, 3], as stored."""
    return np.ascontiguousarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _unpadded(picture: Picture) -> Picture:
    """uint8 [H, W, 3] of decord's frame, whose padded rows it takes for more channels when pictures are narrow."""
    height, width, channels = picture.shape
    if channels == 3:
        return np.ascontiguousarray(picture)
    return np.ascontiguousarray(picture.reshape(height, -1)[:, : width * 3].reshape(height, width, 3))


def _conversion(path: Path) -> str:
    """The command that makes a file of it that every decoder reads."""
    names = f"{shlex.quote(path.name)} -c:v libx264 -crf 12 -pix_fmt yuv420p {shlex.quote(f'{path.stem}-h264.mp4')}"
    return f"Convert it: ffmpeg -i {names}"
