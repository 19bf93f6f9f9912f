"""Surrogate objectives of policy gradients, with their gradients in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.jit.script
def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip_ratio: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate objective (Schulman et al. 2017, eq. 7) as a loss to descend.

    Args:
        log_ratio: `[...]`, log-probability of the action now less that under the policy that acted.
        advantage: `[...]`.
        clip_ratio: how far from one the ratio may count.

    Returns:
        The loss, minus the mean of the pessimistic bound, and its gradient by the log-probabilities `[...]`.
    """
    ratio = log_ratio.exp()
    plain = ratio * advantage
    bounded = ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio) * advantage
    # the bound has the plain surrogate's gradient where it is that, and none where it is clipped
    gradient = plain * (plain <= bounded) * (-1.0 / plain.numel())
    return -torch.min(plain, bounded).mean(), gradient
