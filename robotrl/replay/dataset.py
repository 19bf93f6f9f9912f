"""Recorded episodes as a replay: demonstrations beside online data, and what imitation learns from alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from robotrl.data.dataset import Dataset, EpisodeInfo
from robotrl.data.fit import check_finite, check_fits
from robotrl.data.frames import Frames
from robotrl.replay.rollout import check_single_source
from robotrl.replay.sampling import RowSampler, check_strata
from robotrl.types import Batch, BatchSpec, EnvSpec, Part, RobotRLError, StateDict

Rows = NDArray[np.int64]


class EpisodeDataset:
    """A LeRobotDataset v3.0, whoever wrote it, as a `Replay` that can be read and annotated, not added to.

    Numbers are held in memory, pictures are decoded when they are asked for. A `transition` part is `[B, ...]`; a
    `sequence` part `[T, B, ...]`, as a `ReplayBuffer` serves them, with `valid` where `Part.within_episode` is set.
    With `Part.windows` every field named there is delivered at its own steps around the drawn one, `[W, B, ...]`, with
    the mask `valid/<field> [W, B]`: steps outside of the episode repeat its first or last one, as in LeRobot.

    `next_obs` after an episode's last step is the one that was recorded. Where nobody recorded it (LeRobot does not),
    the last observation stands in for it if the episode terminated, since what follows is worth nothing then; else that
    step is not served as a transition, because its value cannot be bootstrapped.

    Where the env stacks images (`env.frame_stack`), single recorded ones are stacked in the same way.

    Args:
        root: the data set's folder.
        groups: observation groups to read; None: all, pictures included.
        env: what the steps are for; groups, shapes, frame rate and action bounds are compared with it.
        episodes: how many from the first, or which ones; None: all.
        successful: leave out episodes that are not known to have succeeded.
        ends: what an episode's last step is in data that does not tell termination from truncation.
        seed: of the sampling generator, which `state_dict` saves.
        device: where samples are delivered.
        cache: a folder for decoded pictures (as large as they are, uncompressed), filled once; None: decode each time.
        hold: pictures are decoded once and held in memory if all of them together take at most so many bytes.
        num_threads: that decode pictures; None: all cores.

    Raises:
        RobotRLError: the data set is damaged, does not fit the env, is not finite, or no episode is left.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        groups: Sequence[str] | None = None,
        env: EnvSpec | None = None,
        episodes: int | Sequence[int] | None = None,
        successful: bool = False,
        ends: Literal["truncated", "terminated"] = "truncated",
        seed: int = 0,
        device: str = "cpu",
        cache: str | Path | None = None,
        hold: int = 0,
        num_threads: int | None = None,
    ) -> None:
        dataset = Dataset(root)
        self.dataset, self.device = dataset, torch.device(device)
        self.episodes = _chosen(dataset, episodes, successful=successful)
        self.groups = _groups(dataset, groups)
        cameras = [g for g in self.groups if dataset.schema.features[f"obs/{g}"].visual]
        read = [f for f in dataset.fields if not f.startswith("obs/") or f[4:] in self.groups]
        columns = dataset.read([f for f in read if f[4:] not in cameras and f not in dataset.schema.cameras])
        check_finite(dataset, columns)
        if env is not None:
            check_fits(dataset, env, self.groups, columns.get("action"))
        self._rows = np.concatenate([np.arange(e.start, e.start + e.length) for e in self.episodes])
        """Rows of the data set, by row of this replay."""
        self._last = np.cumsum([e.length for e in self.episodes]) - 1
        spec = env or dataset.env_spec
        columns = {key: _shaped(key, values, spec) for key, values in columns.items()}
        self._fields = _steps(columns, self._rows, self._last, ends)
        self._finals = dataset.extras([f"final/obs/{g}" for g in self.groups])
        self._cameras = cameras
        self._frames = Frames(dataset, [f"obs/{c}" for c in cameras], cache=cache, hold=hold, num_threads=num_threads)
        arrays = spec.obs if spec is not None else {}
        self._stacked = {f"obs/{c}": arrays[c].frames if c in arrays else 1 for c in cameras}
        self._next, known = self._link()
        self._transitions = np.flatnonzero(known)
        self._written: dict[str, NDArray[Any]] = {}
        self._changes = 0
        self._sampler = RowSampler(seed, self._column)
        self._transition_sampler = RowSampler(seed, lambda key, i: self._column(key, self._transitions[i]))
        self._transition_sampler.generator = self._sampler.generator  # one stream, one state

    def __len__(self) -> int:
        """Steps."""
        return len(self._rows)

    def tasks(self) -> list[str]:
        """The task of every episode that is read, in words."""
        return [e.tasks[0] if e.tasks else "" for e in self.episodes]

    def check(self, parts: Mapping[str, Part]) -> None:
        """Whether what is asked for can be served, as far as that shows before the first batch.

        Raises:
            RobotRLError: a part asks for a field that is not here, or needs every value of one up to some number
                (`Part.strata`), and here are others.
        """
        for part in parts.values():
            self._names(part.windows or {})
            if part.stratify_by is not None:
                column = self._column(part.stratify_by, self._transitions if part.kind == "transition" else _ALL)
                try:
                    check_strata(part.stratify_by, part.strata, np.unique(column))
                except RobotRLError as error:
                    raise RobotRLError(f"The data set {self.dataset.root} does not fit. {error}") from None

    def add(self, rollout: Batch) -> None:
        """Refused: a data set is written by `robotrl collect`.

        Raises:
            RobotRLError: always.
        """
        raise RobotRLError(
            "A data set cannot be added to while learning. Put it beside a ReplayBuffer: "
            "MixedReplay({'online': ReplayBuffer(...), 'demos': EpisodeDataset(...)})."
        )

    def batches(self, spec: BatchSpec, count: int) -> Iterator[dict[str, Batch]]:
        """`count` batches, each sampled when it is asked for.

        Raises:
            RobotRLError: a part asks for a whole rollout, for fields that are not here, or the parts name two sources.
        """
        check_single_source(spec)
        for name, part in spec.items():
            if part.kind == "rollout":
                raise RobotRLError(f"EpisodeDataset serves samples, but the part '{name}' asks for a rollout.")
            if part.batch_size < 1 or part.length < 1:
                raise RobotRLError(f"The part '{name}' needs a batch_size and a length of at least 1.")
        for _ in range(count):
            yield {name: self._sample(name, part) for name, part in spec.items()}

    def write(self, rows: Batch) -> None:
        """Keep fields beside the steps `rows["row"]`, in memory; a field that is new is zero elsewhere.

        Raises:
            RobotRLError: a recorded field, or a row that is not from here.
        """
        row = rows["row"].cpu().numpy()
        if row.size and int(row.max()) >= len(self):
            raise RobotRLError(f"The row {int(row.max())} is not from this data set, which has {len(self)} steps.")
        here = row >= 0
        for key, value in rows.items():
            if key == "row":
                continue
            if key in self._fields or key.startswith(("obs/", "next_obs/")):
                raise RobotRLError(f"'{key}' was recorded; it cannot be overwritten. Write under another name.")
            array = value.detach().cpu().numpy()
            if key not in self._written:
                self._written[key] = np.zeros((len(self), *array.shape[row.ndim :]), array.dtype)
            self._written[key][row[here]] = array[here]
        self._changes += 1

    def state_dict(self) -> StateDict:
        """Sampling generator, written fields, and which data they belong to."""
        return {
            "data": _fingerprint(self.episodes, self._fields, self._last),
            "generator": self._sampler.generator.bit_generator.state,
            "written": dict(self._written),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly.

        Raises:
            RobotRLError: the data set is not the one of the saved run.
        """
        if state["data"] != _fingerprint(self.episodes, self._fields, self._last):
            raise RobotRLError(
                f"The data set {self.dataset.root} has other episodes than when the run was saved. Continue with the "
                "data of that run, or start a new one."
            )
        self._sampler.generator.bit_generator.state = state["generator"]
        self._written = {key: np.array(value) for key, value in state["written"].items()}
        self._changes += 1

    def _link(self) -> tuple[Rows, NDArray[np.bool_]]:
        """Where each row's next observation stands (`-1 - episode` for a recorded final one), and where it is known."""
        following = np.arange(1, len(self) + 1)
        known = np.ones(len(self), np.bool_)
        whole = [f"final/obs/{g}" for g in self.groups]
        for i, (episode, row) in enumerate(zip(self.episodes, self._last, strict=True)):
            final = self._finals.get(episode.index, {})
            if whole and all(final.get(key) is not None for key in whole):
                following[row] = -1 - i
            else:
                following[row], known[row] = row, bool(self._fields["terminated"][row])
        self._final = {g: self._final_array(g) for g in self.groups if g not in self._cameras}
        return following, known

    def _final_array(self, group: str) -> NDArray[Any]:
        like = self._fields[f"obs/{group}"]
        array = np.zeros((len(self.episodes), *like.shape[1:]), like.dtype)
        for i, episode in enumerate(self.episodes):
            value = self._finals.get(episode.index, {}).get(f"final/obs/{group}")
            if value is not None:
                if np.size(value) != array[i].size or not np.isfinite(value).all():
                    raise RobotRLError(
                        f"The final observation '{group}' of episode {episode.index} in {self.dataset.root} is "
                        "damaged. Copy meta/robotrl again, or delete that folder: the last steps are then left out."
                    )
                array[i] = np.reshape(np.asarray(value, like.dtype), array[i].shape)
        return array

    def _column(self, key: str, rows: Rows) -> NDArray[Any]:
        field = self._fields.get(key, self._written.get(key))
        if field is None:
            raise RobotRLError(
                f"The data set has no field '{key}'. It holds {sorted({*self._fields, *self._written})}."
            )
        values: NDArray[Any] = field[rows]
        return values

    def _sample(self, name: str, part: Part) -> Batch:
        if part.kind == "transition":
            if not len(self._transitions):
                raise RobotRLError(
                    f"The part '{name}' needs transitions, but no step of {self.dataset.root} has a next observation."
                )
            drawn = self._transition_sampler.draw(part, 0, len(self._transitions), self._changes)
            return self._deliver(self._transitions[drawn])
        whole = part.length if part.windows is None and not part.within_episode else 1
        if len(self) < whole:
            raise RobotRLError(f"The part '{name}' needs {whole} steps, but {self.dataset.root} has {len(self)}.")
        rows = self._sampler.draw(part, 0, len(self) - whole + 1, self._changes)
        if part.windows is not None:
            return self._windows(rows, part.windows)
        rows = rows + np.arange(part.length)[:, None]
        if not part.within_episode:
            return self._deliver(rows)
        last = self._last[np.searchsorted(self._last, rows[0])]
        valid = rows <= last
        batch = self._deliver(np.minimum(rows, last))
        batch["valid"] = self._tensor(valid)
        batch["row"] = torch.where(batch["valid"], batch["row"], -1)
        return batch

    def _windows(self, rows: Rows, windows: Mapping[str, Sequence[int]]) -> Batch:
        """Every field at its own steps around `rows [B]`, and the rest at the drawn steps."""
        episode = np.searchsorted(self._last, rows)
        last = self._last[episode]
        first = last - np.array([e.length for e in self.episodes])[episode] + 1
        batch: Batch = {}
        pictures: dict[str, Rows] = {}
        for key in self._names(windows):
            steps = windows.get(key, windows.get("obs") if key.startswith("obs/") else None)
            if steps is None:
                if not key.startswith("obs/"):
                    batch[key] = self._tensor(self._column(key, rows))
                continue
            wanted = rows + np.asarray(steps, np.int64)[:, None]
            inside = np.clip(wanted, first, last)
            batch[f"valid/{key}"] = self._tensor(wanted == inside)
            if key[4:] in self._cameras:
                pictures[key] = inside
            else:
                batch[key] = self._tensor(self._column(key, inside))
        batch.update({key: self._tensor(values) for key, values in self._pictures(pictures).items()})
        batch["row"] = self._tensor(rows)
        return batch

    def _names(self, windows: Mapping[str, Sequence[int]]) -> list[str]:
        """All fields, among which those of `windows` must be."""
        names = [*(f"obs/{c}" for c in self._cameras), *self._fields, *self._written]
        unknown = sorted(key for key in windows if key != "obs" and key not in names)
        if unknown:
            raise RobotRLError(f"The data set has no {unknown}, which a window asks for. It holds {sorted(names)}.")
        return names

    def _deliver(self, rows: Rows) -> Batch:
        """Every field of the steps `rows`, and the observations that follow them."""
        batch = {key: self._tensor(values[rows]) for key, values in {**self._fields, **self._written}.items()}
        after = self._next[rows]
        final = after < 0
        place = np.where(final, 0, after)
        for group, finals in self._final.items():
            values = self._fields[f"obs/{group}"][place]
            if final.any():
                values[final] = finals[-1 - after[final]]
            batch[f"next_obs/{group}"] = self._tensor(values)
        # where the final picture follows, it is put in the place of the last one, in front of which stand those before
        pairs = np.stack([rows, np.where(final, rows, place)])
        for key, (now, following) in self._pictures({f"obs/{c}": pairs for c in self._cameras}).items():
            for at in map(tuple, np.argwhere(final)):
                picture = self._final_picture(-1 - int(after[at]), key)
                following[at] = np.concatenate([now[at][len(picture) :], picture])
            batch[key], batch[f"next_{key}"] = self._tensor(now), self._tensor(following)
        batch["row"] = self._tensor(rows)
        return batch

    def _pictures(self, wanted: Mapping[str, Rows]) -> dict[str, NDArray[np.uint8]]:
        """Each camera's pictures at rows of this replay, `[*rows.shape, frames * 3, H, W]`, stacked as the env does."""
        asked = {}
        for key, rows in wanted.items():
            ages = np.arange(self._stacked[key] - 1, -1, -1)
            back = np.minimum(ages, self._fields["step"][rows][..., None])
            asked[key] = self._rows[rows[..., None] - back]
        found = self._frames.read(asked)
        return {key: value.reshape(*wanted[key].shape, -1, *value.shape[-2:]) for key, value in found.items()}

    def _final_picture(self, episode: int, key: str) -> NDArray[np.uint8]:
        index = self.episodes[episode].index
        return self._frames.picture(key, self._finals[index][f"final/{key}"], f"the last of episode {index}")

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)


