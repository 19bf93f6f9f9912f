"""`dmc/<domain>-<task>`: the dm_control suite, e.g. `dmc/walker-walk` or `dmc/humanoid_CMU-run`.

Suite episodes end by time limit, with a discount of 1: that is a truncation, and values bootstrap. Only an end that a
task itself declares with a discount below 1 (of the suite's tasks, the LQR ones at their goal) is a termination.
The state is saved and continued bit for bit.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from robotrl.envs.base import action_spec, array_spec
from robotrl.envs.slots import SlotVectorEnv
from robotrl.registry import nearest
from robotrl.types import EnvSpec, RobotRLError, StateDict

STATE_FORMAT = 1
_OPTIONS = ("privileged", "task_kwargs", "environment_kwargs", "max_episode_steps")
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value  # everything a step reads, solver warm start and controls included


def make(
    id: str,
    *,
    num_envs: int = 1,
    num_threads: int | None = None,
    copy: bool = True,
    max_episode_steps: int | None = -1,
    privileged: bool = False,
    task_kwargs: Mapping[str, Any] | None = None,
    environment_kwargs: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> DMControlVecEnv:
    """The factory behind `dmc/<domain>-<task>`.

    Args:
        id: `dmc/`, a domain of the suite, `-`, and one of its tasks.
        num_envs: environments.
        num_threads: threads that step them; None or 1: one after the other. More pay for large models alone (the dog):
            Python around MuJoCo takes most of a step of the others, and threads wait for each other in it.
        copy: return fresh arrays; without, they are overwritten by the next step.
        max_episode_steps: control steps after which an episode is truncated; None: never; -1: as the suite has it.
        privileged: add a group `privileged` with the physics' positions, velocities and activations.
        task_kwargs: arguments of the suite's task function, e.g. `{"time_limit": 10}` (seconds).
        environment_kwargs: arguments of dm_control's Environment, e.g. `{"control_timestep": 0.05}`.
        unknown: refused.

    Raises:
        RobotRLError: dm_control is not installed, or an unknown domain, task or option (with the nearest ones).
    """
    for name in unknown:
        raise RobotRLError(
            f"{id} has no option '{name}'.{nearest(name, list(_OPTIONS))} Its options are: {', '.join(_OPTIONS)}."
        )
    domain, task = _split(id)
    load = {"domain": domain, "task": task, "task_kwargs": task_kwargs, "environment_kwargs": environment_kwargs}
    return DMControlVecEnv(
        id,
        load,
        num_envs=num_envs,
        num_threads=num_threads,
        copy=copy,
        max_episode_steps=max_episode_steps,
        privileged=privileged,
    )


def _suite() -> Any:
    """dm_control's suite, or one sentence on how to get it."""
    # Without a display dm_control would try GLFW at import and complain. It need not choose: pictures are drawn by
    # robotrl.envs.rendering.
    choose = "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY")
    if choose:
        os.environ["MUJOCO_GL"] = "disable"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from dm_control import suite
    except ImportError as error:
        raise RobotRLError(
            f"The dmc/ environments need dm_control, which is not installed ({error}). "
            'Install it with: pip install "robotrl[dmc]"'
        ) from error
    finally:
        if choose:
            del os.environ["MUJOCO_GL"]
    return suite


def task_names() -> list[str]:
    """Every `dmc/<domain>-<task>` of the suite, sorted."""
    return sorted(f"dmc/{domain}-{task}" for domain, task in _suite().ALL_TASKS)


def _split(env_id: str) -> tuple[str, str]:
    domain, _, task = env_id.removeprefix("dmc/").partition("-")
    if (domain, task) not in _suite().ALL_TASKS:
        raise RobotRLError(
            f"The dm_control suite has no '{env_id}'.{nearest(env_id, task_names())} "
            "Names are dmc/<domain>-<task>, e.g. dmc/walker-walk."
        )
    return domain, task


