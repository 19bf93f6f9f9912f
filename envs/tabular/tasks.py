"""The tasks as tables of transitions, rewards and ends; all are deterministic and always start alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.types import RobotRLError


@dataclass(frozen=True, slots=True)
class Table:
    """A deterministic task with S states and A actions.

    `next_state` and `reward` say what an action leads to; reaching an `end` terminates. `place` and `colour` are for
    pictures: columns and rows on a grid, and RGB in [0, 1].
    """

    next_state: NDArray[np.int64]
    """`[S, A]`."""
    reward: NDArray[np.float64]
    """`[S, A]`."""
    end: NDArray[np.bool_]
    """`[S]`: reaching it terminates the episode."""
    success: NDArray[np.bool_]
    """`[S]`: reaching it is success."""
    start: int
    time_limit: int | None
    meaning: str
    """Of success, in words."""
    place: NDArray[np.float64]
    """`[S, 2]`."""
    colour: NDArray[np.float64]
    """`[S, 3]`."""


_PLAIN, _GOOD, _BAD = (0.80, 0.82, 0.85), (0.45, 0.75, 0.45), (0.90, 0.70, 0.35)


@dataclass(slots=True)
class TwoStep:
    """Two decisions, two actions: a detour that pays at once hides the best return (Corrado and Hanna 2023, sec. 4).

    From the start, action 0 goes left and action 1 right. On the left action 0 pays 2 and action 1 pays 0.5; on the
    right both pay 1. States: start, left, right, and the four ends.
    """

    def table(self) -> Table:
        """Its arrays."""
        next_state = np.array([[1, 2], [3, 4], [5, 6], *([i, i] for i in (3, 4, 5, 6))])
        reward = np.zeros((7, 2))
        reward[1], reward[2] = (2.0, 0.5), (1.0, 1.0)
        state = np.arange(7)
        colour = np.tile(_PLAIN, (7, 1))
        colour[[3, 4, 5, 6]] = _GOOD, _BAD, _BAD, _BAD
        return Table(
            next_state, reward, state >= 3, state == 3, start=0, time_limit=None, colour=colour,
            meaning="the return is 2, the highest there is",
            place=np.array([[3, 0], [1, 1], [5, 1], [0, 2], [2, 2], [4, 2], [6, 2]], np.float64),
        )  # fmt: skip


@dataclass(slots=True)
class GridWorld:
    """A square room: start in its middle, a small prize in one corner, a large one in the opposite corner.

    Actions are up, down, left, right; walls stop a move. A step costs `step_cost`; the top left corner pays
    `small_prize` and ends the episode, the bottom right one pays `large_prize` and ends it.
    """

    side: int = 5
    step_cost: float = 0.01
    small_prize: float = 0.5
    large_prize: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.side, int) or not 3 <= self.side <= 100:
            raise RobotRLError(f"env.options.side is {self.side}; a room has 3 to 100 cells on a side.")

    def table(self) -> Table:
        """Its arrays; the state in column x of row y is `y * side + x`."""
        n = self.side
        x, y = np.tile(np.arange(n), n), np.repeat(np.arange(n), n)
        moves: list[tuple[int, int]] = [(0, -1), (0, 1), (-1, 0), (1, 0)]
        reached = [np.clip(y + dy, 0, n - 1) * n + np.clip(x + dx, 0, n - 1) for dx, dy in moves]
        next_state = np.stack(reached, axis=1)
        small, large = 0, n * n - 1
        ends = np.isin(np.arange(n * n), [small, large])
        next_state[ends] = np.flatnonzero(ends)[:, None]
        prize: NDArray[Any] = np.full(n * n, -self.step_cost)
        prize[[small, large]] = self.small_prize, self.large_prize
        colour = np.tile(_PLAIN, (n * n, 1))
        colour[[small, large]] = _BAD, _GOOD
        return Table(
            next_state, prize[next_state], ends, np.arange(n * n) == large, start=(n // 2) * n + n // 2,
            time_limit=3 * n, meaning="the corner with the large prize is reached", colour=colour,
            place=np.stack([x, y], axis=1).astype(np.float64),
        )  # fmt: skip


TASKS: dict[str, Any] = {"TwoStep": TwoStep, "GridWorld": GridWorld}
"""Registered name to task."""
