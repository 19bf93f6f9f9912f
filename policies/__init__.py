"""What acts, in training and on the robot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robotrl.registry import policies
from robotrl.types import EnvSpec, RobotRLError

if TYPE_CHECKING:
    from robotrl.policies.config import PolicyConfig
    from robotrl.policies.stochastic import StochasticPolicy


def build_policy(config: PolicyConfig, spec: EnvSpec) -> StochasticPolicy:
    """The policy that `config.kind` names, untrained, for environments like `spec`.

    Raises:
        RobotRLError: unknown kind, or one that does not fit the observations.
    """
    from dataclasses import replace

    from robotrl.nets.network import is_image

    images = any(is_image(s) for s in spec.obs.values())
    if config.kind == "auto":
        config = replace(config, kind="cnn" if images else "mlp")
    elif config.kind == "cnn" and not images:
        raise RobotRLError(
            f"policy=cnn needs images, but {spec.id} has only {sorted(spec.obs)}. "
            "Use policy=mlp, or add images with env.pixels.height=64 env.pixels.width=64."
        )
    policy: StochasticPolicy = policies.get(config.kind)(config, spec)
    return policy


__all__ = ["build_policy"]
