"""Model-based policy optimisation (Janner et al. 2019, arXiv:1906.08253): SAC on steps that a learned model imagines.

From states of the replay the policy acts for a few steps in an ensemble of models (`robotrl.world_models.dynamics`),
and SAC learns from what happens there, which allows many more updates for each real step.

Differences from the paper, each with its reason:
- What SAC learns from is imagined for each update, with the present model and policy, and not kept: there is no second
  replay that grows stale.
- Each imagined rollout stays with one member, and all members are used; the paper draws one of the elites a step.
- The model is fitted steadily in place of anew every 250 steps, and it learns when episodes terminate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robotrl.learners.sac import SAC, SACConfig
from robotrl.policies.squashed import SquashedPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import (
    Batch,
    BatchSpec,
    EnvSpec,
    Metrics,
    Part,
    Policy,
    Progress,
    RobotRLError,
    StateDict,
    group,
    ungroup,
)
from robotrl.world_models.dynamics import Dynamics
from robotrl.world_models.fit import ModelFit


@dataclass(slots=True)
class MBPOConfig:
    """Hyper-parameters of MBPO."""

    sac: SACConfig = field(default_factory=SACConfig)
    """Of the actor and the critics; `sac.utd_ratio` steps of the critics in each update."""
    real_share: float = 0.05
    """Share of real steps in SAC's batches."""
    rollout_length: int = 1
    """Imagined steps from a real state, at first."""
    final_rollout_length: int | None = None
    """At the end of `rollout_growth`; None: it does not grow."""
    rollout_growth: list[int] = field(default_factory=lambda: [0, 0])
    """Env steps between which the length grows evenly from the first to the final one."""
    models: int = 5
    """Members of the ensemble."""
    model_hidden: list[int] = field(default_factory=lambda: [128, 128, 128])
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    """Transitions of each member in an update."""
    model_first_updates: int = 500
    """Updates in which only the model learns, at first."""
    max_grad_norm: float = 100.0
    """Of the model."""

    def __post_init__(self) -> None:
        if not 0 <= self.real_share < 1:
            raise RobotRLError(f"learner.real_share is {self.real_share}; it must lie in [0, 1).")
        for name in ("rollout_length", "models", "model_batch_size"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.final_rollout_length is not None and self.final_rollout_length < self.rollout_length:
            raise RobotRLError(
                f"learner.final_rollout_length is {self.final_rollout_length}; it must be at least "
                f"learner.rollout_length, {self.rollout_length}."
            )
        if len(self.rollout_growth) != 2 or self.rollout_growth[0] > self.rollout_growth[1]:
            raise RobotRLError(
                f"learner.rollout_growth is {self.rollout_growth}; it must be two numbers of env steps, first and last."
            )
        if self.sac.n_step != 1 or self.sac.demo_ratio:
            raise RobotRLError(
                "learner=mbpo imagines single steps: leave learner.sac.n_step and demo_ratio as they are."
            )


class MBPO:
    """See the module's docstring. The model is not part of what is deployed."""

    config_class = MBPOConfig
    replay_class = ReplayBuffer
    policy_kind = "squashed"

    def __init__(self, policy: SquashedPolicy, spec: EnvSpec, config: MBPOConfig, *, num_envs: int) -> None:
        self.sac = SAC(policy, spec, config.sac, num_envs=num_envs)
        self.policy, self.config = policy, config
        if policy.inputs.images:
            raise RobotRLError("learner=mbpo models numbers; leave images out with policy.groups=[state].")
        groups = tuple(dict.fromkeys((*policy.obs_groups, *(config.sac.critic_groups or ()))))
        model = Dynamics(spec.obs, groups, policy.actions.dim, config.model_hidden, config.models)
        model.to(policy.actions.low.device)
        self.fit = ModelFit(model, policy.actions.from_env, config.model_learning_rate, config.max_grad_norm)
        self._updates = self._env_steps = 0
        per_update = config.sac.utd_ratio * config.sac.batch_size
        self._real = round(config.real_share * per_update / config.sac.utd_ratio) * config.sac.utd_ratio
        self._imagined = per_update - self._real
        self._coef = self.fit.coef

    @property
    def acting(self) -> Policy:
        """SAC's: uniform at first, then the policy."""
        return self.sac.acting

    @property
    def batch_spec(self) -> BatchSpec:
        """Transitions for each member of the model, states to imagine from, and what SAC sees of real ones."""
        c = self.config
        spec = {"model": Part("online", "transition", c.models * c.model_batch_size)}
        if self._updates >= c.model_first_updates:
            spec["start"] = Part("online", "transition", self._starts())
            if self._real:
                spec["real"] = Part("online", "transition", self._real)
        return spec

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """SAC's clocks and normalisers, the model's normalisers, and the length of rollouts."""
        self.sac.observe(fresh, progress)
        self.fit.take_in(fresh)
        self._env_steps = progress.env_steps

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """One step of the model; then SAC's on steps that it imagines."""
        metrics = self.fit.step(batch["model"])
        self._updates += 1
        if "start" not in batch:
            return metrics | {"grad_steps": torch.tensor(1)}, None
        parts = {"imagined": self._imagine(group(batch["start"], "obs"))}
        if "real" in batch:
            parts["real"] = batch["real"]
        learned, _ = self.sac.update(parts)
        learned["grad_norm/nonfinite"] += metrics["grad_norm/nonfinite"]
        learned["grad_steps"] += 1
        learned["model/rollout_length"] = torch.tensor(float(self._length()))
        learned["model/imagined_reward"] = parts["imagined"]["reward"].mean()
        return metrics | learned, None

    def _length(self) -> int:
        c, (first, last) = self.config, self.config.rollout_growth
        if c.final_rollout_length is None:
            return c.rollout_length
        share = 1.0 if self._env_steps >= last else max(0.0, (self._env_steps - first) / max(1, last - first))
        return round(c.rollout_length + share * (c.final_rollout_length - c.rollout_length))

    def _starts(self) -> int:
        """As many as make enough steps, evenly over the members."""
        each = self.config.models * self._length()
        return -(-self._imagined // each) * self.config.models

    @torch.no_grad()
    def _imagine(self, obs: dict[str, Tensor]) -> Batch:
        """Steps of the policy in the model from `obs [n, ...]`: as many rows as SAC is to see, in random order."""
        model, policy = self.fit.model, self.policy
        now = model.vector(obs).unflatten(0, (model.members, -1))
        alive = torch.ones(now.shape[:2], dtype=torch.bool, device=now.device)
        steps: list[Batch] = []
        for _ in range(self._length()):
            seen = model.groups_of(now)
            out, _ = policy.net(policy.inputs(seen), now.new_zeros(0, 0))
            action, _ = policy.sample(out)
            step = model.step(now, action)
            rows = {
                "reward": step.reward, "terminated": torch.rand_like(step.going_on) > step.going_on,
                "action": policy.actions.to_env(action),
            }  # fmt: skip
            rows |= ungroup(seen, "obs") | ungroup(model.groups_of(step.next_obs), "next_obs")
            steps.append({key: value[alive] for key, value in rows.items()})
            alive = alive & ~rows["terminated"]
            now = step.next_obs
        batch = {key: torch.cat([step[key] for step in steps]) for key in steps[0]}
        rows_made = len(batch["reward"])
        order = torch.randperm(rows_made, device=now.device)[: self._imagined]
        if rows_made < self._imagined:  # imagined episodes ended early
            more = torch.randint(rows_made, (self._imagined - rows_made,), device=now.device)
            order = torch.cat([order, more])
        return {key: value[order] for key, value in batch.items()}

    def state_dict(self) -> StateDict:
        """SAC's, the model with its optimiser, and the clocks."""
        return {
            "sac": self.sac.state_dict(), "fit": self.fit.state_dict(), "updates": self._updates,
            "env_steps": self._env_steps,
        }  # fmt: skip

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.sac.load_state_dict(state["sac"])
        self.fit.load_state_dict(state["fit"])
        self._updates, self._env_steps = int(state["updates"]), int(state["env_steps"])
