"""Gaussian and categorical policies: what on-policy learners train and robots run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from robotrl.functional.distributions import (
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
    gaussian_log_prob,
)
from robotrl.nets.network import Network, ObsInputs, is_image
from robotrl.policies.actions import ActionMap
from robotrl.policies.compatibility import check_compatible
from robotrl.policies.config import PolicyConfig
from robotrl.types import EnvSpec, Extras, Obs, RobotRLError, State


class StochasticPolicy(nn.Module):
    """Normaliser, network, distribution and action mapping in one module.

    A continuous action is drawn from a diagonal Gaussian with a state-independent deviation, in units where the env's
    bounds are [-1, 1], then clipped and mapped to the env's units; the value before clipping is kept as `raw_action`.
    Without exploration the mean, or the likeliest discrete action, is taken.
    """

    outputs_per_action = 1
    """Network outputs for each number of the action."""

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        groups = config.groups if config.groups is not None else _default_groups(config, spec)
        self.obs_groups = tuple(groups)
        self.inputs = ObsInputs(spec.obs, groups, normalise=config.normalise_obs)
        self.actions = ActionMap(spec.action)
        self.net = self.network(self.outputs_per_action * self.actions.dim, out_gain=0.01)
        if isinstance(self.net, Network):  # subclasses may have nets of their own
            _set_output(cast("nn.Linear", self.net.head.layers[-1]), config)
        self.log_std = nn.Parameter(torch.full((self.actions.dim,), config.log_std_init))
        self.log_std.requires_grad_(self.actions.continuous)

    def critic_inputs(self, groups: Sequence[str] | None) -> ObsInputs:
        """What a critic reads: the policy's own inputs where `groups` is None or the same, else inputs of `groups`.

        Raises:
            RobotRLError: the env has no such group.
        """
        if groups is None or tuple(groups) == self.obs_groups:
            return self.inputs
        normalise = self.config.normalise_obs
        return ObsInputs(self.spec.obs, groups, normalise=normalise, named_by="learner.critic_groups")

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that the policy can act in `env`.

        Raises:
            RobotRLError: groups it reads are missing or of another shape, or the action differs; all are named.
        """
        check_compatible(self.obs_groups, self.spec, env)

    def network(self, out_dim: int, *, inputs: ObsInputs | None = None, out_gain: float = 1.0) -> Network:
        """A new network of this policy's architecture, for critics."""
        c = self.config
        return Network(
            inputs or self.inputs,
            out_dim,
            hidden=c.hidden,
            activation=c.activation,
            gru_size=c.gru_size if c.kind == "gru" else 0,
            image_features=c.image_features,
            image_channels=c.image_channels,
            out_gain=out_gain,
        )

    def actor_parameters(self) -> list[nn.Parameter]:
        """What a policy gradient trains."""
        learned = [p for p in self.net.parameters() if p.requires_grad]
        return [*learned, *([self.log_std] if self.actions.continuous else [])]

    def initial_state(self, num_envs: int) -> State:
        """`hidden [N, gru_size]` of zeros for a recurrent policy, else nothing."""
        return {"hidden": self.log_std.new_zeros(num_envs, self.net.gru_size)} if self.net.gru_size else {}

    def reset_state(self, state: State, done: Tensor) -> State:
        """Zero the hidden of finished rows."""
        return {key: value * ~done.unsqueeze(-1) for key, value in state.items()}

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; the extras are `raw_action` and `log_prob`."""
        hidden = state.get("hidden", _NOTHING)
        out, hidden = self.net(self.inputs(obs), hidden)
        if self.actions.continuous:
            raw = (
                torch.addcmul(out, torch.exp(self.log_std), torch.randn(out.shape, device=out.device))
                if explore
                else out
            )
            log_prob = gaussian_log_prob(raw, out, self.log_std)
        else:
            raw = torch.softmax(out, -1).multinomial(1).squeeze(-1) if explore else out.argmax(-1)
            log_prob = categorical_log_prob(raw, out)
        if not bool(torch.isfinite(log_prob.sum())):
            raise RobotRLError(
                "The policy produced a non-finite action. Its weights or its input are not finite: "
                "lower the learning rate, or check the observations with robotrl doctor and the env checker."
            )
        return self.actions.to_env(raw), {"raw_action": raw, "log_prob": log_prob}, {"hidden": hidden} if state else {}

    def log_prob_and_entropy(self, out: Tensor, raw_action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability `[...]` of raw actions and entropy under the network's outputs `[..., dim]`."""
        if self.actions.continuous:
            return gaussian_log_prob(raw_action, out, self.log_std), gaussian_entropy(self.log_std)
        return categorical_log_prob(raw_action, out), categorical_entropy(out).mean()

    def raw_from_env(self, action: Tensor) -> Tensor:
        """The raw action `[..., dim]` that the env's `action [..., *shape]` came from, for its log-probability."""
        return self.actions.from_env(action)

    def deterministic(self, out: Tensor) -> Tensor:
        """The action without exploration that the network's outputs stand for, in [-1, 1] units, before clipping."""
        return out

    def sequence(self, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor], is_first: Tensor) -> Tensor:
        """Network outputs `[T, N, dim]` over time-major inputs, from the state before the first step."""
        return self.net.sequence(inputs, state.get("hidden", _NOTHING), is_first)[0]


def _default_groups(config: PolicyConfig, spec: EnvSpec) -> list[str]:
    """All groups but `privileged`; an MLP leaves images out."""
    groups = [g for g in spec.obs if g != "privileged" and not (config.kind == "mlp" and is_image(spec.obs[g]))]
    if not groups:
        raise RobotRLError(
            f"{spec.id} has only {sorted(spec.obs)}, nothing that policy={config.kind} reads. Use policy=cnn."
        )
    return groups


def _set_output(layer: nn.Linear, config: PolicyConfig) -> None:
    """What the configuration says about the last layer."""
    layer.bias.requires_grad_(config.output_bias)  # it starts at zero
    if config.init_weights is None:
        return
    if len(config.init_weights) != layer.weight.numel():
        raise RobotRLError(
            f"policy.init_weights has {len(config.init_weights)} numbers, but the policy has {layer.out_features} "
            f"outputs of {layer.in_features} inputs: give {layer.weight.numel()}, those of the first output first."
        )
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(config.init_weights).view_as(layer.weight))


_NOTHING = torch.zeros(0, 0)
