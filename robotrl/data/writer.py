"""Recording a LeRobotDataset v3.0: an episode whose `save` has returned survives whatever comes after.

What one `save` stores goes into files of its own, in one change of the journal, so the data set is complete, and
readable by LeRobot, after every `save`. `close` joins the small files into ones of up to 100 MB (videos 200 MB), again
in one change; where that never happens, because the recording was killed, the next writer or `robotrl data repair` does
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.data import schema as names
from robotrl.data import stats
from robotrl.data.compact import LOOSE, compact
from robotrl.data.dataset import Dataset
from robotrl.data.journal import Change, Journal
from robotrl.data.schema import Feature, Schema, key_of
from robotrl.data.tables import (
    column,
    encode,
    encode_groups,
    extras_table,
    grouped,
    nested,
    place_columns,
    pyarrow,
    tasks_table,
)
from robotrl.data.video import clip_info, encode_clips, encode_png, is_lossless
from robotrl.types import EnvSpec, RobotRLError

Place = tuple[int, int]
"""Chunk and file."""


@dataclass(slots=True)
class Episode:
    """One finished episode, by RobotRL's field names.

    `steps` holds `[T, ...]` of every field of the schema (images uint8 `[T, C, H, W]`), `final` the observation after
    the last action, by `obs/<group>`; it may be left out where nobody knows it.
    """

    steps: dict[str, NDArray[Any]]
    task: str
    final: dict[str, NDArray[Any]] = field(default_factory=dict)
    success: bool | None = None
    seed: int | None = None
    number: int | None = None
    """It started from `(seed, number)`."""

    def __len__(self) -> int:
        return len(self.steps["action"])


class DatasetWriter:
    """The one writer of a data set; use it in a `with` statement.

    Args:
        root: its folder: a new one, or a data set of the same schema that is to grow.
        schema: what the steps hold.
        env: the env it is recorded in, kept with the data so that readers can check what they use it for.
        robot_type: LeRobot's name of the robot.
        lossless: keep every pixel of its videos, for several times the bytes.

    Raises:
        RobotRLError: another process writes there, something else is there, or the schemas differ.
    """

    def __init__(
        self,
        root: str | Path,
        schema: Schema,
        *,
        env: EnvSpec | None = None,
        robot_type: str | None = None,
        lossless: bool = False,
    ) -> None:
        pyarrow()
        self.root, self.schema, self._lossless = Path(root), schema, lossless
        _refuse_strangers(self.root)
        self._journal, self._closed = Journal(self.root), False
        try:
            self.recovered = self._journal.recover()
            """Files that an interrupted writer had saved, but not put in place."""
            if (self.root / names.INFO).is_file():
                compact(self._journal)  # what a killed recording left in small files
                self._continue(Dataset(self.root), env)
            else:
                self._begin(env, robot_type)
        except BaseException:
            self._journal.close()
            raise

    def _begin(self, env: EnvSpec | None, robot_type: str | None) -> None:
        features, fps = self.schema.to_json(), self.schema.fps
        for name, camera in self.schema.cameras.items():
            height, width, _ = camera.shape
            features[key_of(name)]["info"] = clip_info(height, width, fps, lossless=self._lossless)
        self._info: dict[str, Any] = {
            "codebase_version": names.VERSION,
            "robot_type": robot_type or (None if env is None else env.id),
            "total_episodes": 0, "total_frames": 0, "total_tasks": 0,
            "chunks_size": names.CHUNK_FILES,
            "data_files_size_in_mb": names.DATA_MB, "video_files_size_in_mb": names.VIDEO_MB,
            "fps": int(fps) if fps == int(fps) else fps,
            "splits": {},
            "data_path": names.DATA_PATH,
            "video_path": names.VIDEO_PATH if self.schema.cameras else None,
            "features": features,
        }  # fmt: skip
        self._own: dict[str, Any] = {
            "format_version": 1,
            "env": None if env is None else env.to_json(),
            "fields": {name: key_of(name) for name in self.schema.features},
            "sessions": [],
        }
        self._tasks: list[str] = []
        self._stats: dict[str, stats.Stats] = {}
        self._next: dict[str, Place] = {}

    def _continue(self, dataset: Dataset, env: EnvSpec | None) -> None:
        ours = {key_of(n): (f.dtype, f.shape) for n, f in self.schema.features.items()}
        theirs = {k: (f.dtype, f.shape) for k, f in dataset.features.items() if k not in names.INDICES}
        differ = [
            f"{k}: {theirs.get(k, 'nothing')} there, {ours.get(k, 'nothing')} here"
            for k in sorted(ours.keys() | theirs.keys())
            if ours.get(k) != theirs.get(k) and k not in ("next.done", "next.success")
        ]
        if dataset.fps != self.schema.fps:
            differ.append(f"{dataset.fps:g} frames a second there, {self.schema.fps:g} here")
        for name in self.schema.cameras:
            there = dataset.features.get(key_of(name))
            if there is not None and is_lossless(there.info) != self._lossless:
                differ.append(f"{key_of(name)} is {'' if is_lossless(there.info) else 'not '}lossless there")
        saved = dataset.env_spec
        if env is not None and saved is not None and saved.action != env.action:
            differ.append(f"actions are {saved.action} there, {env.action} here")
        if differ:
            raise RobotRLError(
                f"{self.root} is a data set of another kind: {'; '.join(differ)}. Record into a new folder."
            )
        self._info, self._tasks = dataset.info, dataset.tasks
        self._own = dataset.own or {"format_version": 1, "env": None if env is None else env.to_json(), "sessions": []}
        path = self.root / names.STATS
        saved_stats = names.read_json(path, "statistics") if path.is_file() else {}
        self._stats = {k: {n: np.asarray(v) for n, v in s.items()} for k, s in saved_stats.items()}
        self._next = _next_places(dataset)

    @property
    def num_episodes(self) -> int:
        """Episodes that are saved."""
        return int(self._info["total_episodes"])

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What was noted about each recording session."""
        return list(self._own["sessions"])

    def begin_session(self, **facts: Any) -> int:
        """Note how the episodes that follow are recorded (JSON-ready facts); the number of the session."""
        self._own["sessions"] = [*self._own["sessions"], {**facts, "first_episode": self.num_episodes}]
        return len(self._own["sessions"]) - 1

    def save(self, episode: Episode) -> int:
        """Store a finished episode for good; its index. See `save_all`."""
        return self.save_all([episode])[0]

    def save_all(self, episodes: Sequence[Episode]) -> list[int]:
        """Store finished episodes for good, all or none of them; their indices.

        Most of the time goes into waiting for the disk, once a call, so episodes that end together are saved together.

        Raises:
            RobotRLError: one does not fit the schema or holds what is not finite, or the disk is full. None is saved
                then, and every episode before them is.
        """
        for episode in episodes:
            self._check(episode)
        if not episodes:
            return []
        first = self.num_episodes
        indices = list(range(first, first + len(episodes)))
        tasks = list(dict.fromkeys([*self._tasks, *(episode.task for episode in episodes)]))
        places = {kind: self._next.get(kind, (0, 0)) for kind in self._kinds()}
        what = f"Episode {first}" if len(episodes) == 1 else f"Episodes {first} to {indices[-1]}"
        own = {LOOSE: first, **self._own}
        with self._journal.change(what) as change:
            meta, found = self._write_steps(change, episodes, tasks, places)
            info = self._counted(sum(map(len, episodes)), len(episodes), len(tasks))
            fresh = {key: stats.together(stack) for key, stack in found.items()}
            total = stats.joined([*([self._stats] if self._stats else []), fresh])
            change.write(_numbered(names.EPISODES_PATH, places["meta"]), encode(meta))
            extras = [self._extras(index, episode) for index, episode in zip(indices, episodes, strict=True)]
            change.write(_numbered(names.EXTRAS_PATH, places["meta"]), encode(extras_table(extras)))
            for name, content in (
                (names.INFO, names.to_bytes(info)),
                (names.STATS, names.to_bytes(stats.to_json(total))),
                (names.OWN_INFO, names.to_bytes(own)),
                (names.TASKS, tasks_table(tasks)),
            ):
                change.write(name, content)
        self._info, self._tasks, self._stats, self._own = info, tasks, total, own
        self._next |= {kind: _after(place) for kind, place in places.items()}
        return indices

    def _write_steps(
        self, change: Change, episodes: Sequence[Episode], tasks: list[str], places: dict[str, Place]
    ) -> tuple[Any, dict[str, stats.Stats]]:
        """Prepare tables and videos; the table for `meta/episodes`, and statistics `[E, ...]` of every feature."""
        pa = pyarrow()
        lengths = np.array([len(episode) for episode in episodes], np.int64)
        count, ends = len(episodes), int(self._info["total_frames"]) + np.cumsum(lengths)
        columns = self._columns(episodes, lengths, [tasks.index(episode.task) for episode in episodes])
        table = pa.table({key: column(values) for key, values in columns.items()})
        change.write(_numbered(names.DATA_PATH, places["data"]), encode_groups(grouped(table, lengths.tolist())))
        found = {key: stats.array_stats(values, lengths) for key, values in columns.items()}
        meta: dict[str, Any] = {
            "episode_index": pa.array(self.num_episodes + np.arange(count)),
            "tasks": pa.array([[episode.task] for episode in episodes]),
            "length": pa.array(lengths),
            **_repeated(place_columns("data", places["data"]), count),
            "dataset_from_index": pa.array(ends - lengths),
            "dataset_to_index": pa.array(ends),
        }
        for name in self.schema.cameras:
            clips, key = [episode.steps[name] for episode in episodes], key_of(name)
            rows = list(self._videos(change, key, clips, places))
            meta |= {part: pa.array([row[part] for row in rows]) for part in rows[0]}
            found[key] = stats.stacked([stats.image_stats(clip) for clip in clips])
        for key, stack in found.items():
            meta |= {f"stats/{key}/{name}": nested(values) for name, values in stack.items()}
        return pa.table(meta | _repeated(place_columns("meta/episodes", places["meta"]), count)), found

    def close(self) -> None:
        """Join the small files and let others write; nothing happens the second time.

        Raises:
            RobotRLError: the disk is full. Every episode is there all the same.
        """
        if not self._closed:
            self._closed = True
            try:
                if LOOSE in self._own:
                    compact(self._journal)
            finally:
                self._journal.close()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, RobotRLError | KeyboardInterrupt):
            self.close()
        else:  # whatever went wrong, it is no time for more work on the disk
            self._closed = True
            self._journal.close()

    def _kinds(self) -> list[str]:
        return ["data", "meta", *(key_of(name) for name in self.schema.cameras)]

    def _check(self, episode: Episode) -> None:
        """Raise unless everything in it is as the schema says."""
        steps, expected = episode.steps, self.schema.features
        if steps.keys() != expected.keys():
            missing, new = sorted(expected.keys() - steps.keys()), sorted(steps.keys() - expected.keys())
            raise RobotRLError(f"The episode does not fit {self.root}: missing fields {missing}, new fields {new}.")
        length = len(episode)
        if length < 1:
            raise RobotRLError("An episode without steps cannot be saved.")
        if not episode.task.strip():
            raise RobotRLError("An episode needs a task in words, as in task='pick up the red block'.")
        for name, values in steps.items():
            _check_values(name, expected[name], values, length)
        for name, values in episode.final.items():
            if name not in expected:
                raise RobotRLError(f"The final observation has '{name}', which the steps lack.")
            _check_values(f"the final {name}", expected[name], values[None], 1)

    def _columns(
        self, episodes: Sequence[Episode], lengths: NDArray[np.int64], tasks: Sequence[int]
    ) -> dict[str, NDArray[Any]]:
        """Every column of the episodes' steps, one episode after the other."""
        total, last = int(lengths.sum()), np.cumsum(lengths) - 1
        columns = {
            key_of(name): np.concatenate([np.asarray(episode.steps[name]) for episode in episodes]).reshape(
                total, *feature.shape
            )
            for name, feature in self.schema.arrays.items()
        }
        ended, success = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
        for name in ("terminated", "truncated"):
            ended |= columns.get(key_of(name), ended).reshape(total)
        ended[last] = True
        success[last] = [bool(episode.success) for episode in episodes]
        which = np.repeat(np.arange(len(episodes)), lengths)
        step = np.arange(total) - (last - lengths + 1)[which]
        columns |= {
            "next.done": ended,
            "next.success": success,
            "timestamp": (step / self.schema.fps).astype(np.float32),
            "frame_index": step,
            "episode_index": self.num_episodes + which,
            "index": int(self._info["total_frames"]) + np.arange(total),
            "task_index": np.asarray(tasks, np.int64)[which],
        }
        declared = [k for k, f in self._info["features"].items() if f["dtype"] not in ("video", "image")]
        return {
            key: np.squeeze(columns[key], -1) if columns[key].shape[1:] == (1,) else columns[key]
            for key in declared
            if key in columns
        }

    def _videos(
        self, change: Change, key: str, clips: Sequence[NDArray[np.uint8]], places: dict[str, Place]
    ) -> Iterator[dict[str, Any]]:
        """Prepare one camera's video of all episodes; where each of them is in it."""
        fps, shown = self.schema.fps, 0
        video = encode_clips(clips, fps, lossless=self._lossless)
        change.write(_numbered(names.VIDEO_PATH, places[key], video_key=key), video)
        for clip in clips:
            start, shown = shown, shown + len(clip)
            where = {f"videos/{key}/from_timestamp": start / fps, f"videos/{key}/to_timestamp": shown / fps}
            yield place_columns(f"videos/{key}", places[key]) | where

    def _counted(self, frames: int, episodes: int, tasks: int) -> dict[str, Any]:
        total = self.num_episodes + episodes
        return {
            **self._info, "total_episodes": total, "total_frames": int(self._info["total_frames"]) + frames,
            "total_tasks": tasks, "splits": {"train": f"0:{total}"},
        }  # fmt: skip

    def _extras(self, index: int, episode: Episode) -> dict[str, Any]:
        reward = episode.steps.get("reward")
        extras: dict[str, Any] = {
            "episode_index": index, "length": len(episode), "seed": episode.seed,
            "episode": episode.number, "success": episode.success,
            "return": None if reward is None else float(np.asarray(reward, np.float64).sum()),
            "session": len(self._own["sessions"]) - 1 if self._own["sessions"] else None,
        }  # fmt: skip
        for name, values in episode.final.items():
            feature = self.schema.features[name]
            extras[f"final/{name}"] = encode_png(values) if feature.visual else np.asarray(values).reshape(-1).tolist()
        return extras


