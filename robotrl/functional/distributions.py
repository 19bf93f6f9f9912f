"""Log-probabilities, entropies and divergences in closed form; every function reduces over the last axis."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class _GaussianLogProb(torch.autograd.Function):
    """One autograd node instead of ten: at minibatch sizes the nodes cost more than their arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """Keep the standardised deviations."""
        inverse_std = torch.exp(-log_std)
        z = (x - mean) * inverse_std
        ctx.save_for_backward(x, mean, log_std, z, inverse_std)
        return z.square().sum(-1).mul_(-0.5).sub_((log_std + _HALF_LOG_2PI).sum(-1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """d/dmean = z / std, d/dx = -z / std, d/dlog_std = z^2 - 1, summed where an argument was broadcast."""
        x, mean, log_std, z, inverse_std = ctx.saved_tensors
        if torch.is_grad_enabled():  # asked for with create_graph: these must be differentiable again
            z, inverse_std = (x - mean) * torch.exp(-log_std), torch.exp(-log_std)
        weighted = grad.unsqueeze(-1) * z
        scaled = weighted * inverse_std
        wanted = ctx.needs_input_grad
        return (
            -scaled.sum_to_size(x.shape) if wanted[0] else None,
            scaled.sum_to_size(mean.shape) if wanted[1] else None,
            (weighted * z - grad.unsqueeze(-1)).sum_to_size(log_std.shape) if wanted[2] else None,
        )


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian. `x`, `mean` `[..., A]`, `log_std` `[A]` or `[..., A]`; returns `[...]`."""
    result: Tensor = _GaussianLogProb.apply(x, mean, log_std)  # type: ignore[no-untyped-call]  # torch has no types for it
    return result


def squash_correction(raw: Tensor) -> Tensor:
    """`sum log(1 - tanh(raw)^2)`, which tanh subtracts from a log-density; `[..., A] -> [...]`.

    Written as `2 (log 2 - raw - softplus(-2 raw))`: the plain form is `log 0` from |raw| = 9 on, in float32.
    """
    return 2.0 * (math.log(2.0) - raw - torch.nn.functional.softplus(-2.0 * raw)).sum(-1)


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


def categorical_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p || q) of categorical distributions, `[..., K] -> [...]`."""
    log_p, log_q = torch.log_softmax(logits_p, -1), torch.log_softmax(logits_q, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def project_categorical(chances: Tensor, values: Tensor, limit: float) -> Tensor:
    """A distribution over any values as one over even bins with the same mean (Bellemare et al. 2017, eq. 7).

    Each value gives its probability to the two bins next to it, by nearness; values beyond the bins go to the last one.

    Args:
        chances: `[B, K]`, sums to 1.
        values: `[B, K]`, what each of them is worth.
        limit: the K bins reach from minus to plus this.

    Returns:
        `[B, K]`, sums to 1.
    """
    last = chances.shape[-1] - 1
    place = (values.clamp(-limit, limit) + limit) * (last / (2.0 * limit))
    lower = place.floor().clamp_(0, last - 1)
    upper_share = place - lower
    index = lower.long()
    projected = torch.zeros_like(chances).scatter_add_(-1, index, chances * (1.0 - upper_share))
    return projected.scatter_add_(-1, index + 1, chances * upper_share)