def _fingerprint(episodes: Sequence[EpisodeInfo], fields: Mapping[str, NDArray[Any]], last: Rows) -> str:
    """Tells data sets apart, by the episodes and what stands in their last rows."""
    lengths = [(e.index, e.length) for e in episodes]
    ends = b"".join(np.ascontiguousarray(fields[k][last]).tobytes() for k in sorted(fields))
    return hashlib.sha256(repr(lengths).encode() + ends).hexdigest()


_ALL: Any = slice(None)
_OWN = ("episode_index", "frame_index", "task_index", "timestamp")


def _steps(columns: Mapping[str, NDArray[Any]], rows: Rows, last_rows: Rows, ends: str) -> dict[str, NDArray[Any]]:
    """The fields `[steps, ...]` in the types learners take, at `rows` of the files; episodes end at `last_rows`."""
    fields = {key: _typed(values[rows]) for key, values in columns.items() if key not in _OWN}
    last = np.zeros(len(rows), np.bool_)
    last[last_rows] = True
    done = fields.pop("done", last).astype(np.bool_) | last
    fields.pop("success", None)
    if "terminated" not in fields:
        fields["terminated"] = done & (ends == "terminated") & ~fields.get("truncated", ~done)
    if "truncated" not in fields:
        fields["truncated"] = done & ~fields["terminated"]
    fields["step"] = columns["frame_index"][rows]
    fields["episode"] = columns["episode_index"][rows]
    fields["task"] = columns["task_index"][rows]
    fields["is_first"] = fields["step"] == 0
    return fields


