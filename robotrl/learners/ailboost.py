"""AILBoost (Chang et al. 2024, arXiv:2404.08513): adversarial imitation by boosting.

A mixture of policies is grown a member at a time. The discriminator estimates `log(d_expert / d_mixture)` from steps
that each member collected on its own, weighted as the mixture weighs the member; SAC climbs that estimate from where it
stands; its policy then becomes the next member, and the mixture `(1 - rate) * mixture + rate * member`.

A round: the newest member, a frozen copy of the policy, plays whole episodes; the discriminator is trained on all
members' steps; SAC explores and learns meanwhile, with the rewards that the discriminator gives when they are used.

Differences from the paper and its code, each with its reason:
- SAC also learns while a member plays, and in the discriminator's steps, so that it makes one update for each env step
  throughout, as `learner=dac` does: a comparison at equal env steps is one at equal updates.
- The replay keeps what was explored in earlier rounds; the code drops it. Rewards are recomputed, so it is of use.
- Terminations lead to an absorbing state as in DAC; the code has none, as none of its tasks terminates.
- Members are copies. In the code they share memory with the policy in training, so its mixture is the last policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robotrl.functional.imitation import boosting_weights, reverse_kl_loss
from robotrl.learners.sac import SAC, SACConfig
from robotrl.nets.adversary import Adversary
from robotrl.nets.discriminator import Discriminator
from robotrl.nets.network import ObsInputs
from robotrl.nets.vision import Onlooker
from robotrl.policies.config import MAX_MEMBERS
from robotrl.policies.mixture import MixturePolicy, snapshot
from robotrl.policies.squashed import SquashedPolicy
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.policies.turns import Turns
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Policy, Progress, RobotRLError, StateDict


@dataclass(slots=True)
class AILBoostConfig:
    """Hyper-parameters of AILBoost."""

    sac: SACConfig = field(default_factory=SACConfig)
    """Of the actor and the critics."""
    boost_rate: float = 0.05
    """Weight of a new member; all older weights shrink by one minus it (alpha in the paper)."""
    member_env_steps: int = 1000
    """Steps that each member plays for the discriminator, in whole episodes; a multiple of their length is best."""
    explore_env_steps: int = 1000
    """Steps that the policy in training plays between two members."""
    max_members: int = 300
    """The oldest go when there are more. With the default rate they have a weight of 2e-7 by then."""
    discriminator_updates: int = 100
    """Steps of the discriminator in each round."""
    discriminator_hidden: list[int] = field(default_factory=lambda: [64, 64])
    discriminator_learning_rate: float = 1e-4
    discriminator_batch_size: int = 512
    """Steps of the expert in one update of the discriminator, and as many of the mixture."""
    discriminator_bounded: bool = True
    """Squash the discriminator, which is the reward, to (-1, 1)."""
    discriminator_normalise: bool = True
    """Normalise what the discriminator sees of observations by mean and deviation over all that it was trained on."""
    penalty_coef: float = 10.0
    """Weight of the gradient penalty."""

    def __post_init__(self) -> None:
        if not 0 < self.boost_rate < 1:
            raise RobotRLError(f"learner.boost_rate is {self.boost_rate}; it must lie between 0 and 1.")
        for name in ("member_env_steps", "explore_env_steps", "discriminator_updates", "discriminator_batch_size"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("discriminator_learning_rate", "penalty_coef"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        if not 2 <= self.max_members <= MAX_MEMBERS:
            raise RobotRLError(f"learner.max_members is {self.max_members}; it must lie in [2, {MAX_MEMBERS}].")


class AILBoost:
    """See the module's docstring. `policy` is the last policy; the mixture is offered beside it."""

    config_class = AILBoostConfig
    replay_class = ReplayBuffer
    policy_kind = "squashed"

    def __init__(self, policy: SquashedPolicy, spec: EnvSpec, config: AILBoostConfig, *, num_envs: int) -> None:
        self.sac = SAC(policy, spec, config.sac, num_envs=num_envs)
        self.policy, self.config = policy, config
        device = next(policy.parameters()).device
        inputs = ObsInputs(spec.obs, policy.obs_groups, normalise=config.discriminator_normalise).to(device)
        onlooker = Onlooker(policy.net, self.sac.vision, inputs.dim, policy.config.image_features).to(device)
        pair = onlooker.dim + policy.actions.dim + 1
        self.adversary = Adversary(
            Discriminator(pair, config.discriminator_hidden, bounded=config.discriminator_bounded).to(device),
            inputs,
            onlooker,
            policy.actions.from_env,
            divergence=reverse_kl_loss,
            reward=_as_it_is,
            learning_rate=config.discriminator_learning_rate,
            penalty_coef=config.penalty_coef,
            gamma=config.sac.gamma,
            tau=config.sac.tau,
        )
        self.mixture = MixturePolicy.of(policy)  # the first member is the policy before it has learned anything
        self.acting = Turns(self.sac.acting, spec.time_limit, device)
        self._members = 0  # whose steps are complete; the mixture holds the newest of them
        self._playing = True
        self._collected = self._explored = self._discriminator_left = 0
        self._discriminator_metrics: Metrics = {}
        self.acting.call(snapshot(policy), 0, config.member_env_steps)
        self._coef = self.adversary.coef

    @property
    def other_policies(self) -> dict[str, Policy]:
        """The mixture."""
        return {"mixture": self.mixture}

    @property
    def batch_spec(self) -> BatchSpec:
        """What SAC asks for; in a round's first updates also steps of the expert, and of members by their weight."""
        size, spec = self.config.discriminator_batch_size, dict(self.sac.batch_spec)
        if not self._members or self._discriminator_left:
            spec["expert"] = Part("demos", "transition", size)
        if self._discriminator_left:
            gone = self._members - len(self.mixture.members)
            shares = (0.0,) * gone + tuple(self.mixture.weights.tolist())
            spec["disc"] = Part("online", "transition", size, stratify_by="member", shares=shares)
        return spec

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Count the members' steps and the exploring ones; a member that has played enough joins the mixture."""
        self.sac.observe(fresh, progress)
        self.acting.other = self.sac.acting
        exploring = int((fresh["member"] < 0).sum())
        if self._playing:
            self._collected += int((fresh["member"] == self.acting.index).sum())
            if self._collected < self.config.member_env_steps:
                return
            self._add_member()
            self._explored = 0
        self._explored += exploring
        if self.sac.acting is not self.policy:  # still random: nothing was learned that could be a new member
            self._explored = 0
        # one collect ahead, so that the member is there when the exploring episode ends
        elif self._explored + fresh["reward"].numel() >= self.config.explore_env_steps:
            self.acting.call(snapshot(self.policy), self._members, self.config.member_env_steps)
            self._playing, self._collected = True, 0

    def _add_member(self) -> None:
        """The member that has just played joins; the discriminator's steps of this round are due."""
        newest = self.acting.member
        assert isinstance(newest, StochasticPolicy)
        older = list(self.mixture.members) if self._members else []
        self._members += 1
        kept = [*older, newest][-self.config.max_members :]
        self.mixture.set_members(kept, boosting_weights(self._members, self.config.boost_rate)[-len(kept) :])
        self._playing, self._discriminator_left = False, self.config.discriminator_updates

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """SAC's update with the rewards of the present discriminator, which takes its own steps first if they are due.

        Until the first member has played there is nothing to tell experts from, so no reward and no update.
        """
        if not self._members:
            return {"grad_steps": torch.tensor(0)}, None
        steps = 0
        if self._discriminator_left and "disc" in batch:
            self._discriminator_metrics = self.adversary.step(batch["expert"], batch["disc"])
            self._discriminator_left -= 1
            steps = 1
        rewarded = {name: self.adversary.rewarded(batch[name]) for name in self.sac.batch_spec}
        learned, _ = self.sac.update(rewarded)
        norm = self._discriminator_metrics["grad_norm/discriminator"]
        learned["grad_norm/nonfinite"] += (~norm.isfinite()).float() * steps
        learned["value/absorbing"] = self.adversary.absorbing_value
        learned["reward/replay"] = torch.cat([part["reward"].flatten() for part in rewarded.values()]).mean()
        learned["mixture/members"] = torch.tensor(float(self._members))
        learned["mixture/effective_members"] = 1.0 / self.mixture.weights.square().sum().float()
        return self._discriminator_metrics | learned | {"grad_steps": learned["grad_steps"] + steps}, None

    def state_dict(self) -> StateDict:
        """SAC's, the adversary's, every member, and where the round stands."""
        member = self.acting.member
        assert isinstance(member, StochasticPolicy)
        return {
            "sac": self.sac.state_dict(),
            "adversary": self.adversary.state_dict(),
            "mixture": [dict(m.state_dict()) for m in self.mixture.members],
            "weights": self.mixture.weights,
            "member": dict(member.state_dict()),
            "index": self.acting.index,
            "clocks": [self._members, self._collected, self._explored, self._discriminator_left, int(self._playing)],
            "metrics": dict(self._discriminator_metrics),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.sac.load_state_dict(state["sac"])
        self.adversary.load_state_dict(state["adversary"])
        copies = [snapshot(self.policy) for _ in (*state["mixture"], "the member that plays")]
        for copy, saved in zip(copies, (*state["mixture"], state["member"]), strict=True):
            copy.load_state_dict(saved)
        self.mixture.set_members(copies[:-1], state["weights"])
        self.acting.other = self.sac.acting
        self.acting.call(copies[-1], int(state["index"]), self.config.member_env_steps)
        self._members, self._collected, self._explored, self._discriminator_left, playing = map(int, state["clocks"])
        self._playing = bool(playing)
        self._discriminator_metrics = {
            name: value.to(self.adversary.absorbing_value.device) for name, value in state["metrics"].items()
        }


def _as_it_is(output: Tensor) -> Tensor:
    return output
