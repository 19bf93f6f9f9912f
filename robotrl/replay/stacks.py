"""Stacks of past pictures, given back from a ring that keeps each picture once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.replay.apart import Apart, Rows, joined, segments
from robotrl.types import StateDict

_WHOLE = "whole"


class FrameStack:
    """One group of a ring whose rows are stacks of `frames` pictures along the channels, oldest first.

    The ring keeps each step's newest picture; the older ones are those of the steps before. How far back they go, at
    most to the episode's start, whose picture then repeats, is found by comparing pictures, not from flags. A stack
    that is not made of the pictures before it (after a gap in the stream) is kept whole.

    Args:
        frames: pictures of a stack, at least 2.
        length: steps of the ring.
        num_envs: envs side by side.
        like: stacks `[..., frames * C, H, W]` to come.
    """

    def __init__(self, frames: int, length: int, num_envs: int, like: NDArray[Any]) -> None:
        self.frames, self._length, self._num_envs, self._size = frames, length, num_envs, length * num_envs
        self._channels = like.shape[-3] // frames
        self._reach: Rows = np.zeros(self._size, np.int64)
        """Of each place: how many steps back its stack goes; -1 - number where it is kept whole."""
        self._whole = Apart({_WHOLE: like}, like.ndim - 3, num_envs)
        self._behind = np.zeros((num_envs, *like.shape[-3:]), like.dtype)
        self._ages = np.arange(frames - 1, -1, -1)

    def newest(self, stacks: NDArray[Any]) -> NDArray[Any]:
        """The picture of each stack that the ring keeps, `[..., C, H, W]`; a view."""
        return stacks[..., -self._channels :, :, :]

    def link(self, stacks: NDArray[Any], following: NDArray[Any], field: NDArray[Any], steps: int) -> None:
        """Take in `stacks [T, N, ...]` and what follows the last of them; before their pictures go into the ring.

        Args:
            stacks: at most as many steps as the ring has.
            following: `[N, ...]`.
            field: the ring's pictures, `[length, N, C, H, W]`.
            steps: that were ever stored.
        """
        count = len(stacks)
        places = np.arange(steps, steps + count) % self._length
        reach = self._reach.reshape(self._length, self._num_envs)
        if len(self._whole) and steps + count > self._length:
            self._whole.drop(int((reach[places] < 0).sum()))
        before = field[np.arange(steps - min(steps, self.frames - 1), steps) % self._length]
        found, whole = self._found(stacks, np.concatenate([before, self.newest(stacks)]))
        if whole.any():
            found[whole] = -1 - self._whole.add({_WHOLE: stacks[whole]})
        reach[places] = found
        self._behind[:] = following

    def _found(self, stacks: NDArray[Any], line: NDArray[Any]) -> tuple[Rows, NDArray[np.bool_]]:
        """How far back the stacks go, `[T, N]`, given the pictures of their steps and some before; which do not fit."""
        count, n = stacks.shape[:2]
        pictures = stacks.reshape(count, n, self.frames, self._channels, *stacks.shape[3:])
        reach, chained = np.zeros((count, n), np.int64), np.ones((count, n), np.bool_)
        repeats = np.ones((count, n), np.bool_)  # all from the present age on are one picture
        for age in range(1, self.frames):
            older = pictures[:, :, -1 - age]
            there = max(0, min(count, len(line) - age))  # steps whose picture of that age is on the line
            chained[: count - there] = False
            chained[count - there :] &= _equal(older[count - there :], line[len(line) - age - there : len(line) - age])
            reach += chained
            repeats &= chained | _equal(older, pictures[:, :, -age])
        return reach, ~repeats

    def take(self, field: NDArray[Any], place: Rows) -> NDArray[Any]:
        """The stacks at places of the ring, `[*place.shape, frames * C, H, W]`; behind it, what follows the newest."""
        inside = np.clip(place, 0, self._size - 1)
        reach = self._reach[inside]
        back = np.minimum(self._ages, reach[..., None]) * self._num_envs
        pictures = field.take((inside[..., None] - back) % self._size, axis=0)
        stacks: NDArray[Any] = pictures.reshape(*place.shape, -1, *pictures.shape[-2:])
        if len(self._whole) and (whole := reach < 0).any():
            stacks[whole] = self._whole.take(_WHOLE, -1 - reach[whole])
        if (behind := place >= self._size).any():
            stacks[behind] = self._behind[place[behind] - self._size]
        return stacks

    def state_dict(self) -> StateDict:
        """All but the ring's pictures; arrays are views."""
        return {"reach": segments(self._reach), "whole": self._whole.state_dict(), "behind": self._behind}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue with the contents of `state_dict`."""
        self._reach = joined(state["reach"], self._size)
        self._whole = Apart.of(state["whole"])
        self._behind[:] = state["behind"]


def _equal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether pictures `[T, N, ...]` are the same, `[T, N]`."""
    result: NDArray[np.bool_] = (one == other).reshape(*one.shape[:2], -1).all(-1)
    return result


__all__ = ["FrameStack"]
