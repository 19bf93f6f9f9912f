"""Who knows the combination: a demonstrator for locks, and the maker of the offline data of the paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robotrl.envs.lock import PREFIX
from robotrl.types import EnvSpec, Extras, Obs, RobotRLError, State


class LockExpert:
    """Plays the right action, as the unit vector of its number.

    Exploring, it does so with probability 1 - 1 / horizon, and else draws each number of the action uniformly from
    [0, 1]: the data of Zhou et al. (2023). In the dead state it plays what would be right in state 1, as there.

    Args:
        config: not read.
        spec: of the env.

    Raises:
        RobotRLError: it is no lock, or lacks the group `privileged`.
    """

    obs_groups: tuple[str, ...] = ("privileged",)

    def __init__(self, config: Any, spec: EnvSpec) -> None:
        self.spec = spec
        self._actions = spec.action.shape[0] if spec.action.shape else 0
        self.check_env(spec)

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that it can act in `env`.

        Raises:
            RobotRLError: it cannot.
        """
        if not env.id.startswith(PREFIX):
            raise RobotRLError(f"This expert opens locks, but the env is {env.id}.")
        if "privileged" not in env.obs:
            raise RobotRLError("The expert reads privileged, but the env has none of it. Leave env.groups out.")
        if any(high < 1.0 for high in env.action.high):
            raise RobotRLError(
                "The expert's actions reach 1, which is more than env.options.action_bound allows. Set it to 1 or more."
            )

    def initial_state(self, num_envs: int) -> State:
        """Nothing to remember."""
        return {}

    def reset_state(self, state: State, done: Tensor) -> State:
        """Nothing to forget."""
        return state

    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; no extras."""
        right = obs["privileged"][:, 2].long()
        action = torch.nn.functional.one_hot(right, self._actions).float()
        if explore:
            # the horizon is the time limit of a lock that is not cut off before its end
            wild = torch.rand(len(right), 1) < 1.0 / (self.spec.time_limit or 1)
            action = torch.where(wild, torch.rand(len(right), self._actions), action)
        return action, {}, state


__all__ = ["LockExpert"]
