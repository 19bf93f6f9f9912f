"""`policy=expert`: the scripted expert of an env, where there is one."""

from __future__ import annotations

from typing import Any

from robotrl.types import EnvSpec, Policy


def expert_for(config: Any, spec: EnvSpec) -> Policy:
    """The expert for the env `spec`.

    Args:
        config: settings of that expert; None: its defaults.
        spec: of the env.

    Raises:
        RobotRLError: there is none for that env.
    """
    if spec.id.startswith("lock/"):
        from robotrl.envs.lock.expert import LockExpert

        return LockExpert(config, spec)
    from robotrl.envs.tabletop.experts import Expert

    return Expert(config, spec)


__all__ = ["expert_for"]
