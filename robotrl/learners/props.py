"""Proximal robust on-policy sampling (Corrado and Hanna 2023, arXiv:2311.08290): PROPS, and what it is compared with.

An on-policy gradient needs data in which actions are as frequent as under the target policy; it need not be the target
that collects them. A behaviour policy, reset to the target and then moved a little, raises the probability of actions
that are rarer in the data so far than they should be. The target learns by PPO from the last few target batches.

Differences from the paper and its code, each with its reason (docs/learners/props.md has the full list):
- The target's update is `learner=ppo`: truncation bootstraps, and actor and critic have an optimiser each.
- The behaviour update sees the rows that the next target update will see, no others (the code's ring buffer still
  counts rows that will be gone by then), and log-probabilities under the target as it is now (the code's are from
  before the target's update).
- For discrete actions the penalty is the exact KL divergence.
- ROS (Zhong et al. 2022) is one plain gradient step away from the target that lowers the likelihood of what was taken;
  the code's continuous ROS goes the other way, which is kept as `ros_wrong_sign` to show what it does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.learners.ppo import PPO, PPOConfig
from robotrl.nets.flat import Adam
from robotrl.policies.fused import FusedPolicy
from robotrl.policies.sampling_error import sampling_error
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.replay.rollout import RolloutBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Policy, Progress, RobotRLError, StateDict, group

Array = NDArray[np.float32]
BEHAVIOURS = ("props", "ros", "ros_wrong_sign", "on_policy")


@dataclass(slots=True)
class PROPSConfig:
    """Hyper-parameters of PROPS. With N envs, n = target_steps x N and m = schedule.rollout_steps x N env steps."""

    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Of the target policy."""
    target_steps: int = 32
    """Steps of every env between two updates of the target; the behaviour policy is updated after every collect, so
    `schedule.rollout_steps` must divide it."""
    num_batches: int = 2
    """Target batches the target learns from, the newest (b)."""
    behaviour: str = "props"
    """Who collects: `props`, `ros`, or `on_policy`, the target itself: PPO with `num_batches=1`, PPO with a buffer of
    old data with more. `ros_wrong_sign` raises what was taken often already; it is there to be measured."""
    behaviour_learning_rate: float = 1e-3
    """Of Adam; with `ros` the length of its one plain gradient step, which wants to be large."""
    behaviour_epochs: int = 16
    behaviour_minibatches: int = 16
    behaviour_clip: float = 0.3
    """An action whose probability has fallen by this share of the target's is pushed no further down."""
    behaviour_kl_coef: float = 0.1
    """Weight of KL(behaviour || target), a mean over the numbers of an action."""
    behaviour_max_kl: float = 0.03
    """The update ends before the step at which a minibatch's KL(target || behaviour) exceeds this."""
    behaviour_max_grad_norm: float = 0.5
    train_target: bool = True
    """False: the target stays as it is, which measures sampling error alone."""
    measure_sampling_error: bool = False
    """Log the sampling error of what the target learns from, beside that of on-policy actions in the same states."""

    def __post_init__(self) -> None:
        for name in ("target_steps", "num_batches", "behaviour_epochs", "behaviour_minibatches"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("behaviour_learning_rate", "behaviour_clip", "behaviour_max_kl", "behaviour_max_grad_norm"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        if not self.behaviour_kl_coef >= 0:
            raise RobotRLError(f"learner.behaviour_kl_coef is {self.behaviour_kl_coef}; it must be at least 0.")
        if self.behaviour not in BEHAVIOURS:
            raise RobotRLError(f"learner.behaviour is '{self.behaviour}'; it must be one of {', '.join(BEHAVIOURS)}.")


class PROPS:
    """See the module's docstring. `policy` is the target, `acting` the behaviour policy."""

    config_class = PROPSConfig
    replay_class = RolloutBuffer
    policy_kind = "mlp"

    def __init__(self, policy: StochasticPolicy, spec: EnvSpec, config: PROPSConfig, *, num_envs: int) -> None:
        self.policy, self.config, self._num_envs = policy, config, num_envs
        self._moving = FusedPolicy(policy)
        self._behaviour = copy.deepcopy(policy)
        self._behaviour.inputs = policy.inputs  # one normaliser, which changes with the target only
        self.acting: Policy = policy if config.behaviour == "on_policy" else self._behaviour
        self.ppo = PPO(policy, spec, config.ppo, num_envs=num_envs)
        self._adam = Adam(self._moving.net.flat, config.behaviour_learning_rate, eps=1e-5)
        self._steps = 0
        # the weights of the behaviour policy's losses; those of the target's are PPO's
        self._coef = {"behaviour": _SIGN[config.behaviour], "behaviour_kl": config.behaviour_kl_coef}
        self._ros = config.behaviour.startswith("ros")

    @property
    def batch_spec(self) -> BatchSpec:
        """The newest b target batches."""
        return {"online": Part(kind="rollout", newest_steps=self.config.num_batches * self.config.target_steps)}

    def check_schedule(self, rollout_steps: int, updates: float) -> None:
        """One update a collect, and whole collects in a target batch.

        Raises:
            RobotRLError: it is otherwise.
        """
        n, envs = self.config.target_steps, self._num_envs
        if n % rollout_steps:
            best = min((k for k in range(1, n + 1) if n % k == 0), key=lambda k: abs(k - rollout_steps))
            raise RobotRLError(
                f"The behaviour policy learns every m = {rollout_steps * envs:,} env steps (schedule.rollout_steps="
                f"{rollout_steps} in {envs} envs) and the target every n = {n * envs:,} (learner.target_steps={n}), "
                f"but m must divide n. Set schedule.rollout_steps={best}, or another learner.target_steps."
            )
        if updates != 1:
            raise RobotRLError(
                f"schedule.updates is {updates:g}, but learner=props learns once after every collect. Set "
                "schedule.updates=1; schedule.rollout_steps and learner.target_steps say how often it learns."
            )

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Count to n; the target's own clocks, moments and reward scale."""
        self._steps += len(fresh["reward"])
        if self.config.train_target:
            self.ppo.observe(fresh, progress)

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """Every n env steps the target by PPO; then the behaviour policy, from the target as it is now."""
        c, rollout = self.config, _as_one_stream(batch["online"])
        metrics: Metrics = {"grad_steps": torch.zeros(())}
        since = self._steps % c.target_steps
        if since == 0:
            if c.measure_sampling_error:
                metrics |= self._sampling_error(rollout)
            if c.train_target:  # the old policy of PPO's ratio is the target as it is now, whoever acted when
                metrics |= self.ppo.update({"online": rollout | {"log_prob": self._log_prob(rollout)}})[0]
        if c.behaviour != "on_policy":
            survive = (c.num_batches - 1) * c.target_steps + since  # newest steps that the next target update will see
            learned = self._update_behaviour(_newest(rollout, survive)) if survive else self._reset_behaviour()
            metrics |= learned | {"grad_steps": metrics["grad_steps"] + learned.get("behaviour/steps", 0.0)}
        return metrics, None

    @torch.no_grad()
    def _log_prob(self, rollout: Batch) -> Tensor:
        """Of what was taken, under the target."""
        out = self.policy.sequence(self.policy.inputs(group(rollout, "obs")), {}, rollout["is_first"])
        return self.policy.log_prob_and_entropy(out, rollout["raw_action"])[0]

    def _reset_behaviour(self) -> Metrics:
        """Nothing collected so far will be seen by the next target update: on-policy is best."""
        self._moving.load(self.policy)
        self._moving.store(self._behaviour)
        return {}

    def _update_behaviour(self, steps: Batch) -> Metrics:
        """From the target: lower the probability of what is over-represented in `steps [B, ...]`."""
        c, moving = self.config, self._moving
        moving.load(self.policy)
        rows = moving.rows(self.policy, group(steps, "obs"), steps["raw_action"])
        norms: list[float] = []
        epochs, parts = (1, 1) if self._ros else (c.behaviour_epochs, c.behaviour_minibatches)
        for minibatch in _minibatches(rows, epochs, parts):
            log_ratio = moving.log_ratio(minibatch)
            ratio = np.exp(log_ratio)
            # KL(target || behaviour), by the estimator k3 of Schulman (2020)
            if np.add.reduce(ratio - 1.0 - log_ratio) > c.behaviour_max_kl * len(ratio):
                break
            # L_CLIP, max(r, clip(r, 1 - eps, 1 + eps)), has the slope of r where r >= 1 - eps, else none. ROS is its
            # first step: there r is one, and the penalty's gradient zero.
            kept = ratio >= 1.0 - c.behaviour_clip
            moving.pull(kept * ratio * (self._coef["behaviour"] / len(ratio)), self._coef["behaviour_kl"])
            norms.append(self._step())
        result = self._summary(rows, norms)
        moving.store(self._behaviour)
        return result

    def _step(self) -> float:
        """Along the gradient, unless it is not finite; its norm before clipping."""
        net, c = self._moving.net, self.config
        norm = math.sqrt(net.gradient @ net.gradient)
        if not math.isfinite(norm):
            return norm
        if self._ros:
            net.values -= c.behaviour_learning_rate * net.gradient
            return norm
        if norm > c.behaviour_max_grad_norm:
            np.multiply(net.gradient, c.behaviour_max_grad_norm / norm, out=net.gradient)
        self._adam.step()
        return norm

    def _summary(self, rows: NDArray[np.float32], norms: list[float]) -> Metrics:
        """Where the update ended, over all its rows."""
        c, finite = self.config, [norm for norm in norms if math.isfinite(norm)]
        log_ratio = self._moving.log_ratio(rows)
        ratio = np.exp(log_ratio)
        clipped = np.maximum(ratio, 1.0 - c.behaviour_clip)
        losses = {"behaviour": clipped.mean(), "behaviour_kl": self._moving.divergence()}
        assert losses.keys() == self._coef.keys()
        numbers = {f"loss/{name}": value for name, value in losses.items()} | {
            "behaviour/kl": (ratio - 1.0 - log_ratio).mean(),
            "behaviour/clip_fraction": (ratio < 1.0 - c.behaviour_clip).mean(),
            "behaviour/steps": len(norms),
            "behaviour/rows": rows.shape[1],
            "grad_norm/behaviour": np.mean(finite) if finite else 0.0,
            "grad_norm/behaviour_nonfinite": len(norms) - len(finite),
        }
        return {name: torch.tensor(float(value)) for name, value in numbers.items()}

    def _sampling_error(self, rollout: Batch) -> Metrics:
        """Of what the target is about to learn from."""
        steps = _newest(rollout, len(rollout["reward"]))
        found = sampling_error(self.policy, group(steps, "obs"), steps["raw_action"], seed=self._steps)
        numbers = {"data": found.data, "on_policy": found.on_policy, "ratio": found.ratio}
        return {f"sampling_error/{name}": torch.tensor(value) for name, value in numbers.items()}

    def state_dict(self) -> StateDict:
        """The target's learner, the behaviour policy, its optimiser and the clock."""
        return {
            "ppo": self.ppo.state_dict(),
            "behaviour": dict(self._behaviour.state_dict()),
            "adam": self._adam.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._behaviour.load_state_dict(state["behaviour"])  # before the target's: they share the normaliser
        self.ppo.load_state_dict(state["ppo"])
        self._adam.load_state_dict(state["adam"])
        self._steps = int(state["steps"])


_SIGN = {"props": 1.0, "ros": 1.0, "ros_wrong_sign": -1.0, "on_policy": 0.0}


def _as_one_stream(rollout: Batch) -> Batch:
    """The rollout with `truncated` set where a new episode follows that nothing ended, so that no trace runs across.

    That happens once after the resume of an env that cannot restore its running episodes.
    """
    done = rollout["terminated"] | rollout["truncated"]
    broken = torch.zeros_like(done)
    broken[:-1] = rollout["is_first"][1:] & ~done[:-1]
    return rollout | {"truncated": rollout["truncated"] | broken}


def _newest(rollout: Batch, steps: int) -> Batch:
    """The newest `steps` steps of every env as rows `[B, ...]`."""
    return {k: v[-steps:].flatten(0, 1) for k, v in rollout.items() if not k.startswith(("state/", "next_obs/"))}


def _minibatches(rows: NDArray[np.float32], epochs: int, parts: int) -> Iterator[NDArray[np.float32]]:
    """The columns of `rows` in random order, in `parts` parts, `epochs` times."""
    size = -(-rows.shape[1] // parts)
    for _ in range(epochs):
        shuffled = rows.take(torch.randperm(rows.shape[1]).numpy(), axis=1) if parts > 1 else rows
        for start in range(0, rows.shape[1], size):
            yield shuffled[:, start : start + size]
