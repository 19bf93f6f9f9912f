"""The chain of a combination lock, vectorised: hidden states, rewards, episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv, action_spec
from robotrl.envs.lock import ImagesOptions, Options
from robotrl.envs.lock.observations import Observer
from robotrl.envs.seeding import EpisodeStreams
from robotrl.types import ArraySpec, EnvSpec, RobotRLError, StateDict

STATE_FORMAT = 1
NUM_ACTIONS = 10
"""Hidden actions, one of which is right in each good state."""
DEAD = 2
"""The hidden state that nothing leaves; 0 and 1 are the good ones."""
ANTI_REWARD, ANTI_CHANCE = 0.1, 0.5
_DRAWS = 3
"""Uniform numbers of a step: for the hidden action, the next state, the anti-reward."""


class LockVectorEnv(VectorEnv):
    """`num_envs` locks of one combination; see `robotrl.envs.base.VectorEnv` for the conventions.

    An episode starts in state 0 or 1, by lot. The action `[10]` is turned into a hidden one, drawn from
    softmax(action / temperature). The right one for the state and the step leads to state 0 or 1, by lot; any other to
    the dead state. After `horizon` steps the episode terminates, and pays 1 if its last action was the right one, which
    is its success. Observations: `state` (float32) and `privileged` (float32: hidden state, step, right hidden action).
    The step is part of both, so that the end is a termination; the last step is truncated as well, as the horizon is
    the time limit (unless a lower one was set).

    Args:
        env_id: its name.
        options: checked by `make`.
        observer: what it shows.
        num_envs: rows.
        copy: return fresh arrays.
        limit: steps after which an episode is truncated; None: those of the horizon.
    """

    def __init__(
        self,
        env_id: str,
        options: Options | ImagesOptions,
        observer: Observer,
        *,
        num_envs: int,
        copy: bool,
        limit: int | None,
    ) -> None:
        self.options, self.num_envs, self.copy = options, num_envs, copy
        self.horizon = options.horizon
        self._observer = observer
        self._limit = self.horizon if limit is None else min(limit, self.horizon)
        combination = np.random.default_rng(options.instance)
        self.right: NDArray[np.int64] = np.zeros((self.horizon + 1, 3), np.int64)
        """The right hidden action `[horizon + 1, state]`; where there is none, a demonstrator plays state 1's."""
        self.right[:-1, 0] = combination.integers(0, NUM_ACTIONS, self.horizon)
        self.right[:-1, 1] = combination.integers(0, NUM_ACTIONS, self.horizon)
        self.right[:, DEAD] = self.right[:, 1]
        self._latent: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._step: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._episode: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._draws = np.zeros((num_envs, self.horizon, _DRAWS))
        self._rows: NDArray[np.int64] = np.arange(num_envs)
        self._obs = {
            "state": np.zeros((num_envs, observer.dim), np.float32),
            "privileged": np.zeros((num_envs, 3), np.float32),
        }
        self._seed: int | None = None
        self._make_spaces(env_id)

    def _make_spaces(self, env_id: str) -> None:
        box = gymnasium.spaces.Box
        bound = np.inf if self.options.action_bound is None else self.options.action_bound
        spaces: dict[str, Any] = {
            name: box(-np.inf, np.inf, (value.shape[1],), np.float32) for name, value in self._obs.items()
        }
        self.single_observation_space = gymnasium.spaces.Dict(spaces, sort_keys=False)
        self.single_action_space = box(-bound, bound, (NUM_ACTIONS,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        units = {"state": self._observer.unit, "privileged": "hidden state, step, right hidden action"}
        self.env_spec = EnvSpec(
            id=env_id,
            obs={name: ArraySpec(space.shape, space.dtype.name, units[name]) for name, space in spaces.items()},
            action=action_spec(self.single_action_space),
            time_limit=self._limit,
            success="the action at the last step is the right one, which pays 1",
            exact_state=True,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, NDArray[Any]]]:
        """Start an episode in every row.

        Args:
            seed: episode numbers start again from 0 under this seed; None: the next episodes under the same seed.
            options: `{"episode": int [N]}` says which episodes to start, `{"reset_mask": bool [N]}` in which rows only.
        """
        options = options or {}
        mask = options.get("reset_mask")
        rows = self._rows if mask is None else np.flatnonzero(mask)
        if seed is None and self._seed is not None:
            self._episode[rows] += self.num_envs
        else:
            self._seed = self.default_seed if seed is None else seed
            self._streams = EpisodeStreams(self._seed)
            self._episode[:] = self._rows
        if "episode" in options:
            self._episode[rows] = np.asarray(options["episode"])[rows]
        self._start_episodes(rows)
        return self._returned_obs(), {}

    def step(self, actions: NDArray[np.floating[Any]]) -> StepResult:
        """Apply `actions [N, 10]` in every row; what lies beyond the bounds is clipped."""
        if self._seed is None:
            raise RobotRLError("No episode has started yet. Call reset() before step().")
        if actions.shape != (self.num_envs, NUM_ACTIONS):
            raise RobotRLError(
                f"Actions have shape {tuple(actions.shape)}, but {self.env_spec.id} with {self.num_envs} envs takes "
                f"({self.num_envs}, {NUM_ACTIONS}): one row an env, a number for each hidden action."
            )
        now = np.minimum(self._step, self.horizon - 1)  # rows that wait for their reset stay at the end
        draw = self._draws[self._rows, now].T
        chosen = self._hidden_action(np.asarray(actions, np.float64), draw[0])
        good = self._latent < DEAD
        right = good & (chosen == self.right[now, self._latent])
        last = now == self.horizon - 1
        failed = last & ~right if self.options.anti_reward == "code" else good & ~right
        reward = np.where(right & last, 1.0, np.where(failed & (draw[2] < ANTI_CHANCE), ANTI_REWARD, 0.0))
        following = np.where(last, self._latent, (draw[1] < 0.5).astype(np.int64))  # who opens the lock stays
        self._latent = np.where(right, following, DEAD)
        self._step = np.minimum(self._step + 1, self.horizon)
        self._observe(self._rows)
        terminated, truncated = self._step >= self.horizon, self._step >= self._limit
        infos: dict[str, Any] = {"success": reward == 1.0, "_success": np.ones(self.num_envs, np.bool_)}
        done = terminated | truncated
        if self._autoreset and done.any():
            infos["final_obs"] = {name: value.copy() for name, value in self._obs.items()}
            infos["_final_obs"] = done
            rows = np.flatnonzero(done)
            self._episode[rows] += self.num_envs
            self._start_episodes(rows)
        return self._returned_obs(), reward, terminated, truncated, infos

    def _hidden_action(self, actions: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Drawn from softmax(action / temperature), by inverting the cumulative distribution."""
        if not np.isfinite(actions).all():
            raise RobotRLError(f"An action for {self.env_spec.id} is not finite. Find out where it comes from.")
        if self.options.action_bound is not None:
            actions = np.clip(actions, -self.options.action_bound, self.options.action_bound)
        weights = np.exp((actions - actions.max(1, keepdims=True)) / self.options.temperature)
        cumulative = np.cumsum(weights, 1)
        below = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(1)
        return np.minimum(below, NUM_ACTIONS - 1)  # the product may round up to the whole sum

    def _start_episodes(self, rows: NDArray[np.int64]) -> None:
        for row, episode in zip(rows.tolist(), self._episode[rows].tolist(), strict=True):
            self._latent[row] = self._draw(row, episode)
        self._step[rows] = 0
        self._observe(rows)

    def _draw(self, row: int, episode: int) -> int:
        """Everything that chance decides in an episode; returns the state it starts in."""
        rng = self._streams.at(episode)
        start = int(rng.random() < 0.5)
        rng.random(out=self._draws[row])
        self._observer.start(row, rng)
        return start

    def _observe(self, rows: NDArray[np.int64]) -> None:
        latent, step = self._latent[rows], self._step[rows]
        self._obs["state"][rows] = self._observer.show(rows, latent, step)
        self._obs["privileged"][rows] = np.stack([latent, step, self.right[step, latent]], 1)

    def _returned_obs(self) -> ObsDict:
        return {name: value.copy() for name, value in self._obs.items()} if self.copy else dict(self._obs)

    def state_dict(self) -> StateDict:
        """Seed, episode numbers, steps and hidden states; all else follows from them."""
        if self._seed is None:
            raise RobotRLError("This env has no state yet. Call reset() before state_dict().")
        return {
            "format": STATE_FORMAT,
            "id": self.env_spec.id,
            "lock": [self.horizon, self.options.instance],
            "seed": self._seed,
            "episode": self._episode.copy(),
            "step": self._step.copy(),
            "latent": self._latent.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            RobotRLError: the state is of another lock, or of another number of them.
        """
        saved = (state["id"], list(state["lock"]), len(state["episode"]))
        mine = (self.env_spec.id, [self.horizon, self.options.instance], self.num_envs)
        if saved != mine:
            raise RobotRLError(
                f"The saved state is of {saved[2]} envs {saved[0]} with horizon and instance {saved[1]}, but here are "
                f"{mine[2]} envs {mine[0]} with {mine[1]}. Make the env as the run that saved it did."
            )
        self._seed = int(state["seed"])
        self._streams = EpisodeStreams(self._seed)
        self._episode[:] = state["episode"]
        for row, episode in enumerate(self._episode.tolist()):
            self._draw(row, episode)
        self._step[:] = state["step"]
        self._latent[:] = state["latent"]
        self._observe(self._rows)

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]`: a column a step, a line a state, the present one lit.

        Args:
            rows: which locks.
            height: pixels.
            width: pixels.
            camera: not used.
        """
        return np.stack([self._draw_row(row, height, width) for row in rows])

    def _draw_row(self, row: int, height: int, width: int) -> NDArray[np.uint8]:
        from robotrl.envs.lock.drawing import draw_lock

        latent, step = int(self._latent[row]), int(self._step[row])
        return draw_lock(height, width, self.horizon, latent, step, self._observer.picture(row, latent, step))


__all__ = ["DEAD", "NUM_ACTIONS", "LockVectorEnv"]