class DMControlVecEnv(SlotVectorEnv):
    """One task of the suite, side by side; see `robotrl.envs.base.VectorEnv` for the conventions.

    Observations are one group `state`, float64, the task's observations flattened in their order; actions are the
    actuators' controls within their bounds.
    """

    def __init__(
        self,
        env_id: str,
        load: Mapping[str, Any],
        *,
        num_envs: int,
        num_threads: int | None = None,
        copy: bool = True,
        max_episode_steps: int | None = -1,
        privileged: bool = False,
    ) -> None:
        # Some tasks (LQR) draw their model when they are loaded: the same draw for each, so that all rows are one task.
        self._envs = [_load(load, env_id) for _ in range(num_envs)]
        env = self._envs[0]
        self._substeps = round(env.control_timestep() / env.physics.timestep())
        self._privileged = privileged
        self._pristine = _model_arrays(env.physics.model.ptr, copy=True)
        self._renderers: dict[tuple[int, int], Any] = {}
        self._errors: dict[int, Exception] = {}
        threads = min(num_threads or 1, num_envs)
        self._pool = ThreadPoolExecutor(threads, f"{env_id}-step") if threads > 1 else None
        self._shares = [range(i, num_envs, threads) for i in range(threads)]
        limit = max_episode_steps
        if limit == -1:
            limit = None if math.isinf(env._step_limit) else math.ceil(env._step_limit)
        bounds = env.action_spec()
        action = spaces.Box(
            np.broadcast_to(bounds.minimum, bounds.shape).astype(np.float32),
            np.broadcast_to(bounds.maximum, bounds.shape).astype(np.float32),
            dtype=np.float32,
        )
        groups = self._groups(env)
        units = {"privileged": "positions m and rad, then velocities m/s and rad/s, then actuator activations"}
        spec = EnvSpec(
            id=env_id,
            obs={name: array_spec(space, units.get(name, "")) for name, space in groups.items()},
            action=action_spec(action),
            control_hz=1.0 / env.control_timestep(),
            time_limit=limit,
            exact_state=True,
        )
        self._make(spec, spaces.Dict(groups), action, num_envs=num_envs, copy=copy)

    def _groups(self, env: Any) -> dict[str, Any]:
        env.reset()
        sizes = {"state": _flat(env.task.get_observation(env.physics)).size}
        if self._privileged:
            sizes["privileged"] = env.physics.get_state().size
        return {name: spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in sizes.items()}

    def _begin(self, rows: NDArray[np.intp], seeds: list[int]) -> dict[str, Any]:
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            env = self._envs[row]
            env.task.random.seed(seed)
            with env.physics.reset_context():
                env.task.initialize_episode(env.physics)
            self._observe(row)
        return {}

    def _observe(self, row: int) -> None:
        env = self._envs[row]
        self._obs["state"][row] = _flat(env.task.get_observation(env.physics))
        if self._privileged:
            self._obs["privileged"][row] = env.physics.get_state()

    def _simulate(self, actions: NDArray[Any]) -> dict[str, Any]:
        if self._pool is None:
            self._step_rows(self._shares[0], actions)
        else:
            list(self._pool.map(lambda share: self._step_rows(share, actions), self._shares))
        if self._errors:
            row, error = min(self._errors.items())
            self._errors.clear()
            raise RobotRLError(
                f"The simulation of {self.env_spec.id} diverged in row {row} at step {int(self._steps[row])} of its "
                f"episode: {error} Smaller actions usually help; this comes from actions the model was not made for."
            ) from error
        return {}

    def _step_rows(self, rows: Sequence[int], actions: NDArray[Any]) -> None:
        """dm_control's own step, of which the discount's meaning is kept apart: its end is not always a termination."""
        for row in rows:
            if self._waiting[row]:
                continue
            env = self._envs[row]
            task, physics = env.task, env.physics
            try:
                task.before_step(actions[row], physics)
                physics.step(self._substeps)
            except Exception as error:  # dm_control's PhysicsError; raised where all rows are known
                self._errors[row] = error
                continue
            task.after_step(physics)
            self._reward[row] = task.get_reward(physics)
            discount = task.get_termination(physics)
            self._terminated[row] = discount is not None and discount < 1.0
            self._truncated[row] = discount is not None and discount >= 1.0
            self._observe(row)

    def state_dict(self) -> StateDict:
        """Physics with solver warm start, what the task changed in its model, its random stream and its variables."""
        state = self._counters() | {"format": STATE_FORMAT, "waiting": self._waiting.copy(), "rows": []}
        state["obs"] = {name: value.copy() for name, value in self._obs.items()}
        for env in self._envs:
            model, data = env.physics.model.ptr, env.physics.data.ptr
            physics = np.empty(mujoco.mj_stateSize(model, _STATE))
            mujoco.mj_getState(model, data, physics, _STATE)
            changed = {
                name: array.copy()
                for name, array in _model_arrays(model).items()
                if not np.array_equal(array, self._pristine[name])
            }
            stream = env.task.random.get_state(legacy=False)
            row = {"physics": physics, "model": changed, "random": stream, "task": _variables(env.task)}
            state["rows"].append(row)
        return state

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken, bit for bit.

        Raises:
            RobotRLError: the state is of another env, another number of envs, or another model.
        """
        self._load_counters(state)
        self._waiting[:] = state["waiting"]
        for name, value in self._obs.items():
            value[:] = state["obs"][name]
        for env, saved in zip(self._envs, state["rows"], strict=True):
            model, data = env.physics.model.ptr, env.physics.data.ptr
            if len(saved["physics"]) != mujoco.mj_stateSize(model, _STATE):
                raise RobotRLError(
                    f"The saved state of {self.env_spec.id} is of another model. Use the dm_control and MuJoCo "
                    "versions and the options of the run that saved it."
                )
            for name, array in _model_arrays(model).items():
                np.copyto(array, saved["model"].get(name, self._pristine[name]))
            mujoco.mj_resetData(model, data)
            mujoco.mj_setState(model, data, saved["physics"], _STATE)
            # what depends on positions and velocities alone is recomputed, as dm_control leaves it after a step
            mujoco.mj_step1(model, data)
            # ... with the solver's warm start as it was
            mujoco.mj_setState(model, data, saved["physics"], _STATE)
            env.task.random.set_state(saved["random"])
            for name, value in saved["task"].items():
                setattr(env.task, name, value)

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]` of the envs `rows`; None is the model's first camera."""
        from robotrl.envs.rendering import OffscreenRenderer

        if (height, width) not in self._renderers:
            self._renderers[height, width] = OffscreenRenderer(self._envs[0].physics.model.ptr, height, width)
        renderer = self._renderers[height, width]
        images = np.empty((len(rows), height, width, 3), np.uint8)
        for i, row in enumerate(rows):
            physics = self._envs[row].physics
            images[i] = renderer.render(physics.data.ptr, camera, model=physics.model.ptr)
        return images

    def close_extras(self, **_: Any) -> None:
        """Free renderers, threads and simulations."""
        if self._pool is not None:
            self._pool.shutdown()
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        for env in self._envs:
            env.close()


