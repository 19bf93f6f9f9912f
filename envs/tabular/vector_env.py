"""The vector env over a table: a step is one look-up for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv, action_spec, array_spec
from robotrl.envs.tabular.tasks import Table
from robotrl.types import EnvSpec, RobotRLError, StateDict

STATE_FORMAT = 1
_AGENT = (0.20, 0.35, 0.75)


class TabularVectorEnv(VectorEnv):
    """A task that is a table; see `robotrl.envs.base.VectorEnv` for the conventions.

    Observations are one group, `state`: float32 `[N, S]`, one-hot. Nothing is random, so an episode is what was done in
    it, and `state_dict` continues it exactly. `table` and `states [N]` are for exact computations.
    """

    def __init__(
        self, env_id: str, table: Table, *, num_envs: int, copy: bool = True, max_episode_steps: int | None = -1
    ) -> None:
        limit = table.time_limit if max_episode_steps == -1 else max_episode_steps
        if limit is not None and limit < 1:
            raise RobotRLError(f"max_episode_steps is {limit}, but it must be at least 1. Use a positive number.")
        self.num_envs, self.copy, self.table = num_envs, copy, table
        states, actions = table.next_state.shape
        self._one_hot = np.eye(states, dtype=np.float32)
        space = gymnasium.spaces.Box(0.0, 1.0, (states,), np.float32)
        self.single_observation_space = gymnasium.spaces.Dict({"state": space})
        self.single_action_space = gymnasium.spaces.Discrete(actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.env_spec = EnvSpec(
            id=env_id,
            obs={"state": array_spec(space, "1 at the state's number")},
            action=action_spec(self.single_action_space),
            time_limit=limit,
            success=table.meaning,
            exact_state=True,
        )
        self._limit = np.iinfo(np.int64).max if limit is None else limit
        self.states: NDArray[np.int64] = np.full(num_envs, table.start)
        self._steps, self._episode = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._all = np.ones(num_envs, np.bool_)
        self._seed: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, NDArray[Any]]]:
        """Start an episode in every row.

        Args:
            seed: episode numbers start again from 0; nothing else depends on it.
            options: `{"episode": int [N]}` gives the episodes their numbers, `{"reset_mask": bool [N]}` says in which
                rows only.
        """
        mask = (options or {}).get("reset_mask")
        rows = self._all if mask is None else np.asarray(mask, np.bool_)
        if seed is None and self._seed is not None:
            self._episode[rows] += self.num_envs
        else:
            self._seed = self.default_seed if seed is None else seed
            self._episode[:] = np.arange(self.num_envs)
        if options and "episode" in options:
            self._episode[rows] = np.asarray(options["episode"])[rows]
        self.states[rows], self._steps[rows] = self.table.start, 0
        return self._shown(), {}

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take `actions [N]` in every row."""
        if self._seed is None:
            raise RobotRLError("No episode has started yet. Call reset() before step().")
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,):
            raise RobotRLError(
                f"Actions have shape {actions.shape}, but {self.env_spec.id} with {self.num_envs} envs takes "
                f"{(self.num_envs,)}: one number a row."
            )
        table = self.table
        reward = table.reward[self.states, actions]
        self.states = table.next_state[self.states, actions]
        self._steps += 1
        terminated = table.end[self.states]
        truncated = self._steps >= self._limit
        infos: dict[str, Any] = {"success": table.success[self.states], "_success": self._all.copy()}
        done = terminated | truncated
        if self._autoreset and done.any():
            infos["final_obs"], infos["_final_obs"] = self._shown(), done
            self.states[done], self._steps[done] = table.start, 0
            self._episode[done] += self.num_envs
        return self._shown(), reward, terminated, truncated, infos

    def _shown(self) -> ObsDict:
        return {"state": self._one_hot[self.states]}

    def state_dict(self) -> StateDict:
        """States and counters."""
        if self._seed is None:
            raise RobotRLError("This env has no state yet. Call reset() before state_dict().")
        return {
            "format": STATE_FORMAT,
            "id": self.env_spec.id,
            "num_states": len(self._one_hot),
            "seed": self._seed,
            "states": self.states.copy(),
            "steps": self._steps.copy(),
            "episode": self._episode.copy(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            RobotRLError: the state is of another task or another number of envs.
        """
        saved = (state["id"], int(state["num_states"]), len(state["states"]))
        mine = (self.env_spec.id, len(self._one_hot), self.num_envs)
        if saved != mine:
            raise RobotRLError(
                f"The saved state is of {saved[0]} with {saved[1]} states and {saved[2]} envs, but this env is "
                f"{mine[0]} with {mine[1]} and {mine[2]}. Make the env as the run that saved it did."
            )
        self._seed = int(state["seed"])
        self.states[:], self._steps[:] = state["states"], state["steps"]
        self._episode[:] = state["episode"]

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]`: a square for each state, and on it who acts."""
        place = self.table.place
        columns, lines = place.max(axis=0) + 1
        cell = min(width / columns, height / lines)
        corner = (np.array([width, height]) - cell * np.array([columns, lines])) / 2 + cell * place
        pictures = np.full((len(rows), height, width, 3), 255, np.uint8)
        for picture, row in zip(pictures, rows, strict=True):
            for state, colour in enumerate(self.table.colour):
                _square(picture, corner[state], cell, 0.04, colour)
            _square(picture, corner[self.states[row]], cell, 0.28, np.array(_AGENT))
        return pictures


def _square(
    picture: NDArray[np.uint8], corner: NDArray[np.float64], cell: float, margin: float, colour: NDArray[np.float64]
) -> None:
    """Fill a cell but for a margin, a share of its width."""
    left, top = np.round(corner + margin * cell).astype(int)
    right, bottom = np.round(corner + (1.0 - margin) * cell).astype(int)
    picture[top:bottom, left:right] = np.round(255 * colour).astype(np.uint8)


__all__ = ["TabularVectorEnv"]
