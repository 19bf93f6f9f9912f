"""One data set out of the episodes of several; videos are copied as they are, numbers bit for bit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robotrl.data import schema as names
from robotrl.data import stats
from robotrl.data.dataset import Dataset, EpisodeInfo
from robotrl.data.journal import Change, Journal
from robotrl.data.tables import encode, encode_groups, extras_table, place_columns, pyarrow, read_rows, tasks_table
from robotrl.types import RobotRLError

Source = tuple[Dataset, Sequence[EpisodeInfo]]


def merge(roots: Sequence[str | Path], out: str | Path) -> int:
    """Write the episodes of all data sets, in order, into a new one; how many there are.

    Raises:
        RobotRLError: they are of different kinds (every difference is named), something is at `out`, or one is damaged.
    """
    datasets = [Dataset(root) for root in roots]
    for other in datasets[1:]:
        differ = differences(datasets[0], other)
        if differ:
            raise RobotRLError(
                f"{datasets[0].root} and {other.root} are of different kinds: {'; '.join(differ)}. Only data of "
                "the same features, frame rate and env can be merged."
            )
    return assemble([(dataset, dataset.episodes) for dataset in datasets], out)


def differences(a: Dataset, b: Dataset) -> list[str]:
    """Why the steps of two data sets cannot stand in one; empty if they can."""
    mine = {k: (f.dtype, f.shape) for k, f in a.features.items()}
    theirs = {k: (f.dtype, f.shape) for k, f in b.features.items()}
    differ = [
        f"{k} is {_shown(mine.get(k))} and {_shown(theirs.get(k))}"
        for k in sorted(mine.keys() | theirs.keys())
        if mine.get(k) != theirs.get(k)
    ]
    if a.fps != b.fps:
        differ.append(f"{a.fps:g} and {b.fps:g} frames a second")
    one, other = a.env_spec, b.env_spec
    if one is not None and other is not None and one.action != other.action:
        differ.append(f"actions within {one.action.low}..{one.action.high} and {other.action.low}..{other.action.high}")
    return differ


def _shown(feature: tuple[str, tuple[int, ...]] | None) -> str:
    return "missing" if feature is None else f"{feature[0]}{list(feature[1])}"


def assemble(sources: Sequence[Source], out: str | Path) -> int:
    """Write chosen episodes of data sets of one kind into a new data set; how many there are.

    Raises:
        RobotRLError: something is at `out`, there are no episodes, the disk is full, or a table is damaged.
    """
    sources = [(dataset, list(episodes)) for dataset, episodes in sources if len(episodes)]
    target = Path(out)
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise RobotRLError(f"{target} is there already. Choose a new folder.")
    if not sources:
        raise RobotRLError("There are no episodes to write.")
    journal = Journal(target)
    try:
        with journal.change("The new data set") as change:
            return _Assembly(change).write(sources)
    finally:
        journal.close()


class _Assembly:
    """The new data set in the making."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.rows: list[dict[str, Any]] = []
        self.extras: list[dict[str, Any]] = []
        self.tasks: list[str] = []
        self.sessions: list[dict[str, Any]] = []
        self.frames = 0
        self.files: dict[str, int] = {}

    def write(self, sources: Sequence[Source]) -> int:
        for dataset, episodes in sources:
            self._add(dataset, episodes)
        first = sources[0][0]
        info = {
            **first.info, "total_episodes": len(self.rows), "total_frames": self.frames, "total_tasks": len(self.tasks),
            "splits": {"train": f"0:{len(self.rows)}"}, "data_path": names.DATA_PATH,
            "video_path": names.VIDEO_PATH if any(f.dtype == "video" for f in first.features.values()) else None,
            "chunks_size": names.CHUNK_FILES,
        }  # fmt: skip
        for row in self.rows:
            row.update(place_columns("meta/episodes", (0, 0)))
        self.change.write(_path(names.EPISODES_PATH, 0), encode(pyarrow().Table.from_pylist(self.rows)))
        self.change.write(names.TASKS, tasks_table(self.tasks))
        self.change.write(names.STATS, names.to_bytes(self._stats(sources)))
        if any(dataset.own for dataset, _ in sources):
            self.change.write(_path(names.EXTRAS_PATH, 0), encode(extras_table(self.extras)))
            specs = [dataset.own.get("env") for dataset, _ in sources]
            own = {
                **first.own,
                "env": specs[0] if all(s == specs[0] for s in specs) else None,
                "sessions": self.sessions,
            }
            own.pop("loose_from", None)
            self.change.write(names.OWN_INFO, names.to_bytes({"format_version": 1, **own}))
        self.change.write(names.INFO, names.to_bytes(info))
        return len(self.rows)

    def _stats(self, sources: Sequence[Source]) -> dict[str, Any]:
        """Of the episodes where each brings its own, else of the data sets."""
        parts = [_nested(row) for row in self.rows]
        if not all(parts):
            files = [dataset.root / names.STATS for dataset, _ in sources]
            parts = [names.read_json(file, "statistics") for file in files if file.is_file()]
        return stats.to_json(stats.joined(parts)) if parts else {}

    def _add(self, dataset: Dataset, episodes: Sequence[EpisodeInfo]) -> None:
        wanted = {episode.index for episode in episodes}
        meta = {
            row["episode_index"]: row
            for path in sorted((dataset.root / "meta/episodes").glob("chunk-*/file-*.parquet"))
            for row in read_rows(path)
            if row["episode_index"] in wanted
        }
        notes = dataset.extras()
        video_files = self._copy_videos(dataset, episodes)
        numbers = {task: self._task(task) for task in dataset.tasks}
        renumbered = np.array([numbers[task] for task in dataset.tasks], np.int64)
        session = len(self.sessions)
        self.sessions += [
            {**s, "first_episode": len(self.rows) + s.get("first_episode", 0)} for s in dataset.own.get("sessions", [])
        ]
        by_file: dict[tuple[int, int], list[EpisodeInfo]] = {}
        for episode in episodes:
            by_file.setdefault(episode.data, []).append(episode)
        for place, part in by_file.items():
            file = self._number("data")
            tables = []
            table = _read_table(dataset.data_path(*place))
            for episode in part:
                new = len(self.rows)
                tables.append(_renumbered(table, episode, new, self.frames, renumbered, dataset))
                row = {k: v for k, v in meta[episode.index].items() if not k.startswith(("meta/", "data/"))}
                row |= {"episode_index": new, **place_columns("data", _place(file))}
                row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + episode.length}
                for key, clip in episode.clips.items():
                    row |= place_columns(f"videos/{key}", _place(video_files[clip.path]))
                self.rows.append(row)
                note = notes.get(episode.index, {"length": episode.length})
                moved = None if note.get("session") is None else note["session"] + session
                self.extras.append({**note, "episode_index": new, "session": moved})
                self.frames += episode.length
            self.change.write(_path(names.DATA_PATH, file), encode_groups(tables))

    def _copy_videos(self, dataset: Dataset, episodes: Sequence[EpisodeInfo]) -> dict[Path, int]:
        """The number of each video file in the new data set; a link where the file system can, since none changes."""
        found: dict[Path, int] = {}
        for key in episodes[0].clips:
            for path in dict.fromkeys(episode.clips[key].path for episode in episodes):
                found[path] = self._number(key)
                new = self.change.path(_path(names.VIDEO_PATH, found[path], video_key=key))
                try:
                    os.link(path.resolve(), new)
                except OSError:
                    shutil.copyfile(path, new)
        return found

    def _number(self, kind: str) -> int:
        self.files[kind] = self.files.get(kind, -1) + 1
        return self.files[kind]

    def _task(self, task: str) -> int:
        if task not in self.tasks:
            self.tasks.append(task)
        return self.tasks.index(task)


