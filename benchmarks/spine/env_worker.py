"""Measures one way of stepping a task, in a process of its own, and prints one line of JSON.

All arms see the same random actions, prepared beforehand in the type each wants. Counted are transitions: EnvPool
resets a finished row on the call after its last transition, and such a row is no transition.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Step = Callable[[int], int]
"""`step(k)` takes the k-th batch of actions and returns the number of transitions it made."""
Actions = NDArray[np.float64]

POOL = 128
"""Different action batches; step k takes batch k modulo this."""
WARM_UP = 100
"""Vector steps before the clock starts."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What every arm is given."""

    task: str
    num_envs: int
    threads: int
    steps: int
    """Vector steps in all, warm-up included."""
    actions: Actions
    """`[POOL, num_envs, action size]`."""


def _gymnasium(task: str) -> Any:
    import gymnasium

    return gymnasium.make(f"{task}-v5", disable_env_checker=True)


def random_actions(task: str, num_envs: int, seed: int) -> Actions:
    """`[POOL, num_envs, action size]`, uniform within the task's bounds."""
    space = _gymnasium(task).action_space
    rng = np.random.default_rng(seed)
    return rng.uniform(space.low, space.high, (POOL, num_envs, *space.shape))


def robotrl(setting: Setting) -> tuple[Step, dict[str, Any]]:
    """`robotrl.make_vec` with its defaults."""
    env = _native(setting)
    env.reset()
    pool = list(setting.actions.astype(env.single_action_space.dtype))

    def step(k: int) -> int:
        env.step(pool[k % POOL])
        return setting.num_envs

    return step, {}


def _native(setting: Setting) -> Any:
    import robotrl as package

    return package.make_vec(f"{setting.task}-v5", num_envs=setting.num_envs, seed=0, num_threads=setting.threads)


def envpool(setting: Setting) -> tuple[Step, dict[str, Any]]:
    """EnvPool in its synchronous mode, and whether its observations carry contact forces."""
    import envpool as package

    n = setting.num_envs
    env = package.make_gymnasium(
        f"{setting.task}-v5", num_envs=n, batch_size=n, num_threads=setting.threads, seed=0
    )  # fmt: skip
    env.reset()
    pool = list(setting.actions.astype(env.action_space.dtype))
    forces = _contact_forces(setting.task, env, pool)

    def step(k: int) -> int:
        info = env.step(pool[k % POOL])[4]
        return int(np.count_nonzero(info["elapsed_step"]))

    return step, {"contact_forces": forces, "frame_skip": int(env.spec.config.frame_skip)}


def _contact_forces(task: str, env: Any, pool: list[NDArray[Any]]) -> bool | None:
    """Whether the last 78 observations (forces on 13 bodies) ever differ from zero; None: the task has none."""
    if task not in ("Ant", "Humanoid"):
        return None
    largest = max(float(np.abs(env.step(pool[k % POOL])[0][:, -78:]).max()) for k in range(50))
    return largest > 0


def _sb3(actions: Actions, env: Any) -> tuple[Step, dict[str, Any]]:
    env.reset()
    pool = list(actions.astype(env.action_space.dtype))

    def step(k: int) -> int:
        env.step(pool[k % POOL])
        return actions.shape[1]

    return step, {}


def sb3_dummy(setting: Setting) -> tuple[Step, dict[str, Any]]:
    """Stable-Baselines3's DummyVecEnv, without the Monitor wrapper that its own helper adds."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    return _sb3(setting.actions, DummyVecEnv([lambda: _gymnasium(setting.task)] * setting.num_envs))


def sb3_subproc(setting: Setting) -> tuple[Step, dict[str, Any]]:
    """Stable-Baselines3's SubprocVecEnv: one process an environment, as it is built."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    make = [lambda: _gymnasium(setting.task)] * setting.num_envs
    return _sb3(setting.actions, SubprocVecEnv(make, start_method="fork"))


def raw(setting: Setting) -> tuple[Step, dict[str, Any]]:
    """`mujoco.batch.Batch` alone: controls in, `frame_skip` substeps, no observation, no reward.

    Rows are reset when the same rows of the native environment finish under the same actions, so that both simulate
    the same mixture of standing, falling and lying bodies. Ant and Humanoid include the pass that computes contact
    forces, as their observations need it.
    """
    import mujoco
    from mujoco.batch import Batch

    resets = _reset_schedule(setting)
    env, num_envs = _gymnasium(setting.task).unwrapped, setting.num_envs
    model, forces = env.model, setting.task in ("Ant", "Humanoid")
    batch = Batch(model, num_envs, setting.threads, persistent=forces)
    rng = np.random.default_rng(1)
    data = mujoco.MjData(model)

    def reset(rows: NDArray[np.int64]) -> None:
        batch.reset(rows, stage=mujoco.mjtStage.mjSTAGE_NONE)
        noise = env._reset_noise_scale
        batch.qpos[rows] = env.init_qpos + rng.uniform(-noise, noise, (len(rows), model.nq))
        batch.qvel[rows] = env.init_qvel + rng.uniform(-noise, noise, (len(rows), model.nv))
        batch.forward(rows)

    def step(k: int) -> int:
        batch.ctrl[:] = setting.actions[k % POOL]
        batch.step(nstep=env.frame_skip)
        if forces:
            for row in range(num_envs):
                batch.get_data(row, data)
                mujoco.mj_rnePostConstraint(model, data)
        if len(rows := resets[k]):
            reset(rows)
        return num_envs

    reset(np.arange(num_envs))
    return step, {}


def _reset_schedule(setting: Setting) -> list[NDArray[np.int64]]:
    """The rows of the native environment that finish at each step."""
    env = _native(setting)
    env.reset()
    schedule = []
    for k in range(setting.steps):
        _, _, terminated, truncated, _ = env.step(setting.actions[k % POOL].astype(env.single_action_space.dtype))
        schedule.append(np.flatnonzero(terminated | truncated))
    return schedule


ARMS = {"robotrl": robotrl, "envpool": envpool, "sb3_dummy": sb3_dummy, "sb3_subproc": sb3_subproc, "raw": raw}


def main() -> None:
    """The command of the sub-process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=sorted(ARMS), required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000, help="vector steps that are timed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    actions = random_actions(options.task, options.num_envs, options.seed)
    setting = Setting(options.task, options.num_envs, options.threads, WARM_UP + options.steps, actions)
    step, facts = ARMS[options.arm](setting)
    for k in range(WARM_UP):
        step(k)
    start, transitions = time.perf_counter(), 0
    for k in range(WARM_UP, setting.steps):
        transitions += step(k)
    print(json.dumps({"env_steps": transitions, "wall_s": time.perf_counter() - start, **facts}))


if __name__ == "__main__":
    main()