def _shaped(key: str, values: NDArray[Any], spec: EnvSpec | None) -> NDArray[Any]:
    """`[T, ...]` as the env has it: one number a step stands in the file without an axis, whatever its shape was."""
    discrete = spec is not None and spec.action.kind == "discrete"
    if values.ndim != 1 or (discrete and key == "action") or not (key == "action" or key.startswith("obs/")):
        return values
    if spec is not None and key.startswith("obs/") and key[4:] in spec.obs and spec.obs[key[4:]].shape == ():
        return values
    return values[:, None]


def _typed(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as float32, integers as int64, as a Collector delivers them."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    return values.astype(np.int64, copy=False) if values.dtype.kind in "iu" else values


def _chosen(dataset: Dataset, episodes: int | Sequence[int] | None, *, successful: bool) -> list[EpisodeInfo]:
    chosen = [e for e in dataset.episodes if e.success or not successful]
    if isinstance(episodes, int):
        if episodes > len(chosen):
            raise RobotRLError(
                f"{episodes} {'successful ' if successful else ''}episodes are asked for, but {dataset.root} has "
                f"{len(chosen)}. Record more with robotrl collect, or ask for fewer."
            )
        chosen = chosen[:episodes]
    elif episodes is not None:
        unknown = sorted(set(episodes) - {e.index for e in chosen})
        if unknown:
            raise RobotRLError(f"{dataset.root} has no episodes {unknown[:5]}; it has {len(dataset.episodes)}.")
        chosen = [dataset.episodes[i] for i in episodes]
    if not chosen:
        kind = "no successful episodes" if successful and dataset.episodes else "no episodes"
        raise RobotRLError(f"The data set {dataset.root} has {kind}. Record some with: robotrl collect")
    return chosen


def _groups(dataset: Dataset, groups: Sequence[str] | None) -> tuple[str, ...]:
    known = [name.removeprefix("obs/") for name in dataset.schema.features if name.startswith("obs/")]
    known = [g for g in known if not dataset.schema.features[f"obs/{g}"].depth]
    unknown = sorted(set(groups or ()) - set(known))
    if unknown:
        raise RobotRLError(f"The data set {dataset.root} has no observation groups {unknown}, only {known}.")
    return tuple(known if groups is None else groups)


__all__ = ["EpisodeDataset"]
