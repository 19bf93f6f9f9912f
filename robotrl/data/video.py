"""Pictures to files and back: clips of episodes (H.264 in mp4), joined without encoding again, PNG for one picture.

H.264 (`libx264`, preset veryfast, tuned for fast decoding, crf 18) because on frames of 128 pixels it encodes four
times and decodes twice as fast as LeRobot's default, SVT-AV1, at the same size and error; LeRobot reads either. A key
frame every four frames: a random frame costs 2.5 decoded ones on average, for about 1.5 times the bytes of one every
eight. No B frames, so that frames are stored in the order in which they are shown and cut anywhere at a key frame.

Lossless clips (H.264 of RGB) are for methods that tell recorded pictures from fresh ones, and would learn the codec's
traces first.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.types import RobotRLError

GOP = 4
OPTIONS = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "crf": "18",
    "g": str(GOP),
    "bf": "0",
    "sc_threshold": "0",
    "forced-idr": "1",
}
LOSSLESS = OPTIONS | {"crf": "0", "qp": "0"}
MAX_SIDE = 8192


def rate(fps: float) -> Fraction:
    """Frames a second as a ratio that a container can hold."""
    return Fraction(fps).limit_denominator(10_000)


def encode_clips(clips: Sequence[NDArray[np.uint8]], fps: float, *, lossless: bool = False) -> bytes:
    """Episodes' pictures `[T, 3, H, W]` as one mp4 file whose frame i, of all, is shown at i / fps seconds.

    Every clip starts with a key frame.

    Args:
        clips: the pictures.
        fps: frames a second.
        lossless: keep every pixel's value, for several times the bytes.

    Raises:
        RobotRLError: this PyAV has no H.264 encoder.
    """
    import av
    from av.video.frame import PictureType

    encoder = "libx264rgb" if lossless else "libx264"
    if encoder not in av.codecs_available:
        raise RobotRLError("Videos need an H.264 encoder, which this PyAV lacks: pip install --force-reinstall av")
    sink, (height, width), shown = io.BytesIO(), clips[0].shape[2:], 0
    with av.open(sink, "w", format="mp4") as container:
        stream: Any = container.add_stream(encoder, rate=rate(fps), options=LOSSLESS if lossless else OPTIONS)
        stream.height, stream.width = height, width
        stream.pix_fmt = "rgb24" if lossless else pixel_format(height, width)
        stream.codec_context.thread_count = 1
        for clip in clips:
            for i, image in enumerate(np.ascontiguousarray(clip.transpose(0, 2, 3, 1))):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = shown, 1 / rate(fps)
                frame.pict_type = PictureType.NONE if i else PictureType.I
                container.mux(stream.encode(frame))
                shown += 1
        container.mux(stream.encode(None))
    return sink.getvalue()


def pixel_format(height: int, width: int) -> str:
    """Colour at half resolution, which needs even sides."""
    return "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"


def clip_info(height: int, width: int, fps: float, *, lossless: bool = False) -> dict[str, Any]:
    """What LeRobot notes about a camera's videos in `info.json`."""
    whole = int(fps) if fps == int(fps) else fps
    pixels, options = ("gbrp", LOSSLESS) if lossless else (pixel_format(height, width), OPTIONS)
    return {
        "video.height": height, "video.width": width, "video.codec": "h264",
        "video.pix_fmt": pixels, "video.fps": whole, "video.channels": 3, "has_audio": False,
        "is_depth_map": False, "video.g": GOP, "video.crf": int(options["crf"]), "video.preset": options["preset"],
        "video.video_backend": "pyav",
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cut:
    """The frames of one episode within a file: `count` of them, the first shown at `start` seconds."""

    path: Path
    start: float
    count: int


def join_clips(cuts: Sequence[Cut], fps: float, target: Path) -> None:
    """Copy the encoded frames of all `cuts`, one after the other, into one file; frame i of it is shown at i / fps.

    Raises:
        RobotRLError: a cut does not start at a key frame, or its frames are not there.
    """
    import av

    with av.open(str(target), "w", format="mp4") as out:
        stream: Any = None
        shown = 0
        for cut in cuts:
            with av.open(str(cut.path)) as container:
                source = container.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(source, opaque=True)  # no encoder is opened
                    stream.time_base = 1 / rate(fps)
                packets = cut_packets(container, source, cut, fps)
                for packet in packets:
                    packet.pts = packet.dts = shown
                    packet.duration, packet.time_base, packet.stream = 1, 1 / rate(fps), stream
                    out.mux(packet)
                    shown += 1


def is_lossless(info: Mapping[str, Any]) -> bool:
    """Whether a camera's `info` is that of lossless clips."""
    return info.get("video.pix_fmt") == "gbrp" and info.get("video.crf") == 0


def cut_packets(container: Any, stream: Any, cut: Cut, fps: float) -> list[Any]:
    """The packets of a cut's frames, in order."""
    margin = 0.5 / fps
    container.seek(max(0, int((cut.start + margin) / stream.time_base)), stream=stream, backward=True)
    found: list[Any] = []
    for packet in container.demux(stream):
        if packet.pts is None or float(packet.pts * stream.time_base) < cut.start - margin:
            continue
        if not found and not packet.is_keyframe:
            break
        if len(found) == cut.count:
            break
        found.append(packet)
    if len(found) != cut.count or any(b.pts <= a.pts for a, b in pairwise(found)):
        raise RobotRLError(
            f"{cut.path} does not hold {cut.count} frames in a row from {cut.start:.3f} s on; it cannot be cut there."
        )
    return found


def size_limit(height: int, width: int) -> dict[str, str]:
    """A decoder's option that makes a picture much larger than declared an error, before memory is taken for it."""
    return {"max_pixels": str((height + 64) * (width + 64))}  # coded sizes are rounded up


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """One picture `[3, H, W]`, exactly."""
    import av

    codec: Any = av.CodecContext.create("png", "w")
    codec.height, codec.width = image.shape[1:]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    packets = codec.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image.transpose(1, 2, 0)), format="rgb24"))
    return b"".join(bytes(p) for p in [*packets, *codec.encode(None)])


def decode_picture(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """A PNG or JPEG picture `[3, H, W]` of the size it must have.

    Raises:
        ValueError: it is damaged, or of another size (which is read from its header, before anything is decoded).
    """
    import av

    png = data[:8] == b"\x89PNG\r\n\x1a\n"
    if png and (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) != (width, height):
        raise ValueError("a picture of another size than declared")
    codec: Any = av.CodecContext.create("png" if png else "mjpeg", "r")
    codec.options = size_limit(height, width)
    try:
        frames = [*codec.decode(av.Packet(data)), *codec.decode(None)]
    except av.error.FFmpegError as error:
        raise ValueError(f"a damaged picture: {error}") from error
    if len(frames) != 1 or (frames[0].height, frames[0].width) != (height, width):
        raise ValueError("no picture, or one of another size than declared")
    image: NDArray[np.uint8] = frames[0].to_ndarray(format="rgb24").transpose(2, 0, 1)
    return np.ascontiguousarray(image)


__all__ = [
    "Cut",
    "clip_info",
    "decode_picture",
    "encode_clips",
    "encode_png",
    "is_lossless",
    "join_clips",
    "rate",
    "size_limit",
]
