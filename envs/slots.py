"""What the adapters share: vector envs over single environments that know nothing of batches.

A subclass simulates and restarts slots; this class counts steps and episodes, applies the seeding rule and the time
limit, and does SAME_STEP autoreset.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv
from robotrl.envs.seeding import episode_seed
from robotrl.types import EnvSpec, RobotRLError, StateDict


class SlotVectorEnv(VectorEnv):
    """Base of the adapters; see `robotrl.envs.base.VectorEnv` for the conventions.

    Subclasses write into `self._obs` (group -> `[N, ...]`), `self._reward`, `self._terminated` and `self._truncated`
    (`[N]`), the last only for truncations of the env's own besides the time limit.
    """

    def _make(
        self,
        spec: EnvSpec,
        observation_space: spaces.Dict,
        action_space: gymnasium.Space[Any],
        *,
        num_envs: int,
        copy: bool,
    ) -> None:
        """Set spaces and counters; `spec.time_limit` is the limit that is applied."""
        self.env_spec = spec
        self.num_envs = num_envs
        self.copy = copy
        self.single_observation_space = observation_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.single_action_space = action_space
        self.action_space = batch_space(action_space, num_envs)
        self._limit = np.iinfo(np.int64).max if spec.time_limit is None else spec.time_limit
        self._obs: ObsDict = {
            name: np.zeros((num_envs, *(space.shape or ())), space.dtype)
            for name, space in observation_space.spaces.items()
        }
        self._final: ObsDict = {name: np.zeros_like(value) for name, value in self._obs.items()}
        self._reward = np.zeros(num_envs)
        self._terminated = np.zeros(num_envs, np.bool_)
        self._truncated = np.zeros(num_envs, np.bool_)
        self._waiting = np.zeros(num_envs, np.bool_)  # rows that finished, with autoreset off
        self._steps = np.zeros(num_envs, np.int64)
        self._episode = np.zeros(num_envs, np.int64)
        self._seed: int | None = None

    @abstractmethod
    def _begin(self, rows: NDArray[np.intp], seeds: list[int]) -> dict[str, Any]:
        """Start an episode in each of `rows`, from its seed; observations go to `self._obs`. Returns reset infos."""

    @abstractmethod
    def _simulate(self, actions: NDArray[Any]) -> dict[str, Any]:
        """One step of every row that is not `self._waiting`; results go to `self._obs` and its neighbours."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Start an episode in every row.

        Args:
            seed: episode numbers start again from 0 under this seed; None: the next episodes under the same seed.
            options: `{"episode": int [N]}` says which episodes to start; `{"reset_mask": bool [N]}` in which rows, not
                in all.
        """
        mask = (options or {}).get("reset_mask")
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        if seed is None and self._seed is not None:
            self._episode[rows] += self.num_envs
        else:
            self._seed = self.default_seed if seed is None else seed
            self._episode[:] = np.arange(self.num_envs)
        if options and "episode" in options:
            self._episode[rows] = np.asarray(options["episode"])[rows]
        infos = self._start(rows)
        return self._returned(self._obs), infos

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Apply `actions [N, ...]` for one step in every row."""
        if self._seed is None:
            raise RobotRLError(f"{self.env_spec.id} has no episode yet. Call reset() before step().")
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise RobotRLError(
                f"Actions have shape {actions.shape}, but {self.env_spec.id} with {self.num_envs} envs takes "
                f"{self.action_space.shape}: one row an env."
            )
        infos = self._simulate(actions)
        self._steps += 1
        terminated, truncated = self._terminated.copy(), self._truncated | (self._steps >= self._limit)
        reward = self._reward.copy() if self.copy else self._reward
        done = terminated | truncated
        if done.any():
            if self._autoreset:
                self._restart(done, infos)
            else:
                self._waiting |= done
        return self._returned(self._obs), reward, terminated, truncated, infos

    def _restart(self, done: NDArray[np.bool_], infos: dict[str, Any]) -> None:
        rows = np.flatnonzero(done)
        for name, value in self._obs.items():
            self._final[name][rows] = value[rows]
        infos["final_obs"], infos["_final_obs"] = self._returned(self._final), done
        self._episode[rows] += self.num_envs
        self._start(rows)

    def _start(self, rows: NDArray[np.intp]) -> dict[str, Any]:
        assert self._seed is not None
        self._steps[rows] = 0
        self._waiting[rows] = False
        self._terminated[rows] = False
        self._truncated[rows] = False
        return self._begin(rows, [episode_seed(self._seed, int(i)) for i in self._episode[rows]])

    def _returned(self, obs: ObsDict) -> ObsDict:
        return {name: value.copy() for name, value in obs.items()} if self.copy else dict(obs)

    def _counters(self) -> StateDict:
        if self._seed is None:
            raise RobotRLError("This env has no state yet. Call reset() before state_dict().")
        return {
            "id": self.env_spec.id,
            "num_envs": self.num_envs,
            "seed": self._seed,
            "steps": self._steps.copy(),
            "episode": self._episode.copy(),
        }

    def _load_counters(self, state: StateDict) -> None:
        if state["id"] != self.env_spec.id or state["num_envs"] != self.num_envs:
            raise RobotRLError(
                f"The saved state is of {state['num_envs']} envs {state['id']}, but this is {self.num_envs} envs "
                f"{self.env_spec.id}. Make the env with the same id, options and num_envs as the run that saved it."
            )
        self._seed = int(state["seed"])
        self._steps[:] = state["steps"]
        self._episode[:] = state["episode"]

    def state_dict(self) -> StateDict:
        """The seed and the numbers of the running episodes; an exact subclass adds the rest."""
        return self._counters()

    def load_state_dict(self, state: StateDict) -> None:
        """Set the counters. Call `reset()` next: the running episodes cannot be continued, the following ones start.

        Raises:
            RobotRLError: the state is of another env or another number of envs.
        """
        self._load_counters(state)


__all__ = ["SlotVectorEnv"]
