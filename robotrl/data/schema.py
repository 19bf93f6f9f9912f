"""What LeRobotDataset v3.0 calls things, what RobotRL calls them, and what of `meta/info.json` can be believed.

| RobotRL | LeRobot |
| --- | --- |
| `obs/state` | `observation.state` |
| `obs/privileged` | `observation.environment_state` |
| `obs/image/<camera>` | `observation.images.<camera>`, a video |
| `obs/<other>` | `observation.<other>` |
| `action` | `action` |
| `reward`, `terminated`, `truncated` | `next.reward`, `next.terminated`, `next.truncated` |
| `terminated or truncated`, never stored here | `next.done` |
| success of the episode, at its last step | `next.success` |

LeRobot keeps no observation after an episode's last action; RobotRL keeps it in files of its own under `meta/robotrl`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.types import ArraySpec, EnvSpec, RobotRLError

VERSION = "v3.0"
CHUNK_FILES = 1000
"""Files of a chunk, as in LeRobot: their names sort as their numbers only up to 999."""
DATA_MB, VIDEO_MB = 100, 200
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
_NUMBERS = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH, VIDEO_PATH = f"data/{_NUMBERS}.parquet", f"videos/{{video_key}}/{_NUMBERS}.mp4"
EPISODES_PATH, EXTRAS_PATH = f"meta/episodes/{_NUMBERS}.parquet", f"meta/robotrl/episodes/{_NUMBERS}.parquet"
OWN_INFO = "meta/robotrl/info.json"
MAX_JSON_BYTES = 1 << 26
NO_CLOCK_FPS = 30.0
"""Frames a second of data from an env without a clock: videos need some number."""

INDICES = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64",
}  # fmt: skip
"""The columns every data set has, with their types."""

_DTYPES = {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"}
_VISUAL, _SKIPPED = {"video", "image"}, {"string", "language", "audio"}
_KEYS = {
    "obs/state": "observation.state", "obs/privileged": "observation.environment_state", "reward": "next.reward",
    "terminated": "next.terminated", "truncated": "next.truncated", "success": "next.success", "done": "next.done",
}  # fmt: skip
_FIELDS = {key: name for name, key in _KEYS.items()}
_KEY = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.\- ]*$")


def key_of(name: str) -> str:
    """The LeRobot key of a field: `obs/image/front` -> `observation.images.front`."""
    if name in _KEYS:
        return _KEYS[name]
    if name.startswith("obs/image/"):
        return "observation.images." + name.removeprefix("obs/image/").replace("/", ".")
    if name.startswith("obs/"):
        return "observation." + name.removeprefix("obs/").replace("/", ".")
    return name.replace("/", ".")


def field_of(key: str) -> str:
    """The field of a LeRobot key: the inverse of `key_of`, but for slashes that became dots."""
    if key in _FIELDS:
        return _FIELDS[key]
    if key.startswith("observation.images."):
        return "obs/image/" + key.removeprefix("observation.images.")
    if key == "observation.image":
        return "obs/image/pixels"
    if key.startswith("observation."):
        return "obs/" + key.removeprefix("observation.")
    return key


@dataclass(frozen=True, slots=True)
class Feature:
    """One column or camera: `dtype` is NumPy's name, `video` or `image`; images have the shape `(H, W, C)`."""

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def visual(self) -> bool:
        """Whether it is a camera."""
        return self.dtype in _VISUAL

    @property
    def depth(self) -> bool:
        """Whether it is a depth map."""
        return bool(self.info.get("is_depth_map") or self.info.get("video.is_depth_map"))

    @property
    def row_bytes(self) -> int:
        """Bytes of one step in memory."""
        return math.prod(self.shape) * (1 if self.visual else np.dtype(self.dtype).itemsize)

    def to_json(self) -> dict[str, Any]:
        """The entry in `info.json`."""
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}
        return {**entry, "info": self.info} if self.info else entry