def _load(load: Mapping[str, Any], env_id: str) -> Any:
    task_kwargs = {"random": np.random.RandomState(0), **(load["task_kwargs"] or {})}
    environment_kwargs = dict(load["environment_kwargs"] or {})
    suite, said = _suite(), logging.getLogger("absl")  # where dm_control says what MuJoCo warns of
    said.addFilter(_no_deprecation)
    try:
        env = suite.load(load["domain"], load["task"], task_kwargs=task_kwargs, environment_kwargs=environment_kwargs)
    except TypeError as error:
        raise RobotRLError(f"{env_id} does not take these task_kwargs or environment_kwargs: {error}") from error
    finally:
        said.removeFilter(_no_deprecation)
    # quadruped-escape would open an OpenGL context for each env to upload its terrain; OffscreenRenderer does that
    env.physics._make_rendering_contexts = lambda: None
    return env


def _no_deprecation(record: logging.LogRecord) -> bool:
    """Of the suite's own models, which nobody who trains on them can change."""
    return "is deprecated" not in record.getMessage()


def _flat(observation: Mapping[str, Any]) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(value) for value in observation.values()])


def _model_arrays(model: mujoco.MjModel, *, copy: bool = False) -> dict[str, NDArray[Any]]:
    """Every array of the model by name: views, or copies."""
    arrays = {name: getattr(model, name) for name in _array_names(type(model))}
    arrays = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray) and value.size}
    return {name: value.copy() for name, value in arrays.items()} if copy else arrays


def _array_names(kind: type) -> list[str]:
    return [
        name for name, value in inspect.getmembers(kind) if isinstance(value, property) and not name.startswith("_")
    ]


def _variables(task: Any) -> dict[str, Any]:
    """The task's own numbers, texts and arrays: some tasks keep more than the physics knows."""
    plain = (bool, int, float, str, np.ndarray)
    return {name: value for name, value in vars(task).items() if isinstance(value, plain)}


__all__ = ["DMControlVecEnv", "make", "task_names"]
