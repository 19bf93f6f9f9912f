"""A LeRobotDataset v3.0 on disk, opened for reading: whatever is wrong with it is one clear sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.data import schema as names
from robotrl.data.journal import interrupted
from robotrl.data.schema import Feature, Schema, fill, parse_features, read_json
from robotrl.data.tables import open_parquet, read_columns, read_rows
from robotrl.types import EnvSpec, RobotRLError

MAX_FRAMES = 1 << 40
_NEEDED = ("episode_index", "length", "tasks", "data/chunk_index", "data/file_index", "dataset_from_index")


@dataclass(frozen=True, slots=True)
class Clip:
    """Where one camera's frames of one episode are: a file, and the second in it at which they start."""

    path: Path
    start: float
    chunk: int
    file: int


@dataclass(frozen=True, slots=True)
class EpisodeInfo:
    """One episode: its rows are `start .. start + length - 1`."""

    index: int
    start: int
    length: int
    tasks: tuple[str, ...]
    data: tuple[int, int]
    """Chunk and file."""
    clips: dict[str, Clip]
    seed: int | None = None
    number: int | None = None
    """The episode's index in the run that recorded it: it started from `(seed, number)`."""
    success: bool | None = None
    total_reward: float | None = None
    session: int | None = None


class Dataset:
    """What `meta/` says, checked; arrays are read on demand.

    Args:
        root: the data set's folder.

    Raises:
        RobotRLError: it is no LeRobotDataset v3.0, or files of it are missing, cut off or contradict each other.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / names.INFO).is_file():
            raise RobotRLError(_no_dataset(self.root))
        if interrupted(self.root):
            raise RobotRLError(
                f"Writing {self.root} was interrupted. Nothing finished is lost; put it in order with: "
                f"robotrl data repair {self.root}"
            )
        self.info = read_json(self.root / names.INFO, "the description of a LeRobotDataset")
        self._source = str(self.root / names.INFO)
        _check_version(self.info, self._source)
        self.fps = _number(self.info, "fps", self._source)
        self.total_episodes = _count(self.info, "total_episodes", self._source)
        self.total_frames = _count(self.info, "total_frames", self._source)
        self.features = parse_features(self.info.get("features"), self._source)
        _check_indices(self.features, self._source)
        own = self.root / names.OWN_INFO
        self.own = read_json(own, "RobotRL's notes on a data set") if own.is_file() else {}
        self.fields = self._fields()
        self.tasks = self._tasks()
        self.episodes = self._episodes()
        self._check_files()

    @property
    def schema(self) -> Schema:
        """What the steps hold, without the indices."""
        return Schema(self.fps, {n: self.features[k] for n, k in self.fields.items() if n not in ("done", "success")})

    @property
    def env_spec(self) -> EnvSpec | None:
        """The env it was recorded in, where RobotRL recorded it."""
        saved = self.own.get("env")
        try:
            return None if saved is None else EnvSpec.from_json(saved)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RobotRLError(f"{self.root / names.OWN_INFO} does not describe an env: {error!r}.") from error

    @property
    def starts(self) -> NDArray[np.int64]:
        """First row of each episode, and one more than the last row of all: `[episodes + 1]`."""
        return np.array([e.start for e in self.episodes] + [self.total_frames], np.int64)

    def data_path(self, chunk: int, file: int) -> Path:
        """The table that holds that part."""
        template = self.info.get("data_path", names.DATA_PATH)
        return self.root / fill(template, self._source, chunk_index=chunk, file_index=file)

    def video_path(self, key: str, chunk: int, file: int) -> Path:
        """The video that holds that part of a camera."""
        template = self.info.get("video_path") or names.VIDEO_PATH
        return self.root / fill(template, self._source, video_key=key, chunk_index=chunk, file_index=file)

    def read(self, fields: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Columns `[total_frames, ...]` of the fields named, and of `episode_index`, `frame_index`, `task_index`.

        Raises:
            RobotRLError: they are damaged, contradict `meta/`, or do not fit into memory.
        """
        keys = {name: self.fields[name] for name in fields}
        wanted = {key: self.features[key] for key in (*keys.values(), *names.INDICES)}
        needed = self.total_frames * sum(feature.row_bytes for feature in wanted.values())
        check_memory(needed, f"The data set {self.root}")
        columns = {k: np.empty((self.total_frames, *_row(f)), f.dtype) for k, f in wanted.items()}
        seen = np.zeros(self.total_frames, np.bool_)
        for path in self._data_files():
            part = read_columns(path, wanted)
            index = part["index"]
            here = (index >= 0) & (index < self.total_frames)  # rows of an episode that was never saved are no data
            for key, values in part.items():
                columns[key][index[here]] = values[here]
            seen[index[here]] = True
        self._check_rows(columns, seen)
        found = {name: columns[key] for name, key in keys.items()}
        return found | {key: columns[key] for key in ("episode_index", "frame_index", "task_index", "timestamp")}

    def images_in_tables(self) -> list[str]:
        """Cameras whose pictures stand in the tables instead of in videos."""
        return [name for name, key in self.fields.items() if self.features[key].dtype == "image"]

    def extras(self, columns: Sequence[str] | None = None) -> dict[int, dict[str, Any]]:
        """RobotRL's notes on episodes, by index; those that no longer fit the episode are left out."""
        lengths = {e.index: e.length for e in self.episodes} if hasattr(self, "episodes") else None
        found = {}
        for path in sorted((self.root / "meta/robotrl/episodes").glob("chunk-*/file-*.parquet")):
            for row in read_rows(path, columns and [*columns, "episode_index", "length"]):
                index = row.get("episode_index")
                if isinstance(index, int) and (lengths is None or lengths.get(index) == row.get("length")):
                    found[index] = row
        return found

    def _fields(self) -> dict[str, str]:
        """Field names to keys; RobotRL's own notes know which dots were slashes."""
        noted = self.own.get("fields")
        noted = noted if isinstance(noted, dict) else {}
        back = {str(key): str(name) for name, key in noted.items()}
        keys = [key for key in self.features if key not in names.INDICES]
        return {back.get(key, names.field_of(key)): key for key in keys}

    def _tasks(self) -> list[str]:
        path = self.root / names.TASKS
        if not path.is_file():
            if self.info.get("total_tasks"):
                raise RobotRLError(f"{path} is missing, so the tasks' words are lost. Copy the data set again.")
            return []
        rows = read_rows(path)
        tasks: dict[int, str] = {}
        for row in rows:
            number = row.get("task_index")
            words = [v for k, v in row.items() if k != "task_index" and isinstance(v, str)]
            if not isinstance(number, int) or len(words) != 1 or not 0 <= number < len(rows):
                raise RobotRLError(f"{path} does not list tasks by number, as v3.0 does.")
            tasks[number] = words[0]
        return [tasks[i] for i in sorted(tasks)]

    def _episodes(self) -> list[EpisodeInfo]:
        videos = [k for k, f in self.features.items() if f.dtype == "video"]
        columns = list(_NEEDED)
        for key in videos:
            columns += [f"videos/{key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")]
        rows = self._rows(columns)
        notes = {} if not self.own else self.extras(("seed", "episode", "success", "return", "session"))
        return self._checked(sorted(rows, key=lambda row: row["episode_index"]), videos, notes)

    def _rows(self, columns: list[str]) -> list[dict[str, Any]]:
        """Every episode's row in `meta/episodes`."""
        rows: list[dict[str, Any]] = []
        for path in sorted((self.root / "meta/episodes").glob("chunk-*/file-*.parquet")):
            found = read_rows(path, columns)
            lacking = sorted(set(columns) - set(found[0])) if found else []
            if lacking:
                raise RobotRLError(f"{path} lacks the columns {lacking}, which v3.0 has for each episode.")
            rows += found
        return rows

    def _checked(
        self, rows: list[dict[str, Any]], videos: list[str], notes: dict[int, dict[str, Any]]
    ) -> list[EpisodeInfo]:
        """The episodes, once their numbers follow each other and add up."""
        place = self.root / "meta/episodes"
        if [row["episode_index"] for row in rows] != list(range(self.total_episodes)):
            raise RobotRLError(
                f"{place} lists {len(rows)} episodes, but {self._source} counts {self.total_episodes}. Whoever wrote "
                f"it was probably stopped in the middle. Try: robotrl data repair {self.root}"
            )
        episodes, start = [], 0
        for row in rows:
            episode = self._episode(row, videos, notes)
            if episode.start != start:
                raise RobotRLError(
                    f"{place}: episode {episode.index} starts at row {episode.start}, where row {start} should follow. "
                    f"Keep what can be read with: robotrl data repair {self.root} out=<new folder>"
                )
            episodes.append(episode)
            start += episode.length
        if start != self.total_frames:
            raise RobotRLError(
                f"{place} counts {start} steps, but {self._source} counts {self.total_frames}. Try: robotrl data "
                f"repair {self.root}"
            )
        return episodes

    def _episode(self, row: dict[str, Any], videos: list[str], notes: dict[int, dict[str, Any]]) -> EpisodeInfo:
        i, length, tasks, start = row["episode_index"], row["length"], row["tasks"], row["dataset_from_index"]
        numbers = [i, length, start, row["data/chunk_index"], row["data/file_index"]]
        if any(type(n) is not int or n < 0 for n in numbers) or length < 1:
            raise RobotRLError(
                f"{self.root / 'meta/episodes'}: episode {i} has {length} steps from row {start} on, which cannot be. "
                f"Keep what can be read with: robotrl data repair {self.root} out=<new folder>"
            )
        note = notes.get(i, {})
        note = note if note.get("length") == length else {}
        return EpisodeInfo(
            i, start, length, tuple(str(t) for t in tasks) if isinstance(tasks, list) else (),
            (numbers[3], numbers[4]), {key: self._clip(row, key) for key in videos},
            note.get("seed"), note.get("episode"), note.get("success"), note.get("return"), note.get("session"),
        )  # fmt: skip

    def _clip(self, row: dict[str, Any], key: str) -> Clip:
        chunk, file, start = (row[f"videos/{key}/{part}"] for part in ("chunk_index", "file_index", "from_timestamp"))
        fine = type(chunk) is int and type(file) is int and chunk >= 0 and file >= 0
        if not fine or not isinstance(start, float) or not math.isfinite(start) or start < 0:
            raise RobotRLError(
                f"{self.root / 'meta/episodes'} does not say where the video '{key}' of episode {row['episode_index']} "
                "is: recording it was probably stopped. Keep the others with: "
                f"robotrl data repair {self.root} out=<new folder>"
            )
        return Clip(self.video_path(key, chunk, file), start, chunk, file)

    def _data_files(self) -> list[Path]:
        return [self.data_path(*place) for place in dict.fromkeys(e.data for e in self.episodes)]

    def _check_files(self) -> None:
        for path in self._data_files():
            if not path.is_file():
                open_parquet(path)
        missing: dict[Path, list[int]] = {}
        for episode in self.episodes:
            for clip in episode.clips.values():
                missing.setdefault(clip.path, []).append(episode.index)
        for path, episodes in missing.items():
            if not path.is_file() or path.stat().st_size == 0:
                what = "is empty" if path.is_file() else "is missing"
                raise RobotRLError(
                    f"The video {path} {what}; it holds the pictures of episodes {_ranges(episodes)}. Copy it from "
                    "where the data set came from, or keep the others with: "
                    f"robotrl data repair {self.root} out=<new folder>"
                )

    def _check_rows(self, columns: dict[str, NDArray[Any]], seen: NDArray[np.bool_]) -> None:
        if not seen.all():
            row = int(np.flatnonzero(~seen)[0])
            raise RobotRLError(
                f"The tables in {self.root / 'data'} lack row {row} of {self.total_frames} (and "
                f"{int((~seen).sum()) - 1} more). Files are missing or cut off; copy the data set again."
            )
        starts = self.starts
        episode = np.repeat(np.arange(self.total_episodes), np.diff(starts))
        step = np.arange(self.total_frames) - starts[episode]
        for key, expected in (("episode_index", episode), ("frame_index", step)):
            wrong = np.flatnonzero(columns[key] != expected)
            if len(wrong):
                row = int(wrong[0])
                raise RobotRLError(
                    f"The tables in {self.root / 'data'} contradict meta/episodes: row {row} has {key} "
                    f"{int(columns[key][row])} instead of {int(expected[row])}. The data set was edited by hand or "
                    "mixed from two; write it anew with LeRobot's tools or robotrl data merge."
                )
        drift = np.abs(columns["timestamp"] - step / self.fps)
        if drift.max(initial=0.0) > 0.5 / self.fps:
            row = int(drift.argmax())
            raise RobotRLError(
                f"{self._source} says {self.fps:g} frames a second, but the timestamps of episode {int(episode[row])} "
                f"say otherwise (step {int(step[row])} is at {float(columns['timestamp'][row]):.3f} s). Mend it."
            )


