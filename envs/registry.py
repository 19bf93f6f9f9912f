"""Names to environments: an env factory is `(id, *, num_envs, num_threads, copy, **options) -> VectorEnv`.

A name that ends in `<...>` is a family: `gym/<id>` makes every id that starts with `gym/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robotrl.registry import Registry
from robotrl.types import RobotRLError

_NATIVE = "robotrl.envs.native:make"
_TABLETOP = "robotrl.envs.tabletop:make"
_LOCK = "robotrl.envs.lock:make"
_TABULAR = "robotrl.envs.tabular:make"

_TABLETOP_TASKS = (
    "close_door", "close_drawer", "gather", "insert", "open_door", "open_drawer", "pick", "place", "press", "push",
    "reach", "sort", "stack", "store", "tower",
)  # fmt: skip

environments = Registry(
    "env",
    {
        "Ant-v5": _NATIVE,
        "GridWorld": _TABULAR,
        "HalfCheetah-v5": _NATIVE,
        "Hopper-v5": _NATIVE,
        "Humanoid-v5": _NATIVE,
        "HumanoidStandup-v5": _NATIVE,
        "InvertedDoublePendulum-v5": _NATIVE,
        "InvertedPendulum-v5": _NATIVE,
        "Pusher-v5": _NATIVE,
        "Reacher-v5": _NATIVE,
        "Swimmer-v5": _NATIVE,
        "TwoStep": _TABULAR,
        "Walker2d-v5": _NATIVE,
        "dmc/<domain>-<task>": "robotrl.envs.dm_control_adapter:make",
        "gym/<id>": "robotrl.envs.gymnasium_adapter:make",
        "lock/combination": _LOCK,
        "lock/images": _LOCK,
        **{f"tabletop/{task}": _TABLETOP for task in _TABLETOP_TASKS},
    },
)


def factory(env_id: str) -> Callable[..., Any]:
    """The factory that makes `env_id`: the one of that name, or of the family whose prefix it carries.

    Raises:
        RobotRLError: no env of that name; the nearest names are suggested.
    """
    if env_id not in environments:
        for name in environments.names():
            prefix = name.partition("<")[0]
            if prefix != name and env_id.startswith(prefix):
                return _callable(environments.get(name), name)
    return _callable(environments.get(env_id), env_id)


def _callable(target: Any, name: str) -> Callable[..., Any]:
    if not callable(target):
        raise RobotRLError(f"The env '{name}' is registered as {target!r}, which is no factory. Register a callable.")
    return target
