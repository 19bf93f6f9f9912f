"""Pictures of a data set by row number: decoded where they are asked for, or from a cache of decoded ones.

What makes it faster than seeking for each frame: a video file is opened and its packets are listed once; the rows of a
whole batch are sorted by file and key frame; each group of pictures is decoded once, from the file's bytes, up to the
last frame that is wanted of it; cameras and files are decoded side by side in threads.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.data.dataset import Dataset, check_memory
from robotrl.data.tables import open_parquet
from robotrl.data.video import decode_picture, size_limit
from robotrl.types import RobotRLError

Rows = NDArray[np.int64]
Pictures = NDArray[np.uint8]

OPEN_FILES = 256
"""Videos that stay open; the ones not used for longest are closed."""
TOLERANCE = 0.1
"""Of a frame's duration: how far a picture may be shown from the time its row says."""
_BLOCK = 512


class VideoFile:
    """One video, opened: any of its frames by the time at which it is shown.

    Args:
        path: the file.
        height: of the pictures, as declared.
        width: of the pictures, as declared.
        decoders: how many threads will decode from it at once.

    Raises:
        RobotRLError: it is cut off, no video, or of another size.
    """

    def __init__(self, path: Path, height: int, width: int, decoders: int) -> None:
        import av

        self.path, self.size = path, (height, width)
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                context = stream.codec_context
                if (context.height, context.width) != self.size:
                    raise RobotRLError(
                        f"The video {path} is {context.width}x{context.height}, but meta/info.json declares "
                        f"{width}x{height}. One of the two was exchanged; copy the data set again."
                    )
                self._codec, self._extradata = context.codec.name, context.extradata
                self._base = stream.time_base or Fraction(1)
                packets = [(p.pts, p.pos, p.size, p.is_keyframe) for p in container.demux(stream) if p.pts is not None]
        except (av.error.FFmpegError, IndexError, OSError) as error:
            raise RobotRLError(_damaged(path, error)) from error
        if not packets or not packets[0][3]:
            raise RobotRLError(_damaged(path, "it holds no pictures"))
        table = np.array(packets, np.int64)
        self._pts, self._place, self._bytes, key = table.T
        self._keys = np.flatnonzero(key)
        self._order = np.argsort(self._pts, kind="stable")  # in the order in which they are shown
        self._shown = self._pts[self._order] * float(self._base)
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if (self._place < 0).any() or int((self._place + self._bytes).max()) > len(self._data):
            raise RobotRLError(_damaged(path, "its last pictures are not there"))
        self._decoders: list[tuple[Any, Any] | None] = [None] * decoders

    def find(self, seconds: NDArray[np.float64], tolerance: float) -> Rows:
        """The packets of the frames that are shown at `seconds`, or -1."""
        right = np.clip(np.searchsorted(self._shown, seconds), 1, max(1, len(self._shown) - 1))
        left = right - 1
        right = np.minimum(right, len(self._shown) - 1)
        nearest = np.where(seconds - self._shown[left] <= self._shown[right] - seconds, left, right)
        found: Rows = np.where(np.abs(self._shown[nearest] - seconds) <= tolerance, self._order[nearest], -1)
        return found

    def covers(self, start: float, count: int, fps: float) -> bool:
        """Whether `count` frames are shown from second `start` on."""
        return bool((self.find(start + np.arange(count) / fps, TOLERANCE / fps) >= 0).all())

    def groups(self, packets: Rows) -> Rows:
        """The key frame from which each of `packets` is decoded."""
        at = np.searchsorted(self._keys, packets, side="right") - 1
        # pictures that are shown before the key frame they follow in the file need the one before it
        leading = (self._pts[packets] < self._pts[self._keys[at]]) & (at > 0)
        keys: Rows = self._keys[at - leading]
        return keys

    def decode(self, packets: Rows, out: Pictures, where: Rows, decoder: int) -> None:
        """Decode `packets` (sorted) into `out[where]`, with decoder number `decoder`, which one thread may use at once.

        Raises:
            RobotRLError: the file is damaged.
        """
        import av

        keys = self.groups(packets)
        bounds = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(packets)]
        try:
            for start, end in pairwise(bounds):
                wanted = dict(zip(self._pts[packets[start:end]].tolist(), where[start:end].tolist(), strict=True))
                self._decode_group(int(keys[start]), int(packets[end - 1]), wanted, out, decoder)
        except (av.error.FFmpegError, ValueError) as error:
            self._decoders[decoder] = None
            raise RobotRLError(_damaged(self.path, error)) from error

    def _decode_group(self, key: int, last: int, wanted: dict[int, int], out: Pictures, decoder: int) -> None:
        """Decode from packet `key` to packet `last`; the frames `wanted` (time to place in `out`) are kept."""
        import av

        context, converter = self._decoders[decoder] or self._open(decoder)
        for number in range(key, last + 1):
            place = int(self._place[number])
            packet = av.Packet(self._data[place : place + int(self._bytes[number])])
            packet.pts = packet.dts = int(self._pts[number])
            packet.time_base = self._base
            self._keep(context.decode(packet), wanted, out, converter)
        if wanted:  # a codec that looks ahead still holds some
            self._keep(context.decode(None), wanted, out, converter)
        context.flush_buffers()
        if wanted:
            raise ValueError(f"{len(wanted)} pictures cannot be decoded")

    def _keep(self, frames: Sequence[Any], wanted: dict[int, int], out: Pictures, converter: Any) -> None:
        for frame in frames:
            place = wanted.pop(frame.pts, None)
            if place is not None:
                if (frame.height, frame.width) != self.size:
                    raise ValueError("its pictures change their size")
                out[place] = converter.reformat(frame, format="rgb24").to_ndarray().transpose(2, 0, 1)

    def _open(self, decoder: int) -> tuple[Any, Any]:
        import av
        from av.video.reformatter import VideoReformatter

        context: Any = av.CodecContext.create(self._codec, "r")
        context.extradata = self._extradata
        context.options = size_limit(*self.size)
        context.thread_count = 1  # threads inside a decoder only add delay; files are decoded side by side instead
        pair = context, VideoReformatter()
        self._decoders[decoder] = pair
        return pair


