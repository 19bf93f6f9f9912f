"""The same scene under another instruction: whether a policy listens, or does what the scene reminds it of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.envs.tabletop.layout import NAMES
from robotrl.envs.tabletop.tasks.base import Snapshot, TabletopTask
from robotrl.types import StateDict

Float = NDArray[np.float64]


class Swap:
    """Beside the episodes that run, what they were going to ask for, and whether that was done instead.

    Args:
        task: one whose scene holds another object to name (`TabletopTask.others`).
        num_envs: rows.
        colours: numbers of the colours that an instruction should name.
        hold: control steps that a goal has to be kept to count.
    """

    def __init__(self, task: TabletopTask, num_envs: int, colours: Sequence[int], hold: int) -> None:
        self._task, self._colours, self._hold = task, colours, hold
        self.drawn: Float = np.zeros((num_envs, len(NAMES)))
        """The layouts before the swap."""
        self._met: NDArray[np.bool_] = np.zeros(num_envs, np.bool_)
        self._held: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._done: NDArray[np.bool_] = np.zeros(num_envs, np.bool_)

    def start(self, rows: NDArray[np.int32], drawn: Float) -> Float:
        """Start episodes in `rows` that were drawn as `drawn [n, len(NAMES)]`; the layouts to play."""
        self.drawn[rows] = drawn
        self._held[rows], self._done[rows] = 0, False
        return self._task.swapped(drawn, self._colours)

    def see(self, snapshot: Snapshot, rows: Any) -> None:
        """Look at `rows` (an index) as they are now."""
        self._met[rows] = self._task.solved(replace(snapshot, layout=self.drawn[rows]))

    def count(self) -> NDArray[np.bool_]:
        """Count a control step; whether the drawn instruction's goal has been kept for long enough, ever, `[N]`."""
        self._held = np.where(self._met, self._held + 1, 0)
        self._done |= self._held >= self._hold
        return self._done.copy()

    def state_dict(self) -> StateDict:
        """Everything."""
        return {"drawn": self.drawn.copy(), "held": self._held.copy(), "done": self._done.copy()}

    def load_state_dict(self, state: StateDict) -> None:
        """Set what `state_dict` returned."""
        self.drawn[:], self._held[:], self._done[:] = state["drawn"], state["held"], state["done"]


__all__ = ["Swap"]