def _read_table(path: Path) -> Any:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        return pq.read_table(path)
    except (ArrowException, OSError) as error:
        raise RobotRLError(f"{path} cannot be read: {error}.") from error


def _renumbered(table: Any, episode: EpisodeInfo, index: int, start: int, tasks: Any, dataset: Dataset) -> Any:
    """The rows of one episode with the numbers they have in the new data set."""
    pa = pyarrow()
    rows = np.flatnonzero(table.column("episode_index").to_numpy() == episode.index)
    rows = rows[np.argsort(table.column("frame_index").to_numpy()[rows], kind="stable")]
    if len(rows) != episode.length:
        raise RobotRLError(
            f"Episode {episode.index} of {dataset.root} has {len(rows)} rows in its table instead of {episode.length}. "
            f"Try: robotrl data repair {dataset.root}"
        )
    part = table.take(rows)
    task = part.column("task_index").to_numpy()
    if len(task) and (task.min() < 0 or task.max() >= len(tasks)):
        raise RobotRLError(
            f"Episode {episode.index} of {dataset.root} has a task that meta/tasks.parquet does not list."
        )
    new = {"episode_index": np.full(len(rows), index), "index": start + np.arange(len(rows)), "task_index": tasks[task]}
    for name, values in new.items():
        at = part.schema.get_field_index(name)
        part = part.set_column(at, part.schema.field(at), pa.chunked_array([pa.array(values, pa.int64())]))
    return part


def _nested(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The statistics in an episode's row."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        if key.startswith("stats/") and value is not None:
            feature, _, name = key.removeprefix("stats/").rpartition("/")
            found.setdefault(feature, {})[name] = value
    return {k: v for k, v in found.items() if {"mean", "std", "count", "min", "max"} <= v.keys()}


def _place(file: int) -> tuple[int, int]:
    return divmod(file, names.CHUNK_FILES)


def _path(template: str, file: int, **words: str) -> str:
    chunk, number = _place(file)
    return template.format(chunk_index=chunk, file_index=number, **words)


__all__ = ["assemble", "differences", "merge"]
