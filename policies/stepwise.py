"""A policy for a finite horizon: a small Gaussian network of its own for each step of an episode."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robotrl.functional.distributions import gaussian_log_prob
from robotrl.nets.network import VECTOR, ObsInputs, is_image
from robotrl.nets.stepwise import StepwiseMLP
from robotrl.policies.actions import ActionMap
from robotrl.policies.compatibility import check_compatible
from robotrl.policies.config import PolicyConfig
from robotrl.types import EnvSpec, Extras, Obs, RobotRLError, State

MAX_STEPS = 10_000
"""More networks than any horizon needs: what a file may ask for is bounded."""


class StepwisePolicy(nn.Module):
    """At step h of an episode, network h gives the mean of a diagonal Gaussian, whose deviations are parameters.

    The horizon is the env's time limit. The policy state counts the steps, `step [N]`; `reset_state` sets it to zero.
    As in `StochasticPolicy`, actions are drawn in units where the env's bounds are [-1, 1] (in its own where it has
    none), then clipped and mapped; the value before clipping is `raw_action`.

    Raises:
        RobotRLError: discrete actions, images, or episodes of no fixed length.
    """

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        _check(spec)
        groups = config.groups if config.groups is not None else [g for g in spec.obs if g != "privileged"]
        self.obs_groups = tuple(groups)
        self.inputs = ObsInputs(spec.obs, groups, normalise=config.normalise_obs)
        if self.inputs.images or config.activation != "tanh":
            raise RobotRLError(
                "policy=stepwise is made of small tanh networks on numbers. Set policy.activation=tanh, and choose "
                "groups without images with policy.groups=[...]."
            )
        self.horizon = int(spec.time_limit or 0)
        self.actions = ActionMap(spec.action)
        dim = self.actions.dim
        self.net = StepwiseMLP(self.horizon, self.inputs.dim, config.hidden, dim, extra=dim)
        with torch.no_grad():
            self.net.tail(self.net.weights).fill_(config.log_std_init)
        bounded = torch.isfinite(self.actions.low) & torch.isfinite(self.actions.high)
        self.register_buffer("_reach", torch.where(bounded, 1.0, torch.inf), persistent=False)

    _reach: Tensor

    def check_env(self, env: EnvSpec) -> None:
        """Make sure that the policy can act in `env`.

        Raises:
            RobotRLError: groups it reads are missing or of another shape, the action differs, or episodes are longer.
        """
        check_compatible(self.obs_groups, self.spec, env)
        if env.time_limit is None or env.time_limit > self.horizon:
            raise RobotRLError(
                f"The policy has a network for each of {self.horizon} steps, but episodes of {env.id} last "
                f"{env.time_limit or 'as long as they like'}. Use the horizon it was trained for."
            )

    def actor_parameters(self) -> list[nn.Parameter]:
        """What a policy gradient trains."""
        return [self.net.weights]

    def initial_state(self, num_envs: int) -> State:
        """`step [N]` int64, zero."""
        return {"step": torch.zeros(num_envs, dtype=torch.int64, device=self.net.weights.device)}

    def reset_state(self, state: State, done: Tensor) -> State:
        """Finished rows begin at step zero again."""
        return {"step": state["step"] * ~done}

    def unit(self, raw: Tensor, axis: int = -1) -> Tensor:
        """What of a raw action is executed, in the raw action's units; the action's numbers stand along `axis`."""
        reach = self._reach.view(-1, *[1] * (-1 - axis)) if axis < -1 else self._reach
        return torch.minimum(torch.maximum(raw, -reach), reach)

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; the extras are `raw_action` and `log_prob`."""
        step = state["step"]
        if int(step.max()) >= self.horizon:
            raise RobotRLError(f"The policy is for {self.horizon} steps, but an episode goes on after them.")
        mean, log_std = self._at(self.inputs(obs)[VECTOR], step)
        raw = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean)) if explore else mean
        log_prob = gaussian_log_prob(raw, mean, log_std)
        if not bool(torch.isfinite(log_prob.sum())):
            raise RobotRLError(
                "The policy produced a non-finite action. Its weights or its input are not finite: check the "
                "observations with robotrl doctor and the env checker."
            )
        return self.actions.to_env(raw), {"raw_action": raw, "log_prob": log_prob}, {"step": step + 1}

    def _at(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation `[N, A]` for inputs `x [N, D]` at the steps `[N]`."""
        rows, first = self.net.weights, int(step[0])
        if bool((step == first).all()):  # as where episodes keep pace: one product for all
            out, _ = self.net.run(rows[first : first + 1], x.t().unsqueeze(0))
            return out.squeeze(0).t(), self.net.tail(rows)[first].expand(len(x), -1)
        own = rows[step]
        out, _ = self.net.run(own, x.unsqueeze(-1))
        return out.squeeze(-1), self.net.tail(own)

    def sequence(self, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor], is_first: Tensor) -> Tensor:
        """Mean and log-deviation side by side, `[T, N, 2 A]`, from the state before the first step."""
        outs, step = [], state["step"]
        for t in range(len(is_first)):
            step = step * ~is_first[t]
            outs.append(torch.cat(self._at(inputs[VECTOR][t], step), -1))
            step = step + 1
        return torch.stack(outs)

    def log_prob_and_entropy(self, out: Tensor, raw_action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability `[...]` of raw actions, and minus its mean, under `out [..., 2 A]` of `sequence`."""
        log_prob = gaussian_log_prob(raw_action, *out.chunk(2, -1))
        return log_prob, -log_prob.mean()


def _check(spec: EnvSpec) -> None:
    if spec.action.kind != "continuous":
        raise RobotRLError(f"{spec.id} has discrete actions; policy=stepwise draws continuous ones. Use learner=trpo.")
    if spec.time_limit is None or spec.time_limit > MAX_STEPS:
        raise RobotRLError(
            f"policy=stepwise has a network for each step of an episode, but those of {spec.id} last "
            f"{spec.time_limit or 'as long as they like'}. Set env.time_limit to a horizon of at most {MAX_STEPS}."
        )
    if all(is_image(array) for array in spec.obs.values()):
        raise RobotRLError(f"{spec.id} shows only images; policy=stepwise reads numbers.")


__all__ = ["StepwisePolicy"]
