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
from torch.nn import functional as F

from robotrl.functional.imitation import cross_entropy_loss
from robotrl.learners.sac import SAC, SACConfig
from robotrl.nets.adversary import Adversary
from robotrl.nets.discriminator import Discriminator
from robotrl.nets.network import ObsInputs
from robotrl.nets.vision import Onlooker
from robotrl.policies.squashed import SquashedPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Policy, Progress, RobotRLError, StateDict


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
        device = next(policy.parameters()).device
        inputs = ObsInputs(spec.obs, policy.obs_groups, normalise=config.discriminator_normalise).to(device)
        onlooker = Onlooker(policy.net, self.sac.vision, inputs.dim, policy.config.image_features).to(device)
        pair = onlooker.dim + policy.actions.dim + 1
        self.adversary = Adversary(
            Discriminator(pair, config.discriminator_hidden, activation="tanh").to(device),
            inputs,
            onlooker,
            policy.actions.from_env,
            divergence=cross_entropy_loss,
            reward=_REWARDS[config.reward],
            learning_rate=config.discriminator_learning_rate,
            penalty_coef=config.penalty_coef,
            gamma=config.sac.gamma,
            tau=config.sac.tau,
        )
        self._coef = self.adversary.coef

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
        metrics = self.adversary.step(batch["expert"], batch["disc"])
        rewarded = {name: self.adversary.rewarded(batch[name]) for name in self.sac.batch_spec}
        learned, _ = self.sac.update(rewarded)
        learned["grad_norm/nonfinite"] += (~metrics["grad_norm/discriminator"].isfinite()).float()
        metrics["value/absorbing"] = self.adversary.absorbing_value
        metrics["reward/replay"] = torch.cat([part["reward"].flatten() for part in rewarded.values()]).mean()
        return metrics | learned | {"grad_steps": learned["grad_steps"] + 1}, None

    def state_dict(self) -> StateDict:
        """SAC's and the adversary's."""
        return {"sac": self.sac.state_dict(), "adversary": self.adversary.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.sac.load_state_dict(state["sac"])
        self.adversary.load_state_dict(state["adversary"])


_REWARDS = {"logit": lambda d: d, "softplus": F.softplus}
