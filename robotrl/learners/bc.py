"""Behaviour cloning (Pomerleau 1991): fit the policy to what the demonstrations did, by likelihood or squared error.

Nothing is collected: it learns from `replay.demos` alone, and the run's env is there to be evaluated on. An iteration's
"env steps" are a clock that counts `schedule.rollout_steps`; the shared preset makes one update for each.
"""

from __future__ import annotations

from dataclasses import dataclass

from robotrl.nets.flat import Adam, clip_gradient, flatten_parameters, zero_gradient
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group

MOMENT_STEPS = 200_000
"""Demonstrated steps after which the observation normaliser stands still."""
LOG_STD_MIN = -5.0
"""Of a state-independent deviation: demonstrations without noise would drive it, and the gradients, to no end."""


@dataclass(slots=True)
class BCConfig:
    """Hyper-parameters of behaviour cloning."""

    loss: str = "nll"
    """`nll`, minus the log-likelihood of the demonstrated action, or `mse`, the squared error of the policy's
    deterministic action in units where the env's bounds are [-1, 1]."""
    learning_rate: float = 1e-3
    lr_schedule: str = "linear"
    """`linear` to zero over the run, or `constant`."""
    batch_size: int = 256
    """Sequences in one step."""
    length: int = 1
    """Steps of a sequence; more than one for recurrent policies, which start each from an empty memory."""
    weight_decay: float = 0.0
    """Share of the weights that is taken off at each step, times the learning rate (Loshchilov and Hutter 2019)."""
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("batch_size", "length"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        for name, known in (("loss", ("nll", "mse")), ("lr_schedule", ("linear", "constant"))):
            if getattr(self, name) not in known:
                raise RobotRLError(f"learner.{name} is '{getattr(self, name)}'; it must be {' or '.join(known)}.")
        if self.weight_decay < 0:
            raise RobotRLError(f"learner.weight_decay is {self.weight_decay}; it must not be negative.")


class BC:
    """See the module's docstring. Any policy kind but mixtures; recurrent ones with `length` above one."""

    config_class = BCConfig
    replay_class = ReplayBuffer
    policy_kind = "auto"

    def __init__(self, policy: StochasticPolicy, spec: EnvSpec, config: BCConfig, *, num_envs: int) -> None:
        if config.loss == "mse" and not policy.actions.continuous:
            raise RobotRLError(f"{spec.id} has discrete actions, which have no squared error. Use learner.loss=nll.")
        self.policy = self.acting = policy
        self.config = config
        self._flat = flatten_parameters(policy.actor_parameters())
        self._adam = Adam(self._flat, config.learning_rate)
        # the keys of every loss, asserted against what the updates produce
        self._coef = {config.loss: 1.0}

    @property
    def batch_spec(self) -> BatchSpec:
        """Windows of demonstrations, each within one episode."""
        c = self.config
        return {"demos": Part("demos", "sequence", c.batch_size, c.length, within_episode=True)}

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Anneal the learning rate."""
        if self.config.lr_schedule == "linear":
            self._adam.lr = self.config.learning_rate * (1.0 - progress.fraction)

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """One step on one batch `[T, B, ...]`; steps behind an episode's end do not count."""
        c, policy, rows = self.config, self.policy, batch["demos"]
        obs, valid = group(rows, "obs"), rows["valid"]
        normaliser = policy.inputs.normaliser
        if normaliser is not None and normaliser.count < MOMENT_STEPS:
            normaliser.merge(*policy.inputs.moments(obs))  # type: ignore[misc]  # not None where there is a normaliser
        out = policy.sequence(policy.inputs(obs), policy.initial_state(valid.shape[1]), rows["is_first"])
        if c.loss == "nll":
            log_prob, _ = policy.log_prob_and_entropy(out, policy.raw_from_env(rows["action"]))
            error = -log_prob
        else:
            error = (policy.deterministic(out) - policy.actions.from_env(rows["action"])).square().mean(-1)
        loss = (error * valid).sum() / valid.sum()
        zero_gradient(self._flat)
        loss.backward()
        norm = clip_gradient(self._flat, c.max_grad_norm)
        if c.weight_decay:
            self._flat.data.mul_(1.0 - self._adam.lr * c.weight_decay)
        self._adam.step()
        if policy.log_std is not None:
            policy.log_std.data.clamp_(min=LOG_STD_MIN)
        result = {f"loss/{c.loss}": loss.detach(), "grad_norm/actor": norm}
        assert {key.removeprefix("loss/") for key in result if key.startswith("loss/")} == set(self._coef)
        result["grad_norm/nonfinite"] = (~norm.isfinite()).float()
        return result, None

    def state_dict(self) -> StateDict:
        """Weights, normaliser and optimiser."""
        return {"policy": dict(self.policy.state_dict()), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.policy.load_state_dict(state["policy"])
        self._adam.load_state_dict(state["adam"])
