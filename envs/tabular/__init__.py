"""Small tasks with finitely many states: what a method does can be counted exactly, and an hour is a second."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from robotrl.envs.tabular.tasks import TASKS, Table
from robotrl.envs.tabular.vector_env import TabularVectorEnv
from robotrl.types import RobotRLError


def make(
    env_id: str, *, num_envs: int, num_threads: int | None = None, copy: bool = True, **options: Any
) -> TabularVectorEnv:
    """`num_envs` environments of the task named `env_id`.

    Args:
        env_id: a key of `robotrl.envs.tabular.tasks.TASKS`.
        num_envs: how many run side by side.
        num_threads: not read: a step is one look into a table.
        copy: return fresh observation arrays.
        options: the task's own, and `max_episode_steps` (None: no limit).

    Raises:
        RobotRLError: an option that the task does not have, or a value that makes no sense.
    """
    limit = {"max_episode_steps": options.pop("max_episode_steps")} if "max_episode_steps" in options else {}
    task = TASKS[env_id]
    known = [f.name for f in fields(task)]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, "max_episode_steps"], n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            has = ", ".join([*known, "max_episode_steps"])
            raise RobotRLError(f"{env_id} has no option '{name}'.{hint} It has: {has}.")
    return TabularVectorEnv(env_id, task(**options).table(), num_envs=num_envs, copy=copy, **limit)


def table_of(env_id: str, **options: Any) -> Table:
    """The task as arrays, for exact computations."""
    return TASKS[env_id](**options).table()


__all__ = ["make", "table_of"]