def _check_values(name: str, feature: Feature, values: NDArray[Any], length: int) -> None:
    h_w_c = feature.shape
    shape = (h_w_c[2], *h_w_c[:2]) if feature.visual else feature.shape
    accepted = [(length, *shape), *([(length,)] if shape == (1,) else [])]
    if values.shape not in accepted:
        raise RobotRLError(f"{name} has the shape {list(values.shape)}, this data set needs {list(accepted[0])}.")
    dtype = "uint8" if feature.visual else feature.dtype
    if values.dtype != dtype:
        raise RobotRLError(f"{name} is {values.dtype}, this data set needs {dtype}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        step, *element = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise RobotRLError(
            f"{name} is {values[(step, *element)]} at step {step} of the episode (element {element}), so it is not "
            "saved: what learns from it would be ruined. Find out where it comes from; a diverging simulation is usual."
        )


def _refuse_strangers(root: Path) -> None:
    if not root.exists() or (root / "meta").is_dir():
        return
    if not root.is_dir():
        raise RobotRLError(f"{root} is a file; give the folder of a data set.")
    others = sorted(p.name for p in root.iterdir() if p.name != ".robotrl")
    if others:
        raise RobotRLError(
            f"{root} is not empty and no data set: it holds {', '.join(others[:3])}. Choose a new folder."
        )


def _next_places(dataset: Dataset) -> dict[str, Place]:
    """The first file of each kind that is free."""
    used: dict[str, list[Place]] = {"data": [e.data for e in dataset.episodes]}
    for episode in dataset.episodes:
        for key, clip in episode.clips.items():
            used.setdefault(key, []).append((clip.chunk, clip.file))
    files = [*dataset.root.glob("meta/episodes/*/*.parquet"), *dataset.root.glob("meta/robotrl/episodes/*/*.parquet")]
    used["meta"] = [(int(p.parent.name.rpartition("-")[2]), int(p.stem.rpartition("-")[2])) for p in files]
    return {kind: _after(max(places)) for kind, places in used.items() if places}


def _after(place: Place) -> Place:
    chunk, file = place
    return (chunk, file + 1) if file + 1 < names.CHUNK_FILES else (chunk + 1, 0)


def _repeated(values: dict[str, int], count: int) -> dict[str, Any]:
    return {key: pyarrow().array(np.full(count, value, np.int64)) for key, value in values.items()}


def _numbered(template: str, place: Place, **values: Any) -> str:
    return template.format(chunk_index=place[0], file_index=place[1], **values)


__all__ = ["DatasetWriter", "Episode"]
