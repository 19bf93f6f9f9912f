"""Discriminator-actor-critic (Kostrikov et al. 2019, arXiv:1809.02925): adversarial imitation from a replay.

Differences from the paper, each with its reason:
- The actor and critics are SAC's instead of TD3's: the same code and settings as `learner=ailboost` has, so that a
  comparison is one of imitation. (The authors' later DAC in their ValueDICE code is built on SAC as well.)
- The absorbing state is one point with one action, so its value is kept as a number and learned by the same temporal
  difference and at the same rate as a target critic would learn it there; the critics never see that point.
- All steps of a demonstration are used; the authors keep every twentieth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from robotrl.functional.imitation import absorbing_pair, cross_entropy_loss
from robotrl.learners.sac import SAC, SACConfig
from robotrl.nets.discriminator import Discriminator, adversarial_losses
from robotrl.nets.flat import Adam, flatten_parameters, gradient_norm, zero_gradient
from robotrl.nets.network import VECTOR, ObsInputs
from robotrl.policies.squashed import SquashedPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Policy, Progress, RobotRLError, StateDict, group


@dataclass(slots=True)
class DACConfig:
    """Hyper-parameters of DAC."""

    sac: SACConfig = field(default_factory=SACConfig)
    """Of the actor and the critics."""
    discriminator_hidden: list[int] = field(default_factory=lambda: [256, 256])
    discriminator_learning_rate: float = 1e-3
    discriminator_batch_size: int = 128
    """Steps of the expert in one update of the discriminator, and as many of the policy."""
    discriminator_normalise: bool = True
    """Normalise what the discriminator sees of observations by mean and deviation over all that it was trained on."""
    penalty_coef: float = 10.0
    """Weight of the gradient penalty."""
    reward: str = "logit"
    """What the policy earns: the discriminator's `logit`, or `softplus` of it, which is never negative."""

    def __post_init__(self) -> None:
        for name in ("discriminator_learning_rate", "discriminator_batch_size", "penalty_coef"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        if self.reward not in _REWARDS:
            raise RobotRLError(f"learner.reward is '{self.reward}'; it must be {' or '.join(_REWARDS)}.")


class DAC:
    """See the module's docstring. The discriminator is not part of what is deployed."""

    config_class = DACConfig
    replay_class = ReplayBuffer
    policy_kind = "squashed"

    def __init__(self, policy: SquashedPolicy, spec: EnvSpec, config: DACConfig, *, num_envs: int) -> None:
        self.sac = SAC(policy, spec, config.sac, num_envs=num_envs)
        self.policy, self.config = policy, config
        if policy.inputs.images:
            raise RobotRLError("learner=dac imitates from numbers; leave images out with policy.groups=[state].")
        device = next(policy.parameters()).device
        normalise = config.discriminator_normalise
        self._inputs = ObsInputs(spec.obs, policy.obs_groups, normalise=normalise).to(device)
        pair = policy.inputs.dim + policy.actions.dim + 1
        self.discriminator = Discriminator(pair, config.discriminator_hidden, activation="tanh").to(device)
        self._flat = flatten_parameters(self.discriminator.parameters())
        self._adam = Adam(self._flat, config.discriminator_learning_rate)
        self.absorbing_value = torch.zeros((), device=device)
        self._coef = {"discriminator": 1.0, "penalty": config.penalty_coef}

    @property
    def acting(self) -> Policy:
        """As SAC: uniform at first, then the policy."""
        return self.sac.acting

    @property
    def batch_spec(self) -> BatchSpec:
        """What SAC asks for, and steps of the expert and of all policies so far for the discriminator."""
        size = self.config.discriminator_batch_size
        disc, expert = Part("online", "transition", size), Part("demos", "transition", size)
        return self.sac.batch_spec | {"disc": disc, "expert": expert}

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """As SAC."""
        self.sac.observe(fresh, progress)

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """One step of the discriminator, then SAC's update with the rewards that it gives now."""
        metrics = self._step_discriminator(batch["expert"], batch["disc"])
        rewarded = {name: self._rewarded(batch[name]) for name in self.sac.batch_spec}
        learned, _ = self.sac.update(rewarded)
        learned["grad_norm/nonfinite"] += (~metrics["grad_norm/discriminator"].isfinite()).float()
        metrics["value/absorbing"] = self.absorbing_value
        metrics["reward/replay"] = torch.cat([part["reward"].flatten() for part in rewarded.values()]).mean()
        return metrics | learned | {"grad_steps": learned["grad_steps"] + 1}, None

    def _step_discriminator(self, expert: Batch, policy: Batch) -> Metrics:
        for part in (expert, policy):
            moments = self._inputs.moments(group(part, "obs"))
            if moments is not None and self._inputs.normaliser is not None:
                self._inputs.normaliser.merge(*moments)
        losses, expert_out, policy_out = adversarial_losses(
            self.discriminator, cross_entropy_loss, self._pairs(expert), self._pairs(policy),
            expert["terminated"], policy["terminated"],
        )  # fmt: skip
        loss = losses["discriminator"] + self._coef["penalty"] * losses["penalty"]
        zero_gradient(self._flat)
        loss.backward()
        norm = gradient_norm(self._flat)
        self._adam.step()
        reward = _REWARDS[self.config.reward]
        expert_out, policy_out = expert_out.detach()[:-1], policy_out.detach()[:-1]
        right = torch.cat([expert_out > 0, policy_out < 0])
        return {
            **{f"loss/{name}": value.detach() for name, value in losses.items()},
            "grad_norm/discriminator": norm,
            "discriminator/accuracy": right.float().mean(),
            "reward/expert": reward(expert_out).mean(),
            "reward/policy": reward(policy_out).mean(),
        }

    @torch.no_grad()
    def _rewarded(self, part: Batch) -> Batch:
        """The part with the present discriminator's reward; a termination earns what the absorbing state is worth too.

        That value moves towards its own reward and its discounted self, as a target critic would there.
        """
        pairs, ends, c = self._pairs(part), part["terminated"], self.config.sac
        reward = self._reward(pairs)
        if bool(ends.any()):
            target = self._reward(absorbing_pair(pairs)).squeeze(0) + c.gamma * self.absorbing_value
            self.absorbing_value = self.absorbing_value.lerp(target, c.tau)
        return part | {"reward": torch.where(ends, reward + c.gamma * self.absorbing_value, reward)}

    def _reward(self, pairs: Tensor) -> Tensor:
        return _REWARDS[self.config.reward](self.discriminator(pairs))

    @torch.no_grad()
    def _pairs(self, part: Batch) -> Tensor:
        """What the policy sees, the action in [-1, 1] units, and the absorbing state's indicator: `[..., K + 1]`."""
        seen = self._inputs(group(part, "obs"))[VECTOR]
        action = self.policy.actions.from_env(part["action"]).clamp(-1.0, 1.0)
        return F.pad(torch.cat([seen, action], -1), (0, 1))

    def state_dict(self) -> StateDict:
        """SAC's, the discriminator with its optimiser, and the absorbing state's value."""
        return {
            "sac": self.sac.state_dict(),
            "discriminator": dict(self.discriminator.state_dict()),
            "inputs": dict(self._inputs.state_dict()),
            "adam": self._adam.state_dict(),
            "absorbing_value": self.absorbing_value,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.sac.load_state_dict(state["sac"])
        self.discriminator.load_state_dict(state["discriminator"])
        self._inputs.load_state_dict(state["inputs"])
        self._adam.load_state_dict(state["adam"])
        self.absorbing_value = state["absorbing_value"].to(self.absorbing_value)


_REWARDS = {"logit": lambda d: d, "softplus": F.softplus}
