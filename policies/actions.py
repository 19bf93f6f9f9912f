"""Between a policy's numbers and an environment's actions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robotrl.types import ActionSpec


class ActionMap(nn.Module):
    """Maps [-1, 1] onto the env's bounds and clips there; identity where a bound is infinite; indices pass through."""

    low: Tensor
    high: Tensor
    _scale: Tensor
    _centre: Tensor

    def __init__(self, action: ActionSpec) -> None:
        super().__init__()
        self.continuous = action.kind == "continuous"
        self.shape = tuple(action.shape)
        self.dim = math.prod(action.shape) if self.continuous else action.num_actions
        low, high = torch.tensor(action.low).reshape(-1), torch.tensor(action.high).reshape(-1)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("_scale", torch.where(bounded, (high - low) / 2, 1.0), persistent=False)
        self.register_buffer("_centre", torch.where(bounded, (high + low) / 2, 0.0), persistent=False)

    def to_env(self, raw: Tensor) -> Tensor:
        """Raw `[..., dim]` to env units `[..., *shape]`, inside the bounds."""
        if not self.continuous:
            return raw
        action = torch.addcmul(self._centre, raw, self._scale).clamp(self.low, self.high)
        return action if len(self.shape) == 1 else action.reshape(*raw.shape[:-1], *self.shape)

    def from_env(self, action: Tensor) -> Tensor:
        """The inverse of `to_env` inside the bounds: env units `[..., *shape]` to `[..., dim]`."""
        if not self.continuous:
            return action
        flat = action if len(self.shape) == 1 else action.flatten(action.dim() - len(self.shape))
        return (flat - self._centre) / self._scale
