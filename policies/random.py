"""The policy that knows nothing: a floor for comparisons, and data that cover the action space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robotrl.types import EnvSpec, Extras, Obs, State


class RandomPolicy:
    """Draws actions uniformly within the env's bounds (within [-1, 1] where there are none), by torch's generator.

    Args:
        config: not read.
        spec: of the env.
    """

    obs_groups: tuple[str, ...] = ()

    def __init__(self, config: Any, spec: EnvSpec) -> None:
        self.spec, action = spec, spec.action
        if action.kind == "continuous":
            self._low = torch.tensor(action.low).clamp(min=-1e9).reshape(action.shape)
            self._high = torch.tensor(action.high).clamp(max=1e9).reshape(action.shape)
            self._low = torch.where(self._low <= -1e9, -1.0, self._low)
            self._high = torch.where(self._high >= 1e9, 1.0, self._high)

    def initial_state(self, num_envs: int) -> State:
        """How many rows there are: a policy that reads nothing would not know."""
        return {"row": torch.arange(num_envs)}

    def reset_state(self, state: State, done: Tensor) -> State:
        """Nothing to forget."""
        return state

    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; no extras. `explore` makes no difference."""
        rows = len(state["row"])
        if self.spec.action.kind == "discrete":
            return torch.randint(self.spec.action.num_actions, (rows,)), {}, state
        share = torch.rand(rows, *self.spec.action.shape)
        return self._low + share * (self._high - self._low), {}, state


__all__ = ["RandomPolicy"]
