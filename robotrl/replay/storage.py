"""A ring of vector-env steps in flat, preallocated arrays, which stores each observation once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.replay.apart import Apart, Rows, joined, segments
from robotrl.replay.stacks import FrameStack
from robotrl.types import Batch, RobotRLError, StateDict


class RingStorage:
    """Keeps the newest `length` steps of `num_envs` envs.

    The row of step t (counted over the storage's life) in env n is `t * num_envs + n`: a number that is never given
    out twice, so a row that was overwritten is known by being older than `first_row`. Its place is the row modulo
    `length * num_envs`. `next_obs` equals the `obs` that follows unless an episode ended in between, so it is a pointer
    to that place; only where the two differ is it kept apart, first in first out, in arrays that grow as needed. The
    newest step, whose follower has not come yet, has its `next_obs` in the `num_envs` places behind the ring.

    Of a group of stacked pictures the ring keeps each step's newest (`robotrl.replay.stacks`). The oldest steps, whose
    past has been overwritten, are then no longer served.

    Args:
        length: steps of each env.
        num_envs: envs side by side.
        omit: fields, or groups such as `next_obs`, that are not kept.
        frames: pictures of the observation groups that are stacks of several.

    Raises:
        RobotRLError: the ring is shorter than a stack.
    """

    def __init__(
        self, length: int, num_envs: int, omit: Iterable[str] = (), frames: Mapping[str, int] | None = None
    ) -> None:
        self.length, self.num_envs, self.size = length, num_envs, length * num_envs
        self._omit = tuple(omit)
        self._frames = {key: count for key, count in (frames or {}).items() if count > 1}
        self._past = max(self._frames.values(), default=1) - 1
        if length <= self._past:
            raise RobotRLError(
                f"A replay of {length} steps of each env cannot hold stacks of {self._past + 1} pictures. Give it a "
                "larger capacity."
            )
        self._stacks: dict[str, FrameStack] = {}
        self._ignored: dict[str, bool] = {}
        self.steps = 0
        """Steps of each env that were ever added."""
        self.changes = 0
        """Goes up whenever the contents change."""
        self.fields: dict[str, NDArray[Any]] = {}
        self._by_step: dict[str, NDArray[Any]] = {}  # the ring as [length, num_envs, ...], views
        self._added: set[str] = set()
        self._written: set[str] = set()
        self._linked: tuple[str, ...] = ()
        self._next: Rows = np.zeros(0, np.int64)
        self._apart: Apart | None = None

    @property
    def first_row(self) -> int:
        """The oldest row that is still here."""
        if self.steps <= self.length:
            return 0
        return (self.steps - self.length + self._past) * self.num_envs

    @property
    def end_row(self) -> int:
        """One more than the newest row."""
        return self.steps * self.num_envs

    def add(self, rollout: Mapping[str, Tensor]) -> None:
        """Append a time-major rollout `[T, N, ...]`; `state/*`, which is no step's, is left out.

        Raises:
            RobotRLError: another number of envs, or fields, shapes or dtypes other than those of the first rollout.
        """
        for key in rollout.keys() - self._ignored.keys():
            self._ignored[key] = key.startswith("state/") or any(
                key == name or key.startswith(name + "/") for name in self._omit
            )
        arrays = {key: _array(key, value) for key, value in rollout.items() if not self._ignored[key]}
        if not self.fields:
            self._allocate(arrays)
        steps = self._check(arrays)
        if steps <= self.length:
            self._append(arrays, steps)
        else:
            for start in range(0, steps, self.length):
                piece = {k: v[start : start + self.length] for k, v in arrays.items()}
                self._append(piece, min(self.length, steps - start))
        self.changes += 1

    def _append(self, arrays: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Store at most `length` steps; the links come first, since they read what is about to be overwritten."""
        if self._linked:
            self._link(arrays, steps)
        for key, stack in self._stacks.items():
            following = arrays.get(f"next_{key}", arrays[key])[-1]
            stack.link(arrays[key], following, self._by_step[key], self.steps)
        for start, place, count in _pieces(self.steps % self.length, steps, self.length):
            here, there = slice(place, place + count), slice(start, start + count)
            for key in self._added:
                self._by_step[key][here] = self._kept(key, arrays[key])[there]
            for key in self._written:
                self._by_step[key][here] = 0
        for key in self._linked:
            self.fields[f"obs/{key}"][self.size :] = self._kept(f"obs/{key}", arrays[f"next_obs/{key}"][-1])
        self.steps += steps

    def _kept(self, key: str, values: NDArray[Any]) -> NDArray[Any]:
        """Of a field's values, what the ring keeps."""
        stack = self._stacks.get(key)
        return values if stack is None else stack.newest(values)

    def _allocate(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._linked = tuple(k.removeprefix("next_obs/") for k in arrays if k.startswith("next_obs/"))
        self._added = {k for k in arrays if not k.startswith("next_obs/")}
        lonely = [key for key in self._linked if f"obs/{key}" not in arrays]
        if lonely or not arrays:
            raise RobotRLError(f"A rollout needs 'obs/<group>' for every 'next_obs/<group>'; it lacks it for {lonely}.")
        self._stacks = {
            f"obs/{key}": FrameStack(count, self.length, self.num_envs, arrays[f"obs/{key}"])
            for key, count in self._frames.items()
            if f"obs/{key}" in arrays
        }
        for key in self._added:  # zeros come from the system page by page, when they are first written
            like = self._kept(key, arrays[key])
            self._place(key, np.zeros((self.size + self._behind(key), *like.shape[2:]), like.dtype))
        if self._linked:
            self._next = np.zeros(self.size, np.int64)
            self._apart = Apart({key: arrays[f"obs/{key}"] for key in self._linked}, 2, self.num_envs)

    def _place(self, key: str, field: NDArray[Any]) -> None:
        self.fields[key] = field
        self._by_step[key] = field[: self.size].reshape(self.length, self.num_envs, *field.shape[1:])

    def _behind(self, key: str) -> int:
        """Places behind the ring that the field `key` needs."""
        return self.num_envs if key.startswith("obs/") and key.removeprefix("obs/") in self._linked else 0

    def _check(self, arrays: Mapping[str, NDArray[Any]]) -> int:
        """The number of steps of a rollout that fits what is stored."""
        expected = self._added | {f"next_obs/{key}" for key in self._linked}
        if arrays.keys() != expected:
            missing, new = sorted(expected - arrays.keys()), sorted(arrays.keys() - expected)
            raise RobotRLError(
                f"The rollout does not fit this replay: missing fields {missing}, new fields {new}. Every rollout "
                "must have the fields of the first one; leave out what you do not need with omit=."
            )
        steps, width = next(iter(arrays.values())).shape[:2]
        if width != self.num_envs:
            raise RobotRLError(
                f"The rollout has {width} envs, but this replay was made for {self.num_envs}. Make it with "
                f"num_envs={width}."
            )
        for key, value in arrays.items():
            own = key.removeprefix("next_") if key.startswith("next_obs/") else key
            dtype, shape = self.fields[own].dtype, (steps, width, *self._shape(own))
            if value.shape != shape or value.dtype != dtype:
                raise RobotRLError(
                    f"The field '{key}' is {value.dtype}{list(value.shape)} in this rollout; this replay needs "
                    f"{dtype}{list(shape)}. Every rollout must be like the first one."
                )
        return steps

    def _shape(self, key: str) -> tuple[int, ...]:
        """Of one step's value."""
        shape = self.fields[key].shape[1:]
        return shape if key not in self._stacks else (self._stacks[key].frames * shape[0], *shape[1:])

    def _link(self, arrays: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Point the newest step so far, and all but the last of the new ones, to the observation that follows."""
        n = self.num_envs
        if self.steps:
            place = (self.steps - 1) % self.length
            behind = {key: self._observed(f"obs/{key}", self.size + np.arange(n))[None] for key in self._linked}
            self._point(place, behind, {key: arrays[f"obs/{key}"][:1] for key in self._linked})
        pieces = _pieces(self.steps % self.length, steps, self.length)
        pointers = self._next.reshape(self.length, n)
        if self._apart and self.steps + steps > self.length:  # what was kept apart first is of the rows that go first
            self._apart.drop(sum(int((pointers[p : p + c] < 0).sum()) for _, p, c in pieces))
        for start, place, count in pieces:
            inside = slice(start, min(start + count, steps - 1))
            if inside.stop > inside.start:
                following = slice(inside.start + 1, inside.stop + 1)
                self._point(
                    place,
                    {key: arrays[f"next_obs/{key}"][inside] for key in self._linked},
                    {key: arrays[f"obs/{key}"][following] for key in self._linked},
                )
        pointers[(self.steps + steps - 1) % self.length] = self.size + np.arange(n)

    def _point(self, place: int, next_obs: Mapping[str, NDArray[Any]], following: Mapping[str, NDArray[Any]]) -> None:
        """Set the pointers of `T` steps from `place` on, given `[T, N, ...]` of both."""
        steps, n = next(iter(next_obs.values())).shape[:2]
        pointers = self._next[place * n : (place + steps) * n]
        pointers[:] = np.arange((place + 1) * n, (place + 1 + steps) * n)
        if place + steps == self.length:
            pointers[-n:] = np.arange(n)
        unequal = {key: value != following[key] for key, value in next_obs.items()}
        if any(array.any() for array in unequal.values()):
            differs = np.zeros((steps, n), np.bool_)
            for array in unequal.values():
                differs |= array.reshape(steps, n, -1).any(axis=2)
            assert self._apart is not None
            kept = self._apart.add({key: value[differs] for key, value in next_obs.items()})
            pointers[differs.reshape(-1)] = -1 - kept

    def take(self, rows: Rows) -> Batch:
        """Every field at `rows` (all of them here), with their shape in front: `[*rows.shape, ...]`; copies."""
        place = rows % self.size
        batch = {key: torch.from_numpy(self._observed(key, place)) for key in self.fields}
        if self._linked:
            pointer = self._next.take(place, mode="clip")
            late = pointer < 0
            apart = self._apart if self._apart and late.any() else None
            for key in self._linked:
                value = self._observed(f"obs/{key}", pointer)
                if apart is not None:
                    value[late] = apart.take(key, -1 - pointer[late])
                batch[f"next_obs/{key}"] = torch.from_numpy(value)
        return batch

    def _observed(self, key: str, place: Rows) -> NDArray[Any]:
        """A field as it was added, at places of the ring or behind it; copies."""
        stack, field = self._stacks.get(key), self.fields[key]
        values: NDArray[Any] = field.take(place, axis=0, mode="clip") if stack is None else stack.take(field, place)
        return values

    def take_field(self, key: str, rows: Rows) -> NDArray[Any]:
        """One field at `rows`, with their shape in front.

        Raises:
            RobotRLError: no such field.
        """
        if key not in self.fields:
            raise RobotRLError(f"The replay has no field '{key}'. It holds {sorted(self.fields)}.")
        values: NDArray[Any] = self.fields[key].take(rows % self.size, axis=0, mode="clip")
        return values

    def write(self, rows: Rows, values: Mapping[str, Tensor]) -> None:
        """Overwrite fields `[*rows.shape, ...]`; a field that is new starts as zeros elsewhere, and for later steps.

        Rows that were overwritten, and negative ones, are ignored. If a row comes twice the last one counts.

        Raises:
            RobotRLError: rows that were never given out, or a field of another shape or dtype.
        """
        if rows.size and int(rows.max()) >= self.end_row:
            raise RobotRLError(
                f"The row {int(rows.max())} is not from this replay, whose newest is {self.end_row - 1}."
            )
        arrays = {key: _array(key, value) for key, value in values.items()}
        for key, value in arrays.items():
            _check_written(key, value, rows, self.fields.get(key))
        here = rows >= self.first_row
        place = rows[here] % self.size
        for key, value in arrays.items():
            if key not in self.fields:
                self._place(key, np.zeros((self.size, *value.shape[rows.ndim :]), value.dtype))
                self._written.add(key)
            self.fields[key][place] = value[here]
        self.changes += 1

    def state_dict(self) -> StateDict:
        """The contents; arrays are views, in pieces, of the part that is in use."""
        used = min(self.steps, self.length) * self.num_envs
        return {
            "steps": self.steps,
            "length": self.length,
            "num_envs": self.num_envs,
            "fields": {key: segments(field[:used]) for key, field in self.fields.items()},
            "written": sorted(self._written),
            "behind": {key: self.fields[f"obs/{key}"][self.size :] for key in self._linked},
            "next": segments(self._next[:used]),
            "apart": None if self._apart is None else self._apart.state_dict(),
            "stacks": {key: stack.state_dict() for key, stack in self._stacks.items()},
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue with the contents of `state_dict`.

        Raises:
            RobotRLError: it is of a replay of another size.
        """
        if (state["length"], state["num_envs"]) != (self.length, self.num_envs):
            raise RobotRLError(
                f"The saved replay holds {state['length']} steps of {state['num_envs']} envs, this one {self.length} "
                f"of {self.num_envs}. Continue with the capacity and num_envs of the saved run."
            )
        self._linked = tuple(state["behind"])
        self._written = set(state["written"])
        self._added = set(state["fields"]) - self._written
        self.fields, self._by_step = {}, {}
        for key, pieces in state["fields"].items():
            self._place(key, joined(pieces, self.size + self._behind(key)))
        for key, value in state["behind"].items():
            self.fields[f"obs/{key}"][self.size :] = value
        self._next = joined(state["next"], self.size) if self._linked else np.zeros(0, np.int64)
        self._apart = None if state["apart"] is None else Apart.of(state["apart"])
        self._stacks = {}
        for key, saved in state["stacks"].items():
            stack = FrameStack(self._frames[key.removeprefix("obs/")], self.length, self.num_envs, saved["behind"])
            stack.load_state_dict(saved)
            self._stacks[key] = stack
        self.steps = int(state["steps"])
        self.changes += 1


def _check_written(key: str, value: NDArray[Any], rows: Rows, field: NDArray[Any] | None) -> None:
    """Raise unless `value` can be written to `rows` of a field, of which there may be none yet."""
    if key.startswith(("obs/", "next_obs/")):
        raise RobotRLError(f"The field '{key}' cannot be written: an observation belongs to two rows.")
    if value.shape[: rows.ndim] != rows.shape:
        raise RobotRLError(f"The field '{key}' has the shape {list(value.shape)} for rows {list(rows.shape)}.")
    if field is not None and (value.shape[rows.ndim :] != field.shape[1:] or value.dtype != field.dtype):
        raise RobotRLError(
            f"The field '{key}' was written as {value.dtype}{list(value.shape[rows.ndim :])}, but this replay "
            f"holds {field.dtype}{list(field.shape[1:])}."
        )


def _array(key: str, value: Tensor) -> NDArray[Any]:
    array: NDArray[Any]
    try:
        array = value.numpy()
    except (TypeError, RuntimeError):  # on a GPU, part of a graph, or of a type that NumPy lacks
        if value.dtype == torch.bfloat16:
            raise RobotRLError(
                f"The field '{key}' is bfloat16, which a replay cannot hold. Make it float16 or float32."
            ) from None
        array = value.detach().cpu().numpy()
    return array


def _pieces(place: int, count: int, length: int) -> list[tuple[int, int, int]]:
    """(start among the new steps, place in the ring, number of steps) of the one or two runs that do not wrap."""
    head = min(count, length - place)
    return [(0, place, head), (head, 0, count - head)] if count > head else [(0, place, head)]


__all__ = ["RingStorage", "Rows"]
