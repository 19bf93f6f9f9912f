"""The world model behind a saved policy."""

from __future__ import annotations

from pathlib import Path

import torch

from robotrl.policies.io import load_policy, read_beside
from robotrl.policies.rssm import RSSMPolicy
from robotrl.types import RobotRLError
from robotrl.world_models import WorldModel


def load_world_model(path: str | Path) -> tuple[RSSMPolicy, WorldModel]:
    """A policy that Dreamer trained, from its directory or its run's, and the world model on the same perception.

    Raises:
        RobotRLError: there is no policy, it has no world model, or the model's file is missing or damaged.
    """
    policy = load_policy(path)
    if not isinstance(policy, RSSMPolicy):
        raise RobotRLError(
            f"{path} holds a policy={policy.config.kind}, which has no world model that could imagine; learner=dreamer "
            "trains one that has."
        )
    with torch.device("meta"):
        expected = WorldModel(policy.perception).rest()
    model = WorldModel(policy.perception)
    model.load_rest(read_beside(path, "world_model", expected))
    return policy, model.eval()


__all__ = ["load_world_model"]
