"""A probabilistic ensemble: several networks that each predict how an environment goes on, and with what spread.

Source: Chua et al. 2018 (PETS, arXiv:1805.12114), section 4 and appendix A. Where its members disagree, little is
known; what each expects to vary, varies. Differences: each member draws its own minibatches from all data in place of a
bootstrapped copy of them, and the reward and the end of an episode are learned as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robotrl.nets.ensemble import Ensemble
from robotrl.nets.network import ObsInputs
from robotrl.nets.normaliser import Normaliser
from robotrl.types import ArraySpec

BOUNDS_COEF = 0.01
"""Weight of the loss that draws the learned bounds of the log-variances together."""


class Step(NamedTuple):
    """What the model expects of a step, or one draw of it."""

    next_obs: Tensor
    """`[..., D]`, in the units of observations."""
    reward: Tensor
    """`[...]`."""
    going_on: Tensor
    """Probability `[...]` that the episode does not terminate here."""


class Dynamics(nn.Module):
    """`members` Gaussian models of the change of the observation and of the reward, and of termination.

    Observations are number groups, concatenated to vectors `[..., D]`; actions are in units where the bounds are
    [-1, 1]. Inputs and what is predicted are normalised by running moments, which change only by `take_in`.

    Args:
        obs: the env's observation groups.
        groups: those that are predicted.
        action_dim: numbers of an action.
        hidden: widths of each member's hidden layers.
        members: number of models E.
    """

    def __init__(
        self, obs: Mapping[str, ArraySpec], groups: tuple[str, ...], action_dim: int, hidden: list[int], members: int
    ) -> None:
        super().__init__()
        self.inputs = ObsInputs(obs, groups, normalise=True)
        self.dim, self.members = self.inputs.dim, members
        targets = self.dim + 1
        self.net = Ensemble(self.dim + action_dim, hidden, members, out_dim=2 * targets + 1, activation="silu")
        self.targets = Normaliser(targets, clip=torch.inf)
        self.most = nn.Parameter(torch.full((targets,), 0.5))
        self.least = nn.Parameter(torch.full((targets,), -10.0))

    def vector(self, obs: Mapping[str, Tensor]) -> Tensor:
        """The groups as one vector `[..., D]`, as it is."""
        return self.inputs.vector(obs)

    def groups_of(self, vector: Tensor) -> dict[str, Tensor]:
        """The inverse of `vector`."""
        return self.inputs.groups_of(vector)

    def take_in(self, obs: Tensor, next_obs: Tensor, reward: Tensor) -> None:
        """Bring the moments of inputs and targets up to date with new steps `[..., D]`, `[..., D]`, `[...]`."""
        assert self.inputs.normaliser is not None
        self.inputs.normaliser.merge(*Normaliser.moments(obs))
        self.targets.merge(*Normaliser.moments(_targets(obs, next_obs, reward)))

    def predict(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each member on its own rows: normalised mean and log-variance `[E, B, D + 1]`, logit of going on `[E, B]`.

        Args:
            obs: `[E, B, D]`, or `[B, D]` for all.
            action: `[E, B, A]`, or `[B, A]`.
        """
        assert self.inputs.normaliser is not None
        out = self.net(torch.cat([self.inputs.normaliser(obs), action], -1))
        mean, spread, going_on = out.split([self.dim + 1, self.dim + 1, 1], -1)
        log_var = self.most - F.softplus(self.most - spread)
        return mean, self.least + F.softplus(log_var - self.least), going_on.squeeze(-1)

    def losses(
        self, obs: Tensor, action: Tensor, next_obs: Tensor, reward: Tensor, terminated: Tensor
    ) -> dict[str, Tensor]:
        """Each member's on rows of its own: all arguments are `[E, B, ...]`, observations of D numbers.

        Returns:
            `model`, the negative log-likelihood of change and reward (eq. 1), `continue`, the cross-entropy of going
            on, and `bounds`; the sum over members of the mean over rows each.
        """
        mean, log_var, going_on = self.predict(obs, action)
        error = (self.targets(_targets(obs, next_obs, reward)) - mean).square()
        likelihood = (error * torch.exp(-log_var) + log_var).mean((1, 2)).sum()
        ends = F.binary_cross_entropy_with_logits(going_on, (~terminated).float(), reduction="none").mean(1).sum()
        return {"model": likelihood, "continue": ends, "bounds": BOUNDS_COEF * (self.most.sum() - self.least.sum())}

    @torch.no_grad()
    def step(self, obs: Tensor, action: Tensor, *, noise: bool = True) -> Step:
        """How each member goes on from rows of its own: `obs [E, B, D]`, `action [E, B, A]`; drawn, or its mean."""
        mean, log_var, going_on = self.predict(obs, action)
        if noise:
            mean = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        change = self.targets.inverse(mean)
        return Step(obs + change[..., :-1], change[..., -1], torch.sigmoid(going_on))


def _targets(obs: Tensor, next_obs: Tensor, reward: Tensor) -> Tensor:
    return torch.cat([next_obs - obs, reward.unsqueeze(-1)], -1)


__all__ = ["Dynamics", "Step"]