def _no_dataset(root: Path) -> str:
    if not root.exists():
        return f"There is no data set at {root}. Give the folder that holds meta/, data/ and videos/."
    inside = sorted(str(path.parent.parent) for path in root.glob("*/meta/info.json"))
    hint = f" Data sets inside it: {', '.join(inside[:3])}." if inside else ""
    return f"{root} is not a LeRobotDataset: it has no {names.INFO}.{hint}"


def _check_version(info: dict[str, Any], source: str) -> None:
    version = str(info.get("codebase_version", ""))
    major = version.removeprefix("v").partition(".")[0]
    if major in ("1", "2"):
        raise RobotRLError(
            f"{source} is of LeRobot's format {version}; RobotRL reads v3. Convert it with LeRobot's own script "
            "convert_dataset_v21_to_v30."
        )
    if major != "3":
        raise RobotRLError(f"{source} is of the format '{version}', which this RobotRL does not know. It reads v3.")


def _number(info: dict[str, Any], key: str, source: str) -> float:
    value = info.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise RobotRLError(f"{source}: {key} is {value!r}; it must be a number above zero.")
    return float(value)


def _count(info: dict[str, Any], key: str, source: str) -> int:
    value = info.get(key)
    if type(value) is not int or not 0 <= value < MAX_FRAMES:
        raise RobotRLError(f"{source}: {key} is {value!r}; it must be a whole number.")
    return value


def _check_indices(features: dict[str, Feature], source: str) -> None:
    missing = [key for key in names.INDICES if key not in features]
    if missing:
        raise RobotRLError(f"{source} declares no {missing}, which every LeRobotDataset v3.0 has.")


def check_memory(needed: int, what: str) -> None:
    """Raise where more is asked for than the machine has free; before anything is allocated."""
    free = _free_memory()
    if free is not None and needed > free:
        raise RobotRLError(
            f"{what} needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. Read "
            "fewer groups, or split it."
        )


def _free_memory() -> int | None:
    """Bytes that can still be had; None on a system that does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def _row(feature: Feature) -> tuple[int, ...]:
    return () if feature.shape == (1,) else feature.shape


def _ranges(numbers: Sequence[int]) -> str:
    first, last = min(numbers), max(numbers)
    return str(first) if first == last else f"{first} to {last}"


__all__ = ["Clip", "Dataset", "EpisodeInfo", "check_memory"]
