"""The vector env over a batch of simulations: steps, ends and restarts episodes, and saves itself exactly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv, action_spec, array_spec
from robotrl.envs.native.forces import ForceBatch
from robotrl.envs.native.model import load_model
from robotrl.envs.native.task import ALL, Task
from robotrl.envs.native.view import View
from robotrl.envs.randomise import Randomiser, Record
from robotrl.envs.seeding import EpisodeStreams
from robotrl.types import EnvSpec, RobotRLError, StateDict

STATE_FORMAT = 1


class NativeVectorEnv(VectorEnv):
    """A native task; see `robotrl.envs.base.VectorEnv` for the conventions and `robotrl.envs.make_vec` for making one.

    Observations are one group, `state`, float64 as Gymnasium's; actions are what the env's actuators take (`[N, nu]`,
    clipped to the control range by MuJoCo), rewards float64. Infos hold the task's terms by Gymnasium's names, `[N]`
    each, of the step just made, for rows that finished too; `simulation_warning` (bool `[N]`) appears on a step where
    MuJoCo reported trouble in a row, e.g. a diverging simulation, which MuJoCo sets back to the model's default pose.
    """

    def __init__(
        self,
        env_id: str,
        task: Task,
        *,
        num_envs: int,
        num_threads: int | None = None,
        copy: bool = True,
        max_episode_steps: int | None = 1000,
        randomise: Any = None,
    ) -> None:
        self.num_envs = num_envs
        self.task = task
        self.copy = copy
        self.model = load_model(task.xml_file)
        _check_positive("num_threads", num_threads)
        _check_positive("max_episode_steps", max_episode_steps)
        threads = _cores() if num_threads is None else num_threads
        kind = ForceBatch if task.needs_contact_forces() else Batch
        self.batch = kind(self.model, num_envs, min(threads, num_envs))
        self._initial_row: NDArray[np.float64] = self.batch.state[0].copy()
        self._ctrl: NDArray[np.float64] = self.batch.bind("ctrl")
        self._warnings: NDArray[np.int32] = self.batch.warning[:, :, 1]
        self._randomiser = Randomiser(randomise, self.model, self.batch) if randomise else None
        task.attach(self.model, self.batch)
        if self._randomiser is not None and "body_mass" in self._randomiser.fields:
            task.body_mass = self.batch.expand("body_mass")
        self._limit = np.iinfo(np.int64).max if max_episode_steps is None else max_episode_steps
        self._steps = np.zeros(num_envs, np.int64)
        self._episode = np.zeros(num_envs, np.int64)
        self._truncated = np.zeros(num_envs, np.bool_)
        self._final = np.zeros_like(task.obs)
        self._seed: int | None = None
        self._warned = self._warnings.sum(axis=1)
        self._view: View | None = None
        self._forces = task.needs_contact_forces()
        self._make_spaces(env_id, max_episode_steps)

    def _make_spaces(self, env_id: str, max_episode_steps: int | None) -> None:
        state = gymnasium.spaces.Box(-np.inf, np.inf, (self.task.obs.shape[1],), np.float64)
        self.single_observation_space = gymnasium.spaces.Dict({"state": state})
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        self.single_action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.env_spec = EnvSpec(
            id=env_id,
            obs={"state": array_spec(state, self.task.unit)},
            action=action_spec(self.single_action_space),
            control_hz=1.0 / self.task.dt,
            time_limit=max_episode_steps,
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
        mask = (options or {}).get("reset_mask")
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        if seed is None and self._seed is not None:
            self._episode[rows] += self.num_envs
        else:
            self._seed = self.default_seed if seed is None else seed
            self._streams = EpisodeStreams(self._seed)
            self._episode[:] = np.arange(self.num_envs)
        if options and "episode" in options:
            self._episode[rows] = np.asarray(options["episode"])[rows]
        self._start_episodes(rows.astype(np.int32))
        return self._returned_obs(), self.task.reset_infos()

    def step(self, actions: NDArray[np.floating[Any]]) -> StepResult:
        """Apply `actions [N, nu]` for one control step in every row."""
        task = self.task
        if self._seed is None:
            raise RobotRLError("No episode has started yet. Call reset() before step().")
        if actions.shape != self._ctrl.shape:
            raise RobotRLError(
                f"Actions have shape {tuple(actions.shape)}, but {self.env_spec.id} with {self.num_envs} envs takes "
                f"{self._ctrl.shape}: one row an env, one column an actuator."
            )
        self._ctrl[:] = actions
        task.before_step()
        try:
            self.batch.step(nstep=task.frame_skip)
            if self._forces:
                self.batch.contact_forces()
        except SimulationError as error:
            raise RobotRLError(f"MuJoCo cannot simulate {self.env_spec.id}: {error}") from error
        infos: dict[str, Any] = task.after_step(actions)
        task.observe(ALL)
        warned = np.add.reduce(self._warnings, axis=1)
        if not np.array_equal(warned, self._warned):
            infos["simulation_warning"] = warned > self._warned
            self._warned = warned
        self._steps += 1
        np.greater_equal(self._steps, self._limit, out=self._truncated)
        reward, terminated, truncated = task.reward, task.terminated, self._truncated
        if self.copy:
            reward, terminated, truncated = reward.copy(), terminated.copy(), truncated.copy()
        done = terminated | truncated
        if self._autoreset and done.any():
            self._restart(done, infos)
        return self._returned_obs(), reward, terminated, truncated, infos

    def _restart(self, done: NDArray[np.bool_], infos: dict[str, Any]) -> None:
        rows = np.flatnonzero(done).astype(np.int32)
        self._final[rows] = self.task.obs[rows]
        infos["final_obs"] = {"state": self._final.copy() if self.copy else self._final}
        infos["_final_obs"] = done
        self._episode[rows] += self.num_envs
        self._start_episodes(rows)

    def _start_episodes(self, rows: NDArray[np.int32]) -> None:
        state, task = self.batch.state, self.task
        if self._randomiser is not None:
            assert self._seed is not None
            self._randomiser.start_episodes(self._seed, rows, self._episode[rows])
        state[rows] = self._initial_row
        task.start_rows(self._streams, rows, self._episode[rows])
        self._steps[rows] = 0
        task.after_reset(self.batch, rows)
        task.observe(rows)

    @property
    def randomisation(self) -> Record:
        """The physics in force: `field/object` -> one number a simulation `[N]`; empty without `randomise`."""
        return {} if self._randomiser is None else self._randomiser.record

    def _returned_obs(self) -> ObsDict:
        return {"state": self.task.obs.copy() if self.copy else self.task.obs}

    def state_dict(self) -> StateDict:
        """State rows, episode counters, the seed, and what the task carries over."""
        if self._seed is None:
            raise RobotRLError("This env has no state yet. Call reset() before state_dict().")
        return {
            "format": STATE_FORMAT,
            "id": self.env_spec.id,
            "seed": self._seed,
            "rows": self.batch.state.copy(),
            "warnings": self.batch.warning.copy(),
            "steps": self._steps.copy(),
            "episode": self._episode.copy(),
            "obs": self.task.obs.copy(),
            "task": self.task.state_dict(),
            "randomisation": self.randomisation,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken, with any number of threads.

        Raises:
            RobotRLError: the state is of another env, another number of envs, or another model.
        """
        if state["id"] != self.env_spec.id or state["rows"].shape != self.batch.state.shape:
            raise RobotRLError(
                f"The saved state is of {state['id']} with rows {state['rows'].shape}, but this env is "
                f"{self.env_spec.id} with rows {self.batch.state.shape}. Make the env with the same id, options and "
                "num_envs as the run that saved it."
            )
        self._seed = int(state["seed"])
        self._streams = EpisodeStreams(self._seed)
        self.batch.state[:] = state["rows"]
        self.batch.warning[:] = state["warnings"]
        self._warned = self._warnings.sum(axis=1)
        self._steps[:] = state["steps"]
        self._episode[:] = state["episode"]
        self.task.obs[:] = state["obs"]
        self.task.load_state_dict(state["task"])
        if self._randomiser is not None:
            self._randomiser.resume(self._seed, state["randomisation"])
        elif state["randomisation"]:
            raise RobotRLError(
                "The saved state has randomised physics, but this env has none. Give it 'randomise' too."
            )

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]` of the simulations `rows` as they are now.

        Args:
            rows: which simulations.
            height: pixels.
            width: pixels.
            camera: one of the model's, by name or number; None: the task's view, which goes along with a robot that
                walks.
        """
        if self._view is None:
            self._view = View(self.task, self.batch)
        return self._view.render(rows, height=height, width=width, camera=camera)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderer, if pictures were taken."""
        if self._view is not None:
            self._view.close()


def _cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise RobotRLError(f"{name} is {value}, but it must be at least 1. Use a positive number, or None.")
