"""The sampling error of what a policy's data hold, beside that of on-policy data of the same size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.functional.sampling_error import categorical_sampling_error, gaussian_sampling_error
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.types import Obs, RobotRLError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SamplingError:
    """Both in nats; see `robotrl.functional.sampling_error`."""

    data: float
    """Of the data."""
    on_policy: float
    """Of actions that the policy draws anew in the same states: a mean over several draws."""

    @property
    def ratio(self) -> float:
        """Below one where the data stand for the policy better than its own samples do."""
        return self.data / self.on_policy


@torch.no_grad()
def sampling_error(
    policy: StochasticPolicy, obs: Obs, raw_action: Tensor, *, draws: int = 4, seed: int = 0
) -> SamplingError:
    """KL(pi_D || policy), pi_D being the policy with the last layer (and deviation) that fits the data best.

    Args:
        policy: memoryless, Gaussian or categorical.
        obs: `[B, ...]`.
        raw_action: `[B, A]`, or `[B]` if discrete: what was taken in these states, before clipping.
        draws: data sets of on-policy actions that it is compared with.
        seed: of those; no global random stream is touched.

    Raises:
        RobotRLError: the policy has a memory, so that its states cannot be taken one by one.
    """
    if type(policy) is not StochasticPolicy or policy.net.gru_size:
        raise RobotRLError(
            f"Sampling error is defined here for policies of the kinds mlp and cnn, not for {policy.config.kind}."
        )
    features = _numpy(policy.net.last_features(policy.inputs(obs)))
    layer: Any = policy.net.head.layers[-1]
    weights = _numpy(layer.weight).T
    out = features @ weights + _numpy(layer.bias)
    if layer.bias.requires_grad:
        features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        weights = np.concatenate([weights, _numpy(layer.bias)[None]])
    rng = np.random.default_rng(seed)
    fit = _gaussian if policy.actions.continuous else _categorical
    error, draw = fit(policy, features, weights, out, rng)
    return SamplingError(error(_numpy(raw_action)), float(np.mean([error(draw()) for _ in range(draws)])))


Fit = tuple[Callable[[Array], float], Callable[[], Array]]


def _gaussian(policy: StochasticPolicy, features: Array, weights: Array, mean: Array, rng: np.random.Generator) -> Fit:
    log_std = _numpy(policy.log_std)
    return (
        lambda action: gaussian_sampling_error(features, action, mean, log_std),
        lambda: mean + np.exp(log_std) * rng.standard_normal(mean.shape),
    )


def _categorical(
    policy: StochasticPolicy, features: Array, weights: Array, logits: Array, rng: np.random.Generator
) -> Fit:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_policy = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return (
        lambda action: categorical_sampling_error(features, action, log_policy, weights),
        lambda: (log_policy + rng.gumbel(size=log_policy.shape)).argmax(axis=1).astype(np.float64),
    )


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().cpu().double().numpy()


__all__ = ["SamplingError", "sampling_error"]