@dataclass(slots=True)
class _Camera:
    key: str
    height: int
    width: int
    files: list[Path]
    file_of: Rows
    """By episode."""
    start_of: NDArray[np.float64]


class Frames:
    """Pictures of all cameras of a data set, `[..., 3, H, W]`.

    Args:
        dataset: opened.
        cameras: fields, as in `obs/image/front`.
        cache: a folder where decoded pictures are kept; filled here, once. None: decode each time.
        hold: bytes up to which all pictures together are decoded here, once, and held in memory.
        num_threads: that decode; None: all cores.

    Raises:
        RobotRLError: a video is damaged, or the cache does not fit on the disk.
    """

    def __init__(
        self,
        dataset: Dataset,
        cameras: Sequence[str],
        *,
        cache: str | Path | None = None,
        hold: int = 0,
        num_threads: int | None = None,
    ) -> None:
        self._dataset, self._starts = dataset, dataset.starts
        self._threads = num_threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode") if self._threads > 1 else None
        self._open: OrderedDict[Path, VideoFile] = OrderedDict()
        self._cameras = {name: self._camera(name) for name in cameras}
        self._in_tables = {n: self._pictures_in_tables(n) for n in cameras if n in dataset.images_in_tables()}
        self._cached: dict[str, Pictures] = {}
        if cache is not None:
            self._cached = {name: self._fill(name, Path(cache)) for name in cameras}
        elif sum(3 * c.height * c.width for c in self._cameras.values()) * dataset.total_frames <= hold:
            self._cached = self.read(dict.fromkeys(cameras, np.arange(dataset.total_frames)))

    def read(self, wanted: Mapping[str, Rows]) -> dict[str, Pictures]:
        """The pictures of each camera at its rows, with their shape in front.

        Raises:
            RobotRLError: a video is damaged, or has no picture at the time of a row.
        """
        found, jobs, inverse = {}, [], {}
        for name, rows in wanted.items():
            if name in self._cached:
                found[name] = self._cached[name][rows]
                continue
            camera = self._cameras[name]
            unique, back = np.unique(rows, return_inverse=True)
            out = np.empty((len(unique), 3, camera.height, camera.width), np.uint8)
            found[name], inverse[name] = out, back.reshape(rows.shape)
            jobs += self._jobs(name, camera, unique, out)
        if self._pool is None or len(jobs) < 2:
            for job in jobs:
                job[0](*job[1:])
        else:
            for future in [self._pool.submit(*job) for job in jobs]:
                future.result()
        for name, back in inverse.items():
            if back.size != len(found[name]) or (np.diff(back.reshape(-1)) != 1).any() or back.ndim != 1:
                found[name] = found[name][back]
        return found

    def picture(self, name: str, data: Any, what: str) -> Pictures:
        """A single stored picture (PNG or JPEG) of a camera's size.

        Raises:
            RobotRLError: it is damaged.
        """
        camera = self._cameras[name]
        try:
            return decode_picture(bytes(data), camera.height, camera.width)
        except (TypeError, ValueError) as error:
            raise RobotRLError(
                f"A picture of {camera.key} ({what}) in {self._dataset.root} is not one: {error}."
            ) from error

    def _camera(self, name: str) -> _Camera:
        key = self._dataset.fields[name]
        height, width, _ = self._dataset.features[key].shape
        clips = [e.clips[key] for e in self._dataset.episodes if key in e.clips]
        files = list(dict.fromkeys(clip.path for clip in clips))
        number = {path: i for i, path in enumerate(files)}
        file_of = np.array([number[c.path] for c in clips], np.int64)
        return _Camera(key, height, width, files, file_of, np.array([c.start for c in clips]))

    def _jobs(self, name: str, camera: _Camera, rows: Rows, out: Pictures) -> list[tuple[Any, ...]]:
        """What threads are to do: decode shares of `rows` (sorted) into `out`."""
        if name in self._in_tables:
            shares = np.array_split(np.arange(len(rows)), self._threads)
            return [(self._decode_stored, name, rows[s], out, s) for s in shares if len(s)]
        episodes = np.searchsorted(self._starts, rows, side="right") - 1
        seconds = camera.start_of[episodes] + (rows - self._starts[episodes]) / self._dataset.fps
        jobs: list[tuple[Any, ...]] = []
        for number in np.unique(camera.file_of[episodes]):
            here = np.flatnonzero(camera.file_of[episodes] == number)
            video = self._video(camera.files[number], camera)
            packets = video.find(seconds[here], TOLERANCE / self._dataset.fps)
            if (packets < 0).any():
                i = int(here[np.flatnonzero(packets < 0)[0]])
                raise RobotRLError(
                    f"The video {video.path} has no picture at {seconds[i]:.3f} s, where episode {int(episodes[i])} "
                    f"has its step {int(rows[i] - self._starts[episodes[i]])} at {self._dataset.fps:g} frames/s. "
                    "It is cut off, or has another frame rate; copy it again, or correct fps in meta/info.json."
                )
            order = np.argsort(packets, kind="stable")
            packets, here = packets[order], here[order]
            keys = video.groups(packets)
            # a group of pictures goes to one thread as a whole
            cuts = np.searchsorted(keys, keys[np.linspace(0, len(keys), self._threads + 1)[1:-1].astype(int)])
            for thread, share in enumerate(np.split(np.arange(len(packets)), cuts)):
                if len(share):
                    jobs.append((video.decode, packets[share], out, here[share], thread))
        return jobs

    def _video(self, path: Path, camera: _Camera) -> VideoFile:
        video = self._open.get(path)
        if video is None:
            video = VideoFile(path, camera.height, camera.width, self._threads)
            self._open[path] = video
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return video

    def _pictures_in_tables(self, name: str) -> list[bytes]:
        """The encoded pictures of a camera that has no videos, by row."""
        dataset, key = self._dataset, self._dataset.fields[name]
        found: list[bytes] = []
        paths = list(dict.fromkeys(dataset.data_path(*e.data) for e in dataset.episodes))
        check_memory(sum(path.stat().st_size for path in paths), f"The pictures of {key} in {dataset.root}")
        for path in paths:
            with open_parquet(path) as file:
                column = file.read(columns=[key], use_threads=False).column(key).combine_chunks()
            fields = [f.name for f in column.type] if hasattr(column.type, "fields") or column.type.num_fields else []
            data = column.field("bytes") if "bytes" in fields else column
            found += [bytes(value.as_py() or b"") for value in data]
        return found

    def _decode_stored(self, name: str, rows: Rows, out: Pictures, where: Rows) -> None:
        stored = self._in_tables[name]
        for row, place in zip(rows.tolist(), where.tolist(), strict=True):
            out[place] = self.picture(name, stored[row], f"row {row}")

    def _fill(self, name: str, folder: Path) -> Pictures:
        """The cache of one camera: made if it is not there."""
        camera, total = self._cameras[name], self._dataset.total_frames
        shape = (total, 3, camera.height, camera.width)
        path = folder / f"{camera.key}-{self._fingerprint(camera)}.uint8"
        if not path.is_file() or path.stat().st_size != int(np.prod(shape)):
            self._write_cache(name, path, shape)
        cached: Pictures = np.memmap(path, np.uint8, "r", shape=shape)
        return cached

    def _write_cache(self, name: str, path: Path, shape: tuple[int, ...]) -> None:
        needed = int(np.prod(shape, dtype=np.int64))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(path.parent).free
            if needed > free:
                raise RobotRLError(
                    f"The cache of {name} takes {needed / 1e9:.1f} GB, and {path.parent} has {free / 1e9:.1f} GB free. "
                    "Choose another folder with cache=, or read without a cache."
                )
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".filling-", delete=False) as file:
                try:
                    for start in range(0, shape[0], _BLOCK):
                        rows = np.arange(start, min(start + _BLOCK, shape[0]))
                        file.write(self.read({name: rows})[name])
                    file.flush()
                    os.replace(file.name, path)
                except BaseException:
                    os.unlink(file.name)
                    raise
        except OSError as error:
            raise RobotRLError(
                f"The cache {path} could not be written: {error}. Choose another folder: cache="
            ) from error

    def _fingerprint(self, camera: _Camera) -> str:
        """Of the videos a cache was made from: names, sizes and times of change."""
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in camera.files]
        what = [str(self._dataset.root.resolve()), self._dataset.total_frames, stats, self._starts.tolist()]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _damaged(path: Path, why: object) -> str:
    return (
        f"The video {path} is cut off or damaged ({why}). Copy it again, or keep the other episodes with: "
        "robotrl data repair <folder> out=<new folder>"
    )


__all__ = ["Frames", "VideoFile"]
