"""Wrappers of actions, rewards and resets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv
from robotrl.envs.wrappers.base import EnvWrapper
from robotrl.types import StateDict


class ActionRepeat(EnvWrapper):
    """Executes each action `repeat` times, or until the episode ends, and returns the sum of the rewards.

    Observations and infos are those of the last step a row simulated. The env's autoreset is off: a row that ends
    within the repeat keeps what it returned there, whatever it does until the repeat is over.
    """

    def __init__(self, env: VectorEnv, repeat: int) -> None:
        super().__init__(env)
        self._repeat = repeat
        self.on_early_end: Callable[[NDArray[np.intp]], None] | None = None
        """Called with rows that end before the repeat is over, while they still are in their last state."""
        spec = env.env_spec
        self.env_spec = replace(
            spec,
            control_hz=spec.control_hz / repeat,
            time_limit=None if spec.time_limit is None else math.ceil(spec.time_limit / repeat),
            action_repeat=spec.action_repeat * repeat,
        )

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step every row up to `repeat` times."""
        total = np.zeros(self.num_envs)
        running = np.ones(self.num_envs, np.bool_)
        kept: list[tuple[NDArray[np.intp], ObsDict, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]] = []
        for i in range(self._repeat):
            obs, reward, terminated, truncated, infos = self.env.step(actions)
            np.add(total, reward, out=total, where=running)
            ended = (terminated | truncated) & running
            running &= ~ended
            if i == self._repeat - 1 or not running.any():
                break
            if ended.any():
                rows = np.flatnonzero(ended)
                if self.on_early_end is not None:
                    self.on_early_end(rows)
                saved = {name: value[rows] for name, value in obs.items()}
                kept.append((rows, saved, terminated[rows], truncated[rows], _take(infos, rows)))
        if kept:
            obs = {name: value.copy() for name, value in obs.items()}
            terminated, truncated = terminated.copy(), truncated.copy()
            for rows, saved, kept_terminated, kept_truncated, kept_infos in kept:
                for name, value in saved.items():
                    obs[name][rows] = value
                terminated[rows], truncated[rows] = kept_terminated, kept_truncated
                infos = _put(infos, rows, kept_infos, self.num_envs)
        return obs, total, terminated, truncated, infos


def _take(infos: dict[str, Any], rows: NDArray[np.intp]) -> dict[str, Any]:
    return {name: value[rows] for name, value in infos.items() if isinstance(value, np.ndarray) and value.ndim}


def _put(infos: dict[str, Any], rows: NDArray[np.intp], values: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """`infos` with `values` in `rows`; what is not mentioned there, such as a later step's `_success`, is cleared."""
    result = dict(infos)
    for name, value in infos.items():
        if isinstance(value, np.ndarray) and value.ndim and name.startswith("_") and name not in values:
            result[name] = value.copy()
            result[name][rows] = False
    for name, value in values.items():
        old = infos.get(name)
        array = np.zeros((num_envs, *value.shape[1:]), value.dtype) if old is None else old.copy()
        array[rows] = value
        result[name] = array
    return result


class AutoReset(EnvWrapper):
    """SAME_STEP autoreset around an env whose own is off."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and start the next episode in rows that ended."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        if done.any():
            # the env may write the new episode into the arrays it has just returned
            reward, terminated, truncated = reward.copy(), terminated.copy(), truncated.copy()
            infos["final_obs"] = {name: value.copy() for name, value in obs.items()}
            infos["_final_obs"] = done
            obs, _ = self.env.reset(options={"reset_mask": done})
        return obs, reward, terminated, truncated, infos


class ActionDelay(EnvWrapper):
    """Executes the action chosen `delay` steps ago; until then zero, brought within the bounds (discrete: action 0).

    `infos["executed_action"]` is what the env got.
    """

    def __init__(self, env: VectorEnv, delay: int) -> None:
        super().__init__(env)
        space = env.action_space
        if isinstance(space, spaces.Box):
            self._neutral = np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
        else:
            self._neutral = np.zeros_like(space.sample())
        self._queue = np.stack([self._neutral] * delay)  # oldest first

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Reset, and forget the chosen actions of the rows that were reset."""
        mask = (options or {}).get("reset_mask")
        rows = slice(None) if mask is None else mask
        self._queue[:, rows] = self._neutral[rows]
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step with the oldest chosen action of every row."""
        executed = self._queue[0].copy()
        self._queue[:-1] = self._queue[1:]
        self._queue[-1] = actions
        obs, reward, terminated, truncated, infos = self.env.step(executed)
        done = terminated | truncated
        self._queue[:, done] = self._neutral[done]
        infos["executed_action"] = executed
        return obs, reward, terminated, truncated, infos

    def _own_state(self) -> StateDict:
        return {"queue": self._queue.copy()}

    def _load_own_state(self, state: StateDict) -> None:
        self._queue[:] = state["queue"]


class RewardScale(EnvWrapper):
    """Multiplies rewards by `scale`; `infos["unscaled_reward"]` keeps the env's own."""

    def __init__(self, env: VectorEnv, scale: float) -> None:
        super().__init__(env)
        self._scale = scale

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and scale the rewards."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        infos["unscaled_reward"] = reward
        return obs, reward * self._scale, terminated, truncated, infos


class Copies(EnvWrapper):
    """Returns arrays that are the caller's to keep."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Reset, and copy the observations."""
        obs, infos = self.env.reset(seed=seed, options=options)
        return _copied(obs), _copied(infos)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and copy everything that is returned."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        return _copied(obs), reward.copy(), terminated.copy(), truncated.copy(), _copied(infos)


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.copy() if isinstance(value, np.ndarray) else _copied(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