@dataclass(frozen=True, slots=True)
class Schema:
    """What the steps of a data set hold, by RobotRL's field names; `success` and the indices are left out."""

    fps: float
    features: dict[str, Feature]

    @property
    def cameras(self) -> dict[str, Feature]:
        """The visual ones."""
        return {name: feature for name, feature in self.features.items() if feature.visual}

    @property
    def arrays(self) -> dict[str, Feature]:
        """The others."""
        return {name: feature for name, feature in self.features.items() if not feature.visual}

    @staticmethod
    def from_env(spec: EnvSpec, extras: Mapping[str, ArraySpec] | None = None) -> Schema:
        """The schema of what a collector gathers in an env.

        Args:
            spec: of the env.
            extras: more fields by name, such as `intervention`.
        """
        features: dict[str, Feature] = {}
        for group, array in spec.obs.items():
            features[f"obs/{group}"] = _feature(group, array)
        discrete = spec.action.kind == "discrete"
        features["action"] = _feature(
            "action", ArraySpec((1,), "int64") if discrete else ArraySpec(spec.action.shape, "float32")
        )
        features["reward"] = Feature("float32", (1,))
        features["terminated"] = features["truncated"] = Feature("bool", (1,))
        for name, array in (extras or {}).items():
            features[name] = _feature(name, array)
        return Schema(spec.control_hz or NO_CLOCK_FPS, features)

    def single(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Of a camera's stacked pictures `[..., frames * C, H, W]` the newest; what else there is as it is; a view."""
        feature = self.features[name]
        return values[..., -feature.shape[2] :, :, :] if feature.visual else values

    def to_json(self) -> dict[str, Any]:
        """`features` of `info.json`, with LeRobot's keys and the columns that every data set has."""
        entries = {key_of(name): feature.to_json() for name, feature in self.features.items()}
        for key in ("next.done", "next.success"):
            entries[key] = Feature("bool", (1,)).to_json()
        return {**entries, **{key: Feature(dtype, (1,)).to_json() for key, dtype in INDICES.items()}}


def _feature(name: str, array: ArraySpec) -> Feature:
    if name.startswith("image/"):
        if array.dtype != "uint8" or len(array.shape) != 3 or array.shape[0] != 3 * array.frames:
            raise RobotRLError(
                f"The group '{name}' is {array.dtype}{list(array.shape)}; a data set keeps colour images as uint8 "
                "[3, height, width], of stacked ones (env.frame_stack) the newest. Leave the group out (env.groups), "
                "or record from a colour camera."
            )
        c, h, w = 3, *array.shape[1:]
        return Feature("video", (h, w, c), ["height", "width", "channels"])
    shape = tuple(array.shape) or (1,)
    names = [f"{name}_{i}" for i in range(shape[0])] if len(shape) == 1 and shape[0] > 1 else None
    return Feature(array.dtype, shape, names)


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file of bounded size.

    Raises:
        RobotRLError: it is missing, too large, or no JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise RobotRLError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB, which {what} never is.")
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RobotRLError(f"{path} cannot be read: {error}. It should be {what}.") from error
    if not isinstance(data, dict):
        raise RobotRLError(f"{path} is not a JSON object, so it is not {what}.")
    return data


def to_bytes(data: Any) -> bytes:
    """JSON as LeRobot writes it."""
    return (json.dumps(data, indent=4, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_features(entries: Any, source: str) -> dict[str, Feature]:
    """The features of an `info.json` by LeRobot key, without those that hold text.

    Raises:
        RobotRLError: an entry is not what v3.0 allows.
    """
    if not isinstance(entries, dict) or not entries:
        raise RobotRLError(f"{source} names no features, so it does not describe a LeRobotDataset.")
    features = {}
    for key, entry in entries.items():
        if not _KEY.match(key) or ".." in key or not isinstance(entry, dict):
            raise RobotRLError(f"{source} has a feature '{key}' that is not of the form v3.0 describes.")
        dtype, shape = str(entry.get("dtype")), entry.get("shape")
        if dtype in _SKIPPED:
            continue
        if dtype not in _DTYPES | _VISUAL:
            raise RobotRLError(f"{source}: the feature '{key}' has the unknown type '{dtype}'.")
        sizes_fine = isinstance(shape, list) and all(type(n) is int and 0 < n < 1 << 20 for n in shape)
        if not sizes_fine or not shape or len(shape) > 5 or math.prod(shape) > 1 << 28:
            raise RobotRLError(f"{source}: the feature '{key}' has the impossible shape {shape}.")
        info = entry.get("info")
        features[key] = _oriented(
            Feature(dtype, tuple(shape), entry.get("names"), info if isinstance(info, dict) else {})
        )
    return features


def _oriented(feature: Feature) -> Feature:
    """Cameras as `(H, W, C)`: some data sets declare `(C, H, W)`."""
    names = feature.names or []
    if feature.visual and len(feature.shape) == 3 and str(names[0] if names else "").startswith("channel"):
        c, h, w = feature.shape
        return Feature(feature.dtype, (h, w, c), ["height", "width", "channels"], feature.info)
    return feature


def fill(template: Any, source: str, **values: str | int) -> str:
    """A path template of `info.json` with its numbers filled in; nothing but the three known names is replaced.

    Raises:
        RobotRLError: the template has other names in it, or leads out of the data set.
    """

    def one(match: re.Match[str]) -> str:
        name, width = match[1], int(match[2] or 0)
        if name not in values:
            raise RobotRLError(f"{source} has the path template '{template}', whose '{name}' is not known here.")
        value = values[name]
        return f"{value:0{width}d}" if isinstance(value, int) and width else str(value)

    text = re.sub(r"\{(\w+)(?::0(\d)d)?\}", one, str(template))
    if re.search(r"[{}\\]", text) or text.startswith("/") or ".." in Path(text).parts:
        raise RobotRLError(f"{source} has the path template '{template}', which is not one of v3.0.")
    return text


__all__ = ["Feature", "Schema", "field_of", "fill", "key_of", "parse_features", "read_json", "to_bytes"]
