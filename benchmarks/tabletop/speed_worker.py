"""Measures one way of stepping a tabletop task, in a process of its own, and prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs import make_vec
from robotrl.envs.config import EnvConfig, PixelsConfig, build_env
from robotrl.envs.tabletop.vector_env import RAMP, TabletopVectorEnv

WARM_UP = 5
Actions = list[NDArray[np.float32]]


def random_actions(env: Any, steps: int, seed: int) -> Actions:
    """Uniform within the bounds."""
    rng, space = np.random.default_rng(seed), env.action_space
    return [rng.uniform(space.low, space.high).astype(np.float32) for _ in range(steps)]


def timed(step: Callable[[int], None], steps: int) -> float:
    """Seconds of `steps` calls after the warm-up."""
    for k in range(WARM_UP):
        step(k)
    start = time.perf_counter()
    for k in range(WARM_UP, WARM_UP + steps):
        step(k)
    return time.perf_counter() - start


def robotrl(task: str, num_envs: int, steps: int, seed: int) -> dict[str, Any]:
    """The environment as it is made by default, but with 2 threads."""
    env = make_vec(f"tabletop/{task}", num_envs=num_envs, num_threads=2)
    actions = random_actions(env, steps + WARM_UP, seed)
    env.reset(seed=seed)
    wall_s = timed(lambda k: env.step(actions[k]) and None, steps)
    return {"wall_s": wall_s, "made": steps * num_envs, "env_steps": steps * num_envs}


def raw(task: str, num_envs: int, steps: int, seed: int) -> dict[str, Any]:
    """The simulator alone under the controls that the environment gave, recorded beforehand."""
    env = make_vec(f"tabletop/{task}", num_envs=num_envs, num_threads=2)
    assert isinstance(env, TabletopVectorEnv)
    controls, starts, first, last = _record(env, random_actions(env, steps + WARM_UP, seed), seed)
    batch = Batch(env.model, num_envs, 2)
    batch.state[:] = first
    ctrl, substeps = batch.bind("ctrl"), env.substeps
    counts = [substeps * (part + 1) // RAMP - substeps * part // RAMP for part in range(RAMP)]

    def step(k: int) -> None:
        for part in range(RAMP):
            ctrl[:] = controls[k, part]
            batch.step(nstep=counts[part])
        if k in starts:
            rows, states = starts[k]
            batch.state[rows] = states

    wall_s = timed(step, steps)
    if not np.array_equal(batch.state, last):
        raise RuntimeError("the simulator alone ended in another state than the environment: they are not comparable")
    return {"wall_s": wall_s, "made": steps * num_envs, "env_steps": steps * num_envs}


def _record(env: TabletopVectorEnv, actions: Actions, seed: int) -> tuple[Any, dict[int, Any], Any, Any]:
    """Controls `[steps, RAMP, N, 8]`, the states of rows that started anew by step, first and last states."""
    controls = np.empty((len(actions), RAMP, env.num_envs, env.model.nu))
    starts: dict[int, Any] = {}
    env.reset(seed=seed)
    first, bound, simulate = env.batch.state.copy(), env.batch.bind("ctrl"), env.batch.step
    at = 0

    def recorded(**options: Any) -> None:
        nonlocal at
        controls[at // RAMP, at % RAMP] = bound
        at += 1
        simulate(**options)

    env.batch.step = recorded
    for k, action in enumerate(actions):
        infos = env.step(action)[4]
        if "_final_obs" in infos:
            rows = np.flatnonzero(infos["_final_obs"])
            starts[k] = (rows, env.batch.state[rows].copy())
    return controls, starts, first, env.batch.state.copy()


def pictures(task: str, num_envs: int, steps: int, seed: int) -> dict[str, Any]:
    """The environment with 64x64 pictures of both cameras."""
    config = EnvConfig(id=f"tabletop/{task}", pixels=PixelsConfig(cameras=["front", "wrist"], replace_state=False))
    env = build_env(config, num_envs=num_envs, num_threads=2)
    actions = random_actions(env, steps + WARM_UP, seed)
    env.reset(seed=seed)
    wall_s = timed(lambda k: env.step(actions[k]) and None, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    env.close()
    return {"wall_s": wall_s, "made": 2 * steps * num_envs, "env_steps": steps * num_envs, "peak_gb": peak}


ARMS = {"robotrl": robotrl, "raw": raw, "pictures": pictures}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument("--task", required=True)
    for name in ("num-envs", "steps", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    a = parser.parse_args()
    print(json.dumps(ARMS[a.arm](a.task, a.num_envs, a.steps, a.seed)))


if __name__ == "__main__":
    main()
