"""Probabilistic ensembles with trajectory sampling (Chua et al. 2018, arXiv:1805.12114).

All that is learned is a model: an ensemble of networks that predict how the env goes on. The policy plans through it.

Differences from the paper, each with its reason:
- The reward is learned, as is termination; the paper is given the reward as a function.
- The model is fitted steadily, some steps for each env step, in place of anew after each trial.
- Each member imagines every sequence of actions once and keeps to itself (TS-infinity with as many particles as
  members); iCEM (Pinneri et al. 2020) or MPPI search in place of the cross-entropy method.
"""

from __future__ import annotations

from dataclasses import dataclass

from robotrl.policies.planner import Planner
from robotrl.policies.squashed import UniformPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Policy, Progress, RobotRLError, StateDict
from robotrl.world_models.fit import ModelFit


@dataclass(slots=True)
class PETSConfig:
    """Hyper-parameters of PETS; those of the model and of the search are the policy's."""

    learning_rate: float = 1e-3
    batch_size: int = 256
    """Transitions of each member in an update."""
    max_grad_norm: float = 100.0
    random_env_steps: int = 500
    """Act uniformly at random until so many env steps are made."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        if self.batch_size < 1:
            raise RobotRLError(f"learner.batch_size is {self.batch_size}; it must be at least 1.")


class PETS:
    """See the module's docstring. What is deployed is the planner with its model."""

    config_class = PETSConfig
    replay_class = ReplayBuffer
    policy_kind = "planner"

    def __init__(self, policy: Planner, spec: EnvSpec, config: PETSConfig, *, num_envs: int) -> None:
        if not isinstance(policy, Planner):
            raise RobotRLError(f"learner=pets trains policy=planner, not policy={policy.config.kind}.")
        self.policy, self.config = policy, config
        self.fit = ModelFit(policy.model, policy.actions.from_env, config.learning_rate, config.max_grad_norm)
        device = policy.actions.low.device
        self._uniform = UniformPolicy(spec, policy.obs_groups, device, stands_for=policy)
        self._random = config.random_env_steps > 0
        self._coef = self.fit.coef

    @property
    def acting(self) -> Policy:
        """Uniform at first, then the planner."""
        return self._uniform if self._random else self.policy

    @property
    def batch_spec(self) -> BatchSpec:
        """Transitions of their own for each member."""
        return {"online": Part("online", "transition", self.policy.model.members * self.config.batch_size)}

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """End the random phase; bring the model's normalisers up to date."""
        self._random = progress.env_steps < self.config.random_env_steps
        self.fit.take_in(fresh)

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """One step of every member."""
        return self.fit.step(batch["online"]), None

    def state_dict(self) -> StateDict:
        """The model with its normalisers, the optimiser, and whether actions are still random."""
        return {"fit": self.fit.state_dict(), "random": self._random}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.fit.load_state_dict(state["fit"])
        self._random = bool(state["random"])
