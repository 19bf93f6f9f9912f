"""Adversarial imitation as functions: discriminator losses, gradient penalty, absorbing states, boosting weights.

A discriminator sees pairs `[B, K + 1]`: what the policy sees of the observation, the action, and an indicator that is 1
in the absorbing state alone, which every termination leads to and where all else is 0 (Kostrikov et al. 2019, sec. 4).
It is one point, so it is judged once a batch and counts as often as terminations lead there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean of `values [B]` in which each counts as its `weight [B]` says."""
    return (values * weight).sum() / weight.sum()


def cross_entropy_loss(expert: Tensor, policy: Tensor, expert_weight: Tensor, policy_weight: Tensor) -> Tensor:
    """Binary cross-entropy of logits `[B]`, experts' labelled 1: its minimum is `log(d_expert / d_policy)`.

    The sum of both sides' means, as in GAIL (Ho and Ermon 2016, eq. 17) and DAC (Kostrikov et al. 2019, eq. 4).
    """
    return weighted_mean(F.softplus(-expert), expert_weight) + weighted_mean(F.softplus(policy), policy_weight)


def reverse_kl_loss(expert: Tensor, policy: Tensor, expert_weight: Tensor, policy_weight: Tensor) -> Tensor:
    """`E_expert[exp(-D)] + E_policy[D]`: its minimum is `log(d_expert / d_policy)` as well.

    The variational form of KL(d_policy || d_expert) with `g = -D` (Chang et al. 2024). Neither term is a function of an
    expectation, so minibatches give unbiased gradients.
    """
    return weighted_mean(torch.exp(-expert), expert_weight) + weighted_mean(policy, policy_weight)


def absorbing_pair(pairs: Tensor) -> Tensor:
    """The absorbing state as a pair `[1, K + 1]`, of the kind of `pairs`."""
    pair = pairs.new_zeros(1, pairs.shape[-1])
    pair[:, -1] = 1.0
    return pair


def with_absorbing(pairs: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs `[B, K + 1]` with the absorbing one behind them, and how often each counts: `[B + 1, K + 1]`, `[B + 1]`.

    Every termination adds one step in the absorbing state, so the last weight is their number (maybe 0), the others 1.
    """
    weight = pairs.new_ones(len(pairs) + 1)
    weight[-1] = terminated.sum()
    return torch.cat([pairs, absorbing_pair(pairs)]), weight


def interpolates(expert: Tensor, policy: Tensor, expert_ends: Tensor, policy_ends: Tensor) -> Tensor:
    """Random points `[B, K + 1]` on the lines between the pairs of two batches (Gulrajani et al. 2017, sec. 4).

    A pair that ends in termination (`ends [B]`) is followed by the absorbing one, so half of those stand for it.
    """
    expert, policy = _some_absorbing(expert, expert_ends), _some_absorbing(policy, policy_ends)
    return torch.lerp(policy, expert, torch.rand(len(expert), 1, device=expert.device))


def _some_absorbing(pairs: Tensor, terminated: Tensor) -> Tensor:
    swap = terminated & (torch.rand(len(pairs), device=pairs.device) < 0.5)
    return torch.where(swap.unsqueeze(-1), absorbing_pair(pairs), pairs)


def gradient_penalty(gradient: Tensor, terminations: Tensor) -> Tensor:
    """Mean of `(|gradient| - 1)^2` over `[B, K + 1]`, gradients of the discriminator at `interpolates`.

    The indicator's direction counts only where there were `terminations` (a number, maybe 0): in a task that never
    terminates it holds no data, and a slope along it would meet the penalty for nothing.
    """
    squares = gradient[:, :-1].square().sum(-1) + gradient[:, -1].square() * (terminations > 0)
    return (torch.sqrt(squares + 1e-12) - 1.0).square().mean()


def boosting_weights(count: int, rate: float) -> Tensor:
    """Weights `[count]` float64 of a mixture grown by `d <- (1 - rate) d + rate d_new`; they sum to 1.

    In closed form `(1 - rate)^(count - 1)` for the first, `rate (1 - rate)^(count - j)` for the j-th after it.
    """
    age = torch.arange(count - 1, -1, -1, dtype=torch.float64)
    weights = rate * (1.0 - rate) ** age
    weights[:1] = (1.0 - rate) ** (count - 1)
    return weights
