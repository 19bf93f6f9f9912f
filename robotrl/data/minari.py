"""Minari data sets in and out: offline reinforcement learning's exchange format, one HDF5 file of episodes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.data.dataset import Dataset, EpisodeInfo
from robotrl.data.frames import Frames
from robotrl.data.schema import NO_CLOCK_FPS, Feature, Schema, read_json
from robotrl.data.writer import DatasetWriter, Episode
from robotrl.types import RobotRLError

BATCH = 16
"""Episodes that are saved in one go."""


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise RobotRLError('Minari is not installed: pip install "robotrl[data]"') from error
    return minari


def import_minari(
    source: str | Path,
    out: str | Path,
    *,
    fps: float | None = None,
    task: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the episodes of a Minari data set as a LeRobotDataset; how many there are.

    A plain observation becomes the group `state`, a dictionary its own groups, nested ones with their keys joined by
    dots. A new data set is written; an interrupted import is continued by the same call.

    Args:
        source: a folder that holds Minari's `data/`, or the id of one in Minari's own place on this machine.
        out: folder of the new data set.
        fps: steps a second; None: what the env's description says, else 30.
        task: in words; None: the data set's id.
        progress: called with (episodes done, episodes).

    Raises:
        RobotRLError: there is none, or its observations or actions are of a kind that has no place in a table.
    """
    data = _open(str(source))
    first = next(iter(data.iterate_episodes([data.episode_indices[0]])), None) if data.total_episodes else None
    if first is None:
        raise RobotRLError(f"The Minari data set {source} has no episodes.")
    schema = Schema(fps or _fps(data), _features(first))
    total = int(data.total_episodes)
    words = task or str(data.spec.dataset_id)
    with DatasetWriter(out, schema) as writer:
        waiting: list[Episode] = []
        todo = list(data.episode_indices)[writer.num_episodes :]
        if not writer.sessions:
            writer.begin_session(minari=str(data.spec.dataset_id))
        for found in data.iterate_episodes(todo):
            waiting.append(_episode(found, schema, words))
            if len(waiting) == BATCH or len(waiting) + writer.num_episodes == total:
                writer.save_all(waiting)
                waiting = []
                if progress is not None:
                    progress(writer.num_episodes, total)
        return writer.num_episodes


def _open(source: str) -> Any:
    minari = _minari()
    folder = Path(source)
    try:
        if not folder.is_dir():
            from minari.storage.datasets_root_dir import get_dataset_path

            folder = Path(get_dataset_path(source))
        folder = folder / "data" if (folder / "data").is_dir() else folder
        metadata = read_json(folder / "metadata.json", "the description of a Minari data set")
        if not all(isinstance(metadata.get(key), str) for key in ("observation_space", "action_space")):
            # Minari would ask the env for them, by importing whatever the file names
            raise RobotRLError(f"{folder} does not describe its spaces. Write it anew with a current Minari.")
        return minari.MinariDataset(folder)
    except RobotRLError:
        raise
    except Exception as error:  # whatever Minari and h5py have to say
        raise RobotRLError(
            f"There is no Minari data set '{source}' that can be read: {error}. Give the folder that holds its data/, "
            "or an id that `minari list local` shows."
        ) from error


def _fps(data: Any) -> float:
    frequency = getattr(getattr(data, "env_spec", None), "kwargs", {}).get("control_frequency")
    return float(frequency) if isinstance(frequency, int | float) and frequency > 0 else NO_CLOCK_FPS


def _features(episode: Any) -> dict[str, Feature]:
    features = {name: _feature(name, values) for name, values in _observations(episode.observations).items()}
    features["action"] = _feature("action", np.asarray(episode.actions))
    features["reward"] = Feature("float32", (1,))
    features["terminated"] = features["truncated"] = Feature("bool", (1,))
    return features


def _feature(name: str, values: NDArray[Any]) -> Feature:
    shape = values.shape[1:] or (1,)
    if name.startswith("obs/image/"):
        return Feature("video", (shape[1], shape[2], 3), ["height", "width", "channels"])
    if values.dtype.kind not in "fiub":
        raise RobotRLError(f"'{name}' is {values.dtype}, which has no place in a table of numbers.")
    return Feature("float32" if values.dtype.kind == "f" else "bool" if values.dtype.kind == "b" else "int64", shape)


