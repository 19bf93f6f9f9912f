"""Log-probabilities, entropies and divergences in closed form; every function reduces over the last axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian. `x`, `mean` `[..., A]`, `log_std` `[A]` or `[..., A]`; returns `[...]`."""
    z = (x - mean) * torch.exp(-log_std)
    return -0.5 * z.square().sum(-1) - (log_std + _HALF_LOG_2PI).sum(-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy in nats of a diagonal Gaussian, `[..., A] -> [...]`."""
    return (log_std + (0.5 + _HALF_LOG_2PI)).sum(-1)


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians, `[..., A] -> [...]`."""
    ratio = torch.exp(2.0 * (log_std_p - log_std_q))
    shift = ((mean_p - mean_q) * torch.exp(-log_std_q)).square()
    return 0.5 * (ratio + shift - 1.0 - 2.0 * (log_std_p - log_std_q)).sum(-1)


def categorical_log_prob(action: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of integer actions `[...]` under `logits [..., K]`."""
    return torch.log_softmax(logits, -1).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats, `[..., K] -> [...]`."""
    log_prob = torch.log_softmax(logits, -1)
    return -(log_prob.exp() * log_prob).sum(-1)
