"""Tanh-squashed Gaussian policy: what off-policy learners train (Haarnoja et al. 2018, appendix C)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from robotrl.functional.distributions import gaussian_log_prob, squash_correction
from robotrl.policies.actions import ActionMap
from robotrl.policies.config import PolicyConfig
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.types import EnvSpec, Extras, Obs, Policy, RobotRLError, State

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Bounds of the log-deviation before squashing. A scaled tanh keeps it inside, whose gradient never vanishes as that of
clipping does (as in Yarats and Kostrikov's SAC)."""
_EDGE = 1e-3
"""How far from the bounds of [-1, 1] an action given from outside is taken to be, at least: recorded actions lie on
them, where the value before squashing is infinite."""
_MIDDLE, _HALF = (LOG_STD_MAX + LOG_STD_MIN) / 2, (LOG_STD_MAX - LOG_STD_MIN) / 2
_SCALE = math.exp(_MIDDLE)
_CONSTANT = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0) + _MIDDLE
"""What a sample's log-probability has less for each action dimension, whatever was drawn."""


class SquashedPolicy(StochasticPolicy):
    """The network gives mean and log-deviation of a Gaussian; its samples are squashed by tanh into the env's bounds.

    `raw_action` is the sample before squashing; log-probabilities are densities of the squashed action in units where
    the env's bounds are [-1, 1]. Without exploration the squashed mean is taken. `policy.log_std_init` is where the
    log-deviation starts; the network adds to it.
    """

    outputs_per_action = 2

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        check_bounded(spec)
        if not LOG_STD_MIN < config.log_std_init < LOG_STD_MAX:
            raise RobotRLError(
                f"policy.log_std_init is {config.log_std_init}; a squashed policy keeps its log-deviation between "
                f"{LOG_STD_MIN:g} and {LOG_STD_MAX:g}, so it must start inside."
            )
        super().__init__(config, spec)
        self._offset = math.atanh((config.log_std_init - _MIDDLE) / _HALF)
        self.register_parameter("log_std", None)  # the network gives it

    def actor_parameters(self) -> list[nn.Parameter]:
        """What a policy gradient trains."""
        return list(self.net.parameters())

    def mean_and_log_std(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Of the Gaussian before squashing, each `[..., A]`, from the network's outputs `[..., 2 A]`."""
        mean, log_std = out.chunk(2, -1)
        return mean, torch.tanh(log_std + self._offset) * _HALF + _MIDDLE

    def sample(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterised action `[..., A]` in (-1, 1) and its log-probability `[...]`, with gradients to `out`."""
        action, log_prob = _SquashedSample.apply(out, self._offset)
        return action, log_prob

    def sample_pullback(self, out: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """As `sample`, without autograd, and the function that takes gradients back.

        Returns:
            Action, log-probability, and `pull(by_action, by_log_prob)`: given the gradients of a loss by both, of all
            rows or of the first ones, that by `out`.
        """
        action, log_prob, spread, bounded = _squash(out.detach(), self._offset)

        def back(by_action: Tensor, by_log_prob: Tensor) -> Tensor:
            rows = slice(len(by_action))
            return _pull_squash(by_action, by_log_prob, action[rows], spread[rows], bounded[rows])

        return action, log_prob, back

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; the extras are `raw_action` and `log_prob`."""
        out, _ = self.net(self.inputs(obs), _NOTHING)
        mean, log_std = self.mean_and_log_std(out)
        raw = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean)) if explore else mean
        log_prob = gaussian_log_prob(raw, mean, log_std) - squash_correction(raw)
        if not bool(torch.isfinite(log_prob.sum())):
            raise RobotRLError(
                "The policy produced a non-finite action. Its weights or its input are not finite: "
                "lower the learning rate, or check the observations with robotrl doctor and the env checker."
            )
        return self.actions.to_env(torch.tanh(raw)), {"raw_action": raw, "log_prob": log_prob}, state

    def raw_from_env(self, action: Tensor) -> Tensor:
        """The value before squashing; at the bounds, which tanh never reaches, that of an action just inside."""
        return torch.atanh(self.actions.from_env(action).clamp(-1.0 + _EDGE, 1.0 - _EDGE))

    def deterministic(self, out: Tensor) -> Tensor:
        """The squashed mean."""
        return torch.tanh(self.mean_and_log_std(out)[0])

    def log_prob_and_entropy(self, out: Tensor, raw_action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability `[...]` of raw actions, and minus its mean: the entropy has no formula."""
        log_prob = gaussian_log_prob(raw_action, *self.mean_and_log_std(out)) - squash_correction(raw_action)
        return log_prob, -log_prob.mean()


def _squash(out: Tensor, offset: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A sample: action, log-probability and, for `_pull_squash`, the noise times std / e^middle, and log-std's tanh.

    The density is that of the noise over the slopes of both maps, see `squash_correction`. Operations on a batch of
    actions cost more than their arithmetic, so there are few: constants are taken out of the sum, for one.
    """
    mean, pre = out.chunk(2, -1)
    noise = torch.randn_like(mean)
    bounded = torch.tanh(pre + offset)
    log_std = bounded * _HALF  # less the middle
    spread = log_std.exp().mul_(noise)
    raw = torch.add(mean, spread, alpha=_SCALE)
    falls = nn.functional.softplus(raw, beta=-2.0)  # -softplus(-2 raw) / 2
    surprise = torch.addcmul(log_std, noise, noise, value=0.5).sub_(raw, alpha=2.0).add_(falls, alpha=4.0).sum(-1)
    return torch.tanh(raw), torch.rsub(surprise, -_CONSTANT * noise.shape[-1]), spread, bounded


def _pull_squash(by_action: Tensor, by_log_prob: Tensor, action: Tensor, spread: Tensor, bounded: Tensor) -> Tensor:
    """The gradient by the network's outputs: d log_prob / d raw = 2 action, at fixed noise."""
    by_log_prob = by_log_prob.unsqueeze(-1)
    by_raw = torch.addcmul(_tanh_backward(by_action, action), by_log_prob, action, value=2.0)
    by_log_std = torch.addcmul(-by_log_prob, by_raw, spread, value=_SCALE)
    return torch.cat([by_raw, _tanh_backward(by_log_std, bounded).mul_(_HALF)], -1)


class _SquashedSample(torch.autograd.Function):
    """`_squash` as one autograd node instead of twenty."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, offset: float) -> tuple[Tensor, Tensor]:
        """Keep what its gradient needs."""
        action, log_prob, spread, bounded = _squash(out, offset)
        ctx.save_for_backward(action, spread, bounded)
        return action, log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_action: Tensor, by_log_prob: Tensor) -> tuple[Tensor, None]:
        """As `_pull_squash`."""
        return _pull_squash(by_action, by_log_prob, *ctx.saved_tensors), None


class UniformPolicy:
    """Actions drawn uniformly within the env's bounds, in the form in which `SquashedPolicy` gives its own.

    Args:
        spec: of the env.
        groups: that the policy it stands in for reads.
        device: where actions are made.
        stands_for: a policy with a memory that will go on from here: its state is kept for it. None: there is none.
    """

    def __init__(
        self, spec: EnvSpec, groups: tuple[str, ...], device: torch.device, *, stands_for: Policy | None = None
    ) -> None:
        self.obs_groups, self._stands_for = groups, stands_for
        self._actions = ActionMap(spec.action).to(device)

    def initial_state(self, num_envs: int) -> State:
        """That of the policy it stands in for."""
        return {} if self._stands_for is None else self._stands_for.initial_state(num_envs)

    def reset_state(self, state: State, done: Tensor) -> State:
        """As the policy it stands in for."""
        return state if self._stands_for is None else self._stands_for.reset_state(state, done)

    def act(self, obs: Mapping[str, Tensor], state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """A uniform action; its density in [-1, 1] units is 1/2 a dimension."""
        rows = len(next(iter(obs.values())))
        unit = torch.rand(rows, self._actions.dim, device=self._actions.low.device) * 2.0 - 1.0
        log_prob = unit.new_full((rows,), -self._actions.dim * math.log(2.0))
        raw = torch.atanh(unit.clamp(-1.0 + 1e-6, 1.0 - 1e-6))
        return self._actions.to_env(unit), {"raw_action": raw, "log_prob": log_prob}, state


def check_bounded(spec: EnvSpec) -> None:
    """Make sure that actions are continuous and bounded.

    Raises:
        RobotRLError: they are not.
    """
    action = spec.action
    if action.kind != "continuous":
        raise RobotRLError(
            f"{spec.id} has discrete actions; this kind of policy needs continuous ones. "
            "Use learner=ppo, or another env."
        )
    if not all(map(math.isfinite, (*action.low, *action.high))):
        raise RobotRLError(
            f"{spec.id} has actions without bounds; this kind of policy fills the range between them. "
            "Use learner=ppo, or an env with finite action bounds."
        )


_NOTHING = torch.zeros(0, 0)
_tanh_backward = torch.ops.aten.tanh_backward
