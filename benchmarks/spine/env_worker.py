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
Facts = dict[str, Any]
"""What else a worker reports."""
Array = NDArray[Any]

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
    actions: Array
    """`[POOL, num_envs, action size]`."""


def _gymnasium(task: str) -> Any:
    import gymnasium

    return gymnasium.make(f"{task}-v5", disable_env_checker=True)


def random_actions(task: str, num_envs: int, seed: int) -> Array:
    """`[POOL, num_envs, action size]`, uniform within the task's bounds."""
    space = _gymnasium(task).action_space
    rng = np.random.default_rng(seed)
    return rng.uniform(space.low, space.high, (POOL, num_envs, *space.shape))


def robotrl(setting: Setting) -> tuple[Step, Facts]:
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


def envpool(setting: Setting) -> tuple[Step, Facts]:
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


def _contact_forces(task: str, env: Any, pool: list[Array]) -> bool | None:
    """Whether the last 78 observations (forces on 13 bodies) ever differ from zero; None: the task has none."""
    if task not in ("Ant", "Humanoid"):
        return None
    largest = max(float(np.abs(env.step(pool[k % POOL])[0][:, -78:]).max()) for k in range(50))
    return largest > 0


def _sb3(actions: Array, env: Any) -> tuple[Step, Facts]:
    env.reset()
    pool = list(actions.astype(env.action_space.dtype))

    def step(k: int) -> int:
        env.step(pool[k % POOL])
        return actions.shape[1]

    return step, {}


def sb3_dummy(setting: Setting) -> tuple[Step, Facts]:
    """Stable-Baselines3's DummyVecEnv, without the Monitor wrapper that its own helper adds."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    return _sb3(setting.actions, DummyVecEnv([lambda: _gymnasium(setting.task)] * setting.num_envs))


def sb3_subproc(setting: Setting) -> tuple[Step, Facts]:
    """Stable-Baselines3's SubprocVecEnv: one process an environment, as it is built."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    make = [lambda: _gymnasium(setting.task)] * setting.num_envs
    return _sb3(setting.actions, SubprocVecEnv(make, start_method="fork"))


def raw(setting: Setting) -> tuple[Step, Facts]:
    """The batch of simulations alone: controls in, `frame_skip` substeps, no observation, no reward.

    The native environment runs first, untimed, under the same actions; when a row of it started a new episode, raw's
    row is set to the same state. So both simulate the very same standing, falling and lying bodies. Ant and Humanoid
    include the pass that computes contact forces, done as the native environment does it, on the batch's threads.
    """
    native = _native(setting)
    first, starts, last = _episode_starts(native, setting)
    forces = setting.task in ("Ant", "Humanoid")
    batch, skip = type(native.batch)(native.model, setting.num_envs, setting.threads), native.task.frame_skip
    batch.state[:] = first
    pool, ctrl = list(setting.actions.astype(np.float32)), batch.bind("ctrl")

    def step(k: int) -> int:
        ctrl[:] = pool[k % POOL]
        batch.step(nstep=skip)
        if forces:
            batch.contact_forces()
        rows, states = starts[k]
        if len(rows):
            batch.state[rows] = states
        if k == setting.steps - 1 and not np.array_equal(batch.state, last):
            raise RuntimeError("raw stepping went another way than the native environment: it is no bound for it")
        return setting.num_envs

    return step, {}


def _episode_starts(env: Any, setting: Setting) -> tuple[Array, list[tuple[Array, Array]], Array]:
    """The native env's states at the start, the rows that start anew after each step with their states, and the end."""
    env.reset()
    first, starts = env.batch.state.copy(), []
    for k in range(setting.steps):
        _, _, terminated, truncated, _ = env.step(setting.actions[k % POOL].astype(env.single_action_space.dtype))
        rows = np.flatnonzero(terminated | truncated)
        starts.append((rows, env.batch.state[rows].copy()))
    return first, starts, env.batch.state.copy()


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
