"""Sampling error: how far the actions in a data set are from those of the policy it is meant to stand for.

With pi_D(a|s) the share of the visits to s in the data D at which a was taken, it is

    KL(pi_D || pi) = E_{s, a ~ D} [log pi_D(a|s) - log pi(a|s)]

(Zhong et al. 2022; Corrado and Hanna 2023). It is positive even for perfect sampling, because pi_D fits the noise: for
data of pi itself it falls like (free numbers of pi_D) / (2 |D|). So it says something only beside that of on-policy
data of the same size.

Where states can be counted pi_D is exact. Where they cannot, pi_D is the best fit within a family of policies: those
that differ from pi in the last layer (and the deviation, of a Gaussian). Its features are then fixed, so that the fit
is a linear regression, or a concave problem, with one solution that depends on no learning rate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def counts(state: ArrayLike, action: ArrayLike, num_states: int, num_actions: int) -> Array:
    """How often each action was taken in each state, `[S, A]`, from state and action numbers `[n]`."""
    pairs = np.asarray(state, np.int64) * num_actions + np.asarray(action, np.int64)
    table: Array = np.bincount(pairs.ravel(), minlength=num_states * num_actions).astype(np.float64)
    return table.reshape(num_states, num_actions)


def tabular_sampling_error(table: Array, policy: Array) -> float:
    """KL(pi_D || pi) in nats, exactly.

    Args:
        table: `[S, A]`, what `counts` returns.
        policy: `[S, A]`, probabilities; positive where something was counted.
    """
    visits = table.sum(axis=1, keepdims=True)
    share = table / np.maximum(visits, 1.0)
    taken = table > 0
    return float((table[taken] * np.log(share[taken] / policy[taken])).sum() / table.sum())


def total_variation(table: Array, expected: Array) -> float:
    """Half the sum of |d_D(s, a) - d_pi(s, a)|: how far the visits are from those that pi makes in the long run.

    Args:
        table: `[S, A]`, what `counts` returns.
        expected: `[S, A]`, shares that add up to one, as from `visitation`.
    """
    return float(0.5 * np.abs(table / table.sum() - expected).sum())


def visitation(policy: Array, next_state: NDArray[np.int64], end: NDArray[np.bool_], start: int, limit: int) -> Array:
    """The share of each state and action in the steps of a policy's episodes, `[S, A]`, in a deterministic task.

    Args:
        policy: `[S, A]`, probabilities.
        next_state: `[S, A]`.
        end: `[S]`, reaching it ends the episode.
        start: where episodes begin.
        limit: steps after which an episode is cut off.
    """
    there = np.zeros(len(policy))
    there[start] = 1.0
    total = np.zeros_like(policy)
    for _ in range(limit):
        taken = there[:, None] * policy
        total += taken
        there = np.zeros(len(policy))
        np.add.at(there, next_state, taken)
        there[end] = 0.0
        if not there.any():
            break
    share: Array = total / total.sum()
    return share


def gaussian_sampling_error(features: ArrayLike, action: ArrayLike, mean: ArrayLike, log_std: ArrayLike) -> float:
    """Sampling error of continuous actions in nats; pi_D is the best Gaussian that is linear in the features.

    Args:
        features: `[n, F]`, the input of pi's last layer, with a column of ones if that layer has a bias.
        action: `[n, A]`, before any clipping.
        mean: `[n, A]`, of pi; linear in the features, so that the error is never negative.
        log_std: `[A]`, of pi.
    """
    x, a = np.asarray(features, np.float64), np.asarray(action, np.float64)
    weights = np.linalg.lstsq(x, a, rcond=None)[0]
    fitted = np.square(a - x @ weights).mean(axis=0)
    std = np.exp(np.asarray(log_std, np.float64))
    away = np.square((a - np.asarray(mean, np.float64)) / std).mean(axis=0)
    return float(0.5 * (away - 1.0 - np.log(np.maximum(fitted, 1e-300) / np.square(std))).sum())


def categorical_sampling_error(
    features: ArrayLike, action: ArrayLike, log_policy: ArrayLike, start: ArrayLike, *, max_iterations: int = 300
) -> float:
    """Sampling error of discrete actions in nats; pi_D is the best softmax that is linear in the features.

    Args:
        features: `[n, F]`, the input of pi's last layer, with a column of ones if that layer has a bias.
        action: `[n]`, numbers.
        log_policy: `[n, K]`, log-probabilities of pi.
        start: `[F, K]`, pi's own last layer: the fit begins there, so that the error is never negative.
        max_iterations: of L-BFGS; where an action was never taken the optimum is at infinity.
    """
    from scipy import optimize  # its import takes longer than many a fit, and who measures nothing need not wait

    x, chosen = np.asarray(features, np.float64), np.asarray(action, np.int64).ravel()
    n, shape = len(x), np.shape(start)
    rows = np.arange(n)

    def loss(flat: Array) -> tuple[float, Array]:
        logits = x @ flat.reshape(shape)
        logits -= logits.max(axis=1, keepdims=True)
        weight = np.exp(logits)
        total = weight.sum(axis=1, keepdims=True)
        likelihood = logits[rows, chosen] - np.log(total[:, 0])
        weight /= total
        weight[rows, chosen] -= 1.0
        return -float(likelihood.mean()), (x.T @ weight).ravel() / n

    options: Any = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "ftol": 1e-12, "gtol": 1e-8}
    found = optimize.minimize(loss, np.asarray(start, np.float64).ravel(), jac=True, method="L-BFGS-B", options=options)
    return float(-found.fun - np.asarray(log_policy, np.float64)[rows, chosen].mean())


__all__ = [
    "categorical_sampling_error", "counts", "gaussian_sampling_error", "tabular_sampling_error", "total_variation",
    "visitation",
]  # fmt: skip
