"""A stochastic policy's likelihoods and their gradient without autograd, for methods that make a million tiny steps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.nets.fused import SUPPORTED, FusedMLP, with_ones
from robotrl.nets.network import VECTOR
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.types import Obs, RobotRLError

Array = NDArray[np.float32]


class FusedPolicy:
    """A copy of a policy that moves away from it: likelihood ratios to the one that was loaded, and gradients.

    Arrays are feature-major: a column is a step. A Gaussian's numbers beside its net are its log-deviations.

    Args:
        like: a policy of the same architecture, an MLP on number groups.

    Raises:
        RobotRLError: it is another one.
    """

    def __init__(self, like: StochasticPolicy) -> None:
        if type(like) is not StochasticPolicy or like.net.gru_size or like.inputs.images:
            raise RobotRLError(
                f"This method moves an MLP policy on numbers, not policy={like.config.kind}. Use policy=mlp, and "
                "policy.groups to leave images out."
            )
        if type(like.net.head.activation) not in SUPPORTED:
            raise RobotRLError(
                f"This method has no gradient for policy.activation={like.config.activation}. Use tanh, relu or elu."
            )
        self.continuous, self.width = like.actions.continuous, like.actions.dim
        self.net = FusedMLP(like.net.head, extra=self.width if self.continuous else 0)
        self._start: Array = np.ones((self.width, 1), np.float32)

    def load(self, policy: StochasticPolicy) -> None:
        """Take the weights of `policy`; from now on it is what ratios and divergences compare with."""
        self.net.load(policy.net.head, policy.log_std if self.continuous else None)
        self._start = np.exp(-self.net.extra)[:, None]

    def store(self, policy: StochasticPolicy) -> None:
        """Put the weights into `policy`."""
        self.net.store(policy.net.head, policy.log_std if self.continuous else None)

    @torch.no_grad()
    def rows(self, policy: StochasticPolicy, obs: Obs, raw_action: Tensor) -> Array:
        """What `log_ratio` needs of the steps `[B, ...]`, right after `load`; `[R, B]`, columns in any order.

        From above: inputs with ones, what was taken (one-hot, if discrete), means or log-probabilities of the loaded
        policy, and its log-probability of what was taken.
        """
        x = with_ones(policy.inputs(obs)[VECTOR])
        action = raw_action.cpu()
        if not self.continuous:
            action = torch.nn.functional.one_hot(action.long(), self.width).float()
        taken = np.ascontiguousarray(action.numpy().T)
        likelihood = self._likelihood(x, taken)
        reference = self._out if self.continuous else self._deviation
        return np.concatenate([x, taken, reference, likelihood[None]])

    def log_ratio(self, rows: Array) -> Array:
        """Log-probability of what was taken, now minus loaded, `[B]`."""
        w = self.width
        self._taken, self._reference = rows[-2 * w - 1 : -w - 1], rows[-w - 1 : -1]
        return self._likelihood(rows[: -2 * w - 1], self._taken) - rows[-1]

    def _likelihood(self, x: Array, taken: Array) -> Array:
        """Log-probability `[B]`, of a Gaussian but for a constant."""
        self._out = out = self.net.forward(x)
        if self.continuous:
            self._inverse = np.exp(-self.net.extra)[:, None]
            self._deviation = (taken - out) * self._inverse
            return -0.5 * np.einsum("ab,ab->b", self._deviation, self._deviation) - self.net.extra.sum()
        self._deviation = out - np.logaddexp.reduce(out, axis=0)
        return np.einsum("ab,ab->b", self._deviation, taken)

    def divergence(self) -> float:
        """KL(now || loaded) over the rows of the last `log_ratio`: a mean over them and over the action's numbers."""
        if self.continuous:
            spread = np.square(self._start / self._inverse)
            away = np.square((self._out - self._reference) * self._start).mean(1, keepdims=True)
            return 0.5 * float((spread + away - 1.0 - np.log(spread)).mean())
        return float((np.exp(self._deviation) * (self._deviation - self._reference)).sum(0).mean())

    def pull(self, weight: Array, coef: float) -> None:
        """Put the gradient of `(weight * log-probability).sum() + coef * divergence()` into `net.gradient`.

        Args:
            weight: `[B]`, of the rows of the last `log_ratio`; it is not differentiated.
            coef: of the divergence.
        """
        net, z, rows = self.net, self._deviation, len(weight)
        if self.continuous:
            gradient = z * weight * self._inverse
            net.extra_gradient[:] = np.square(z) @ weight - np.add.reduce(weight)
            if coef:
                gradient += (self._out - self._reference) * (np.square(self._start) * (coef / (rows * self.width)))
                net.extra_gradient += (np.square(self._start / self._inverse)[:, 0] - 1.0) * (coef / self.width)
        else:
            chance = np.exp(z)
            gradient = weight * (self._taken - chance)
            if coef:
                excess = z - self._reference
                gradient += (coef / rows) * chance * (excess - np.add.reduce(chance * excess, axis=0))
        net.backward(gradient)


__all__ = ["FusedPolicy"]