def _observations(observations: Any, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Groups `[T + 1, ...]` from a plain or (nested) dictionary observation; pictures as `[T + 1, 3, H, W]`."""
    if isinstance(observations, Mapping):
        found = {}
        for key, value in observations.items():
            found.update(_observations(value, f"{prefix}.{key}" if prefix else str(key)))
        return found
    if isinstance(observations, tuple):
        raise RobotRLError("Observations that are tuples have no names, so they cannot be recorded.")
    values = np.asarray(observations)
    prefix = prefix.removeprefix("image.") if values.dtype == np.uint8 and values.ndim == 4 else prefix
    if values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] == 3:
        return {f"obs/image/{prefix or 'pixels'}": values.transpose(0, 3, 1, 2)}
    return {f"obs/{prefix or 'state'}": values}


def _episode(found: Any, schema: Schema, task: str) -> Episode:
    observations = _observations(found.observations)
    steps = {name: values[:-1] for name, values in observations.items()}
    steps |= {"action": np.asarray(found.actions), "reward": np.asarray(found.rewards)}
    steps |= {
        "terminated": np.asarray(found.terminations, np.bool_),
        "truncated": np.asarray(found.truncations, np.bool_),
    }
    final = {name: values[-1] for name, values in observations.items()}
    seed = getattr(found, "seed", None)
    return Episode(
        {name: _typed(values, schema.features[name]) for name, values in steps.items()},
        task,
        {name: _typed(values, schema.features[name]) for name, values in final.items()},
        seed=int(seed) if isinstance(seed, int | np.integer) else None,
        number=int(found.id),
    )


def _typed(values: NDArray[Any], feature: Feature) -> NDArray[Any]:
    return np.asarray(values, "uint8" if feature.visual else feature.dtype)


def export_minari(source: str | Path, out: str | Path, *, dataset_id: str) -> int:
    """Write a LeRobotDataset as a Minari data set in the folder `out`; how many episodes there are.

    Observations are a dictionary of groups. Where no final observation was recorded, the last one is repeated: Minari
    has one more observation than actions. Pictures are decoded, `[H, W, 3]`.

    Args:
        source: the data set's folder.
        out: a new folder; `data/` is made in it.
        dataset_id: Minari's name, as in `robot/reach/expert-v0`.

    Raises:
        RobotRLError: something is at `out`, or the data set is damaged.
    """
    minari, dataset, target = _minari(), Dataset(source), Path(out).absolute()
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise RobotRLError(f"{target} is there already. Choose a new folder.")
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    episodes = _Leaving(dataset)
    draft = target.with_name(f".{target.name}.tmp")  # what is stopped in the middle leaves nothing at `out`
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "data").mkdir(parents=True)
    spaces = {"observation_space": episodes.observation_space(), "action_space": episodes.action_space()}
    storage = MinariStorage.new(draft / "data", **spaces, jpeg_encoding=False)
    tasks = [episode.tasks[0] if episode.tasks else "" for episode in dataset.episodes]
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__, "tasks": tasks})
    for episode in dataset.episodes:
        storage.update_episodes([EpisodeBuffer(id=episode.index, **episodes.fields(episode))])
    draft.replace(target)
    return len(dataset.episodes)


class _Leaving:
    """Episodes of a data set as Minari wants them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.features = dataset, dataset.schema.features
        self.groups = [n for n, f in self.features.items() if n.startswith("obs/") and not f.depth]
        self.cameras = [name for name in self.groups if self.features[name].visual]
        plain = [n for n in (*self.groups, *_BESIDE) if n in self.features and n not in self.cameras]
        self.columns, self.frames = dataset.read(plain), Frames(dataset, self.cameras)
        self.notes = dataset.extras()
        none = np.zeros(dataset.total_frames)
        for name in _BESIDE[1:]:
            self.columns.setdefault(name, none.astype(np.float32 if name == "reward" else np.bool_))

    def observation_space(self) -> Any:
        from gymnasium.spaces import Box, Dict

        spaces: dict[str, Any] = {}
        for name in self.groups:
            feature = self.features[name]
            if feature.visual:
                spaces[_minari_name(name)] = Box(0, 255, feature.shape, np.uint8)
            else:
                limit = np.inf if np.dtype(feature.dtype).kind == "f" else np.iinfo(np.int64).max
                low = -limit if np.dtype(feature.dtype).kind == "f" else np.iinfo(np.int64).min
                dtype: Any = np.float32 if np.dtype(feature.dtype).kind == "f" else np.int64
                spaces[_minari_name(name)] = Box(low, limit, feature.shape, dtype)
        return Dict(spaces, sort_keys=False)

    def action_space(self) -> Any:
        from gymnasium.spaces import Box, Discrete

        spec, feature = self.dataset.env_spec, self.features["action"]
        if np.dtype(feature.dtype).kind in "iu" and feature.shape == (1,):
            count = int(self.columns["action"].max()) + 1 if spec is None else spec.action.num_actions
            return Discrete(count)
        if spec is None:
            return Box(-np.inf, np.inf, feature.shape, np.float32)
        low, high = (
            np.asarray(bound, np.float32).reshape(feature.shape) for bound in (spec.action.low, spec.action.high)
        )
        return Box(low, high, dtype=np.float32)

    def fields(self, episode: EpisodeInfo) -> dict[str, Any]:
        """What a Minari episode is made of."""
        rows = np.arange(episode.start, episode.start + episode.length)
        pictures = self.frames.read(dict.fromkeys(self.cameras, rows))
        note, observations = self.notes.get(episode.index, {}), {}
        for name in self.groups:
            values, final = pictures[name] if name in pictures else self.columns[name][rows], note.get(f"final/{name}")
            if final is None:
                last = values[-1]
            elif name in pictures:
                last = self.frames.picture(name, final, f"the last of episode {episode.index}")
            else:
                last = np.asarray(final, values.dtype).reshape(values.shape[1:])
            whole = np.concatenate([values, last[None]])
            shape = self.features[name].shape
            whole = whole.transpose(0, 2, 3, 1) if name in pictures else whole.reshape(len(whole), *shape)
            observations[_minari_name(name)] = whole
        ended = {name: self.columns[name][rows].copy() for name in ("terminated", "truncated")}
        if not ended["terminated"][-1]:
            ended["truncated"][-1] = True
        return {
            "observations": observations, "actions": self.columns["action"][rows],
            "rewards": self.columns["reward"][rows], "terminations": ended["terminated"],
            "truncations": ended["truncated"],
        }  # fmt: skip


_BESIDE = ("action", "reward", "terminated", "truncated")


def _minari_name(name: str) -> str:
    return name.removeprefix("obs/").replace("/", ".")


__all__ = ["export_minari", "import_minari"]
