"""Advantages and returns over time-major rollouts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robotrl.types import Batch


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), right at both kinds of episode end.

    A terminated step has no future: its target is the reward alone. A truncated step bootstraps with the value of the
    observation before the reset; only the sum over later steps stops there.

    Args:
        reward: `[T, N]`.
        value: `[T, N]`, V(obs).
        next_value: `[T, N]`, V(next_obs), next_obs being the observation before any reset.
        terminated: `[T, N]` bool.
        truncated: `[T, N]` bool.
        gamma: discount.
        gae_lambda: trace decay.

    Returns:
        Advantages `[T, N]`; add `value` for the lambda-returns.
    """
    delta = reward + gamma * next_value * ~terminated - value
    decay = (~(terminated | truncated)).to(delta.dtype) * (gamma * gae_lambda)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        running = torch.addcmul(delta[t], decay[t], running)
        advantage[t] = running
    return advantage


def discounted_sums(reward: Tensor, done: Tensor, start: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Running discounted sum of past rewards, G_t = gamma G_{t-1} + r_t, zero again after each episode's end.

    Args:
        reward: `[T, N]`.
        done: `[T, N]` bool, the union of terminated and truncated.
        start: `[N]`, the sums before the first step.
        gamma: discount.

    Returns:
        The sums `[T, N]` and the sums to start the next rollout from `[N]`.
    """
    sums = torch.empty_like(reward)
    running = start
    for t in range(reward.shape[0]):
        running = gamma * running + reward[t]
        sums[t] = running
        running = running * ~done[t]
    return sums, running


def n_step(reward: Tensor, terminated: Tensor, valid: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Discounted rewards of windows, and what the value after their last valid step is multiplied by.

    Args:
        reward: `[T, B]`.
        terminated: `[T, B]` bool.
        valid: `[T, B]` bool, true up to the last step of a window; from there on the last step is repeated.
        gamma: discount.

    Returns:
        The sum of `gamma^t reward[t]` over valid steps `[B]`, and `gamma^length`, zero for a window that ends in
        termination, `[B]`.
    """
    powers = gamma ** torch.arange(len(reward), device=reward.device, dtype=reward.dtype)
    length = valid.sum(0)
    return (powers.unsqueeze(1) * reward * valid).sum(0), (gamma ** length.to(reward.dtype)) * ~terminated[-1]


def bellman_rows(part: Batch, steps: int, gamma: float, unit_action: Callable[[Tensor], Tensor]) -> Batch:
    """What a Bellman target of a critic that sees scaled actions needs of a part.

    Args:
        part: transitions `[B, ...]` for one step, else sequences `[steps, B, ...]` within an episode, with `valid`.
        steps: rewards that are summed before the target bootstraps.
        gamma: discount.
        unit_action: env actions to units where the bounds are [-1, 1]; what lies outside is clipped.

    Returns:
        `obs/*`, `next_obs/*` after the last step, `reward` (the discounted sum), `discount` of what follows (zero after
        a termination) and `unit_action`, `[B, ...]` each.
    """
    one = steps == 1
    if one:
        reward, discount = part["reward"], gamma * ~part["terminated"]
    else:
        reward, discount = n_step(part["reward"], part["terminated"], part["valid"], gamma)
    rows = {k: v if one else v[0] for k, v in part.items() if k.startswith("obs/")}
    rows |= {k: v if one else v[-1] for k, v in part.items() if k.startswith("next_obs/")}
    action = unit_action(part["action"] if one else part["action"][0])
    return rows | {"reward": reward, "discount": discount, "unit_action": action.clamp(-1.0, 1.0)}


def lambda_returns(reward: Tensor, discount: Tensor, value: Tensor, bootstrap: Tensor, trace: Tensor | float) -> Tensor:
    """Lambda-returns (Sutton and Barto 2018, eq. 12.20), `R_t = r_t + d_t ((1 - l) v_{t+1} + l R_{t+1})`.

    All arguments belong to the step from t to t+1, so that nothing is shifted in here.

    Args:
        reward: `[T, ...]`, received on arriving at t+1.
        discount: `[T, ...]`, gamma times the probability that the episode goes on at t+1.
        value: `[T, ...]`, v_{t+1}, the value on arriving at t+1.
        bootstrap: `[...]`, R_T, what the last step continues with.
        trace: lambda, or `[T, ...]` where it differs, 0 where a sequence is cut.

    Returns:
        R_t, `[T, ...]`.
    """
    keep = discount * trace
    base = torch.addcmul(reward, discount - keep, value)
    out = torch.empty_like(base)
    running = bootstrap
    for t in range(base.shape[0] - 1, -1, -1):
        running = torch.addcmul(base[t], keep[t], running)
        out[t] = running
    return out
