"""Gymnasium's eleven MuJoCo v5 tasks on one thread pool: many simulations of a model, seen as arrays."""

from __future__ import annotations

from typing import Any

from robotrl.envs.native.options import task_from_options
from robotrl.envs.native.tasks import TASKS
from robotrl.envs.native.vector_env import NativeVectorEnv

__all__ = ["TASKS", "NativeVectorEnv", "make"]


def make(
    id: str,
    *,
    num_envs: int = 1,
    num_threads: int | None = None,
    copy: bool = True,
    randomise: Any = None,
    max_episode_steps: int | None = -1,
    **options: Any,
) -> NativeVectorEnv:
    """The factory behind the native names of `robotrl.envs.make_vec`.

    Args:
        id: a name in `TASKS`.
        num_envs: simulations.
        num_threads: simulation threads; None: one per core this process may use.
        copy: return fresh arrays; without, they are overwritten by the next step.
        randomise: see `robotrl.envs.randomise`.
        max_episode_steps: control steps after which an episode is truncated; None: never; -1: as Gymnasium registers.
        options: the task's own, as in Gymnasium's constructor.

    Raises:
        RobotRLError: an unknown option or a value of another type.
    """
    task = task_from_options(id, TASKS[id], options)
    limit = task.max_episode_steps if max_episode_steps == -1 else max_episode_steps
    return NativeVectorEnv(
        id, task, num_envs=num_envs, num_threads=num_threads, copy=copy, max_episode_steps=limit, randomise=randomise
    )
