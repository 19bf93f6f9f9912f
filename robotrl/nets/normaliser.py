"""Running mean and variance of observations, held by the policy so that what ships is what trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """`(x - mean) / std`, clipped to `[-clip, clip]`; statistics in float64, merged by Chan et al. (1979), eq. 2.1.

    It changes only by `merge`; a learner gathers `moments` of fresh data and merges them after its last update, so
    that stored log-probabilities stay those of the acting policy.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, dim: int, clip: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("var", torch.ones(dim, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.clip = clip
        self._shift, self._scale = torch.zeros(dim), torch.ones(dim)
        self.register_load_state_dict_post_hook(lambda module, _: module._refresh())

    def _refresh(self) -> None:
        self._scale = torch.rsqrt(self.var + 1e-8).float()
        self._shift = self.mean.float()

    def _apply(self, *args: Any, **kwargs: Any) -> Normaliser:
        super()._apply(*args, **kwargs)
        self._refresh()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[..., dim]` float32."""
        return torch.sub(x, self._shift).mul_(self._scale).clamp_(-self.clip, self.clip)

    def inverse(self, x: Tensor) -> Tensor:
        """What `forward` takes to `x [..., dim]`, where nothing was clipped."""
        return torch.addcdiv(self._shift, x, self._scale)

    @staticmethod
    def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and sum of squared deviations of the rows of `[..., dim]`, float64."""
        rows = x.reshape(-1, x.shape[-1]).double()
        mean = rows.mean(0)
        return torch.tensor(float(rows.shape[0]), dtype=torch.float64), mean, (rows - mean).square().sum(0)

    @torch.no_grad()
    def merge(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        """Take in the moments of new data."""
        total = self.count + count
        delta = mean - self.mean
        squares = squares + self.var * self.count + delta.square() * (self.count * count / total)
        self.mean += delta * (count / total)
        self.var.copy_(squares / total)
        self.count.copy_(total)
        self._refresh()
