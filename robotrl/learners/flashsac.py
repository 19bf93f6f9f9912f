"""FlashSAC (2026; repository Holiday-Robot/FlashSAC, commit 87edc90): SAC with normalised, categorical critics.

What it adds to SAC, after the authors' code: observations, actions and their successors go through batch-normalised
critics in one forward pass, so that both have the same statistics (CrossQ, Bhatt et al. 2024); residual networks with
weights of unit norm; critics that give a distribution over bins of the value, fitted by cross-entropy to the projected
target (Bellemare et al. 2017); rewards divided by a running scale of the return, so that values fit the bins; an
actor step at every second update; noise that is held for several steps.

Differences from the authors' code:
- The log-deviation is bounded to [-5, 2] instead of [-10, 2], and noise is drawn anew when an episode starts.
- Arithmetic is float32 throughout; nothing is compiled.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robotrl.functional.distributions import project_categorical
from robotrl.functional.returns import bellman_rows, discounted_sums
from robotrl.nets.flash import FlashStack
from robotrl.nets.flat import Adam, flatten_parameters, gradient_norm
from robotrl.nets.network import VECTOR
from robotrl.nets.normaliser import Normaliser
from robotrl.policies.flash import FlashPolicy
from robotrl.policies.squashed import UniformPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group


@dataclass(slots=True)
class FlashSACConfig:
    """Hyper-parameters of FlashSAC."""

    learning_rate: float = 3e-4
    final_learning_rate: float = 1.5e-4
    """The learning rate falls to this over the run, along half a cosine."""
    batch_size: int = 512
    gamma: float = 0.99
    tau: float = 0.01
    n_step: int = 1
    """Rewards summed before the target bootstraps."""
    critic_hidden: list[int] = field(default_factory=lambda: [256, 256])
    """The critics' width, once for each block."""
    num_bins: int = 101
    value_range: float = 5.0
    """Bins reach from minus to plus this, in units of scaled reward."""
    normalise_reward: bool = True
    """Divide rewards by the deviation of the discounted return, or more where that would leave the bins' range."""
    entropy_backup: bool = True
    actor_every: int = 2
    """Updates for each step of actor and temperature."""
    init_temperature: float = 0.01
    target_std: float = 0.15
    """The temperature steers to the entropy of a Gaussian of this deviation in each action dimension."""
    random_env_steps: int = 10_000
    """Act uniformly at random until so many env steps are made."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "final_learning_rate", "tau", "value_range", "init_temperature", "target_std"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name, least in (("batch_size", 2), ("n_step", 1), ("num_bins", 2), ("actor_every", 1)):
            if getattr(self, name) < least:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in ("gamma", "tau"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must lie in [0, 1].")
        if len(set(self.critic_hidden)) != 1:
            raise RobotRLError(
                f"learner.critic_hidden is {self.critic_hidden}; FlashSAC's blocks have one width, as in [256,256]."
            )


class FlashSAC:
    """See the module's docstring. Critics, temperature and reward scale are not part of what is deployed."""

    config_class = FlashSACConfig
    replay_class = ReplayBuffer
    policy_kind = "flash"

    def __init__(self, policy: FlashPolicy, spec: EnvSpec, config: FlashSACConfig, *, num_envs: int) -> None:
        if not isinstance(policy, FlashPolicy):
            raise RobotRLError(f"learner=flashsac trains policy=flash, not policy={policy.config.kind}.")
        self.policy, self.config = policy, config
        device, c = next(policy.parameters()).device, config
        features = policy.inputs.dim + policy.actions.dim
        self.critics = FlashStack(2, features, c.critic_hidden[0], len(c.critic_hidden), c.num_bins).to(device)
        self.targets = deepcopy(self.critics).requires_grad_(False)
        self._bins = torch.linspace(-c.value_range, c.value_range, c.num_bins, device=device)
        self._actor_flat = flatten_parameters(policy.actor_parameters())
        self._critic_flat = flatten_parameters(self.critics.parameters())
        self._target_flat = flatten_parameters(self.targets.parameters())
        self._log_temperature = nn.Parameter(torch.tensor([c.init_temperature], device=device).log())
        self._adams = {
            "actor": Adam(self._actor_flat, c.learning_rate),
            "critic": Adam(self._critic_flat, c.learning_rate),
            "temperature": Adam(self._log_temperature, c.learning_rate),
        }
        # the differential entropy of a Gaussian, 1/2 log(2 pi e std^2) a dimension
        self._target_entropy = policy.actions.dim * (0.5 * math.log(2.0 * math.pi * math.e) + math.log(c.target_std))
        self._return_sum, self._return_stats = torch.zeros(num_envs), Normaliser(1)
        self._largest = 0.0
        self._updates = 0
        self._uniform = UniformPolicy(spec, policy.obs_groups, device, stands_for=policy)
        self._random = c.random_env_steps > 0
        # the keys of every loss, asserted against what the updates produce
        self._coef = {"critic": 1.0, "policy": 1.0, "temperature": 1.0}

    @property
    def acting(self) -> FlashPolicy | UniformPolicy:
        """Uniform at first, then the policy."""
        return self._uniform if self._random else self.policy

    @property
    def batch_spec(self) -> BatchSpec:
        """Transitions, or windows of `n_step`."""
        c = self.config
        if c.n_step == 1:
            return {"online": Part("online", "transition", c.batch_size)}
        return {"online": Part("online", "sequence", c.batch_size, c.n_step, within_episode=True)}

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """End the random phase, anneal the learning rate, bring the scale of returns up to date."""
        c = self.config
        self._random = progress.env_steps < c.random_env_steps
        fall = 0.5 * (1.0 + math.cos(math.pi * progress.fraction))
        for adam in self._adams.values():
            adam.lr = c.final_learning_rate + fall * (c.learning_rate - c.final_learning_rate)
        if "reward" in fresh:
            done = (fresh["terminated"] | fresh["truncated"]).cpu()
            sums, self._return_sum = discounted_sums(fresh["reward"].cpu(), done, self._return_sum, c.gamma)
            self._return_stats.merge(*Normaliser.moments(sums.unsqueeze(-1)))
            self._largest = max(self._largest, float(sums.abs().max()))

    @property
    def reward_scale(self) -> float:
        """What rewards are divided by."""
        if not self.config.normalise_reward or not self._largest:
            return 1.0
        return max(float(self._return_stats.var) ** 0.5, self._largest / self.config.value_range, 1e-8)

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """A step of actor and temperature at every `actor_every`-th update, then one of the critics and targets."""
        c, metrics = self.config, Metrics()
        rows = bellman_rows(batch["online"], c.n_step, c.gamma, self.policy.actions.from_env)
        obs, after = (self.policy.inputs(group(rows, prefix))[VECTOR] for prefix in ("obs", "next_obs"))
        trains_actor = self._updates % c.actor_every == 0
        self._updates += 1
        if trains_actor:
            log_prob = self._policy_gradient(obs, after, metrics)
            metrics["grad_norm/actor"] = gradient_norm(self._actor_flat)
            self._adams["actor"].step()
            self.policy.net.net.normalise()
            self._step_temperature(log_prob, metrics)
        self._critic_gradient(rows, obs, after, metrics)
        metrics["grad_norm/critic"] = gradient_norm(self._critic_flat)
        self._adams["critic"].step()
        self.critics.normalise()
        self._target_flat.data.lerp_(self._critic_flat.data, c.tau)
        found = {k.removeprefix("loss/") for k in metrics if k.startswith("loss/")}
        assert found == (set(self._coef) if trains_actor else {"critic"})
        norms = [value for name, value in metrics.items() if name.startswith("grad_norm/")]
        metrics["grad_norm/nonfinite"] = (~torch.stack(norms).isfinite()).float().sum()
        return metrics, None

    def _policy_gradient(self, obs: Tensor, after: Tensor, metrics: Metrics) -> Tensor:
        """Of temperature times log-probability less the lesser value; normalised by steps and successors together.

        Returns the log-probabilities.
        """
        count, temperature = len(obs), self._log_temperature.detach().exp()
        out, pull_actor = self.policy.net.net.pullback(torch.cat([obs, after]), slice(count))
        action, log_prob, pull_sample = self.policy.sample_pullback(out[0])
        logits, pull = self.critics.pullback_to_input(torch.cat([obs, action], -1))
        chances = torch.softmax(logits, -1)
        q = chances @ self._bins
        value = q.amin(0)
        share = (q == value).to(q.dtype)  # how each critic's value moves the lesser one
        share *= -1.0 / (share.sum(0) * count)
        by_logits = (self._bins - q.unsqueeze(-1)).mul_(chances).mul_(share.unsqueeze(-1))
        by_action = pull(by_logits)[:, obs.shape[1] :]
        by_out = pull_sample(by_action, (temperature / count).expand_as(log_prob))
        pull_actor(by_out.unsqueeze(0))
        metrics["loss/policy"] = (temperature * log_prob - value).mean()
        metrics["policy/entropy"] = -log_prob.mean()
        metrics["policy/temperature"] = temperature.squeeze()
        return log_prob

    def _step_temperature(self, log_prob: Tensor, metrics: Metrics) -> None:
        """Descend the temperature times the entropy's excess; its gradient is the loss itself."""
        loss = self._log_temperature.detach().exp() * (-log_prob.mean() - self._target_entropy)
        self._log_temperature.grad = torch.where(loss.isfinite(), loss, 0.0)
        self._adams["temperature"].step()
        metrics["loss/temperature"] = loss.squeeze()

    @torch.no_grad()
    def _critic_gradient(self, rows: Batch, obs: Tensor, after: Tensor, metrics: Metrics) -> None:
        """Of the cross-entropy to the projected soft target of the lesser critic, the mean over critics and batch."""
        c, count = self.config, len(obs)
        action, log_prob = self.policy.sample(self.policy.net.net(after)[0])
        x = torch.cat([torch.cat([obs, after]), torch.cat([rows["unit_action"], action])], -1)
        logits = self.targets.of_batch(x, slice(count, None))
        chances = torch.softmax(logits, -1)
        lesser = (chances @ self._bins).argmin(0)
        soft = self._bins - self._log_temperature.exp() * log_prob.unsqueeze(-1) * c.entropy_backup
        values = (rows["reward"] / self.reward_scale).unsqueeze(-1) + rows["discount"].unsqueeze(-1) * soft
        target = project_categorical(chances[lesser, torch.arange(count, device=lesser.device)], values, c.value_range)
        logits, pull = self.critics.pullback(x, slice(count))
        log_chances = torch.log_softmax(logits, -1)
        chances = log_chances.exp()
        pull((chances - target).div_(len(chances) * count))
        metrics["loss/critic"] = -(target * log_chances).sum(-1).mean()
        metrics["value/q"] = (chances @ self._bins).mean() * self.reward_scale
        metrics["value/target"] = (target @ self._bins).mean() * self.reward_scale
        metrics["value/reward_scale"] = torch.tensor(self.reward_scale)
        metrics["value/at_the_edge"] = target[:, [0, -1]].sum(-1).mean()

    def state_dict(self) -> StateDict:
        """Weights, optimisers, temperature, the scale of returns, and the method's clocks."""
        return {
            "policy": dict(self.policy.state_dict()),
            "critics": dict(self.critics.state_dict()),
            "targets": dict(self.targets.state_dict()),
            "log_temperature": self._log_temperature.data,
            "adams": {name: adam.state_dict() for name, adam in self._adams.items()},
            "return_sum": self._return_sum,
            "return_stats": dict(self._return_stats.state_dict()),
            "largest": self._largest,
            "updates": self._updates,
            "random": self._random,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.policy.load_state_dict(state["policy"])
        self.critics.load_state_dict(state["critics"])
        self.targets.load_state_dict(state["targets"])
        self._log_temperature.data.copy_(state["log_temperature"])
        for name, adam in self._adams.items():
            adam.load_state_dict(state["adams"][name])
        self._return_sum = state["return_sum"]
        self._return_stats.load_state_dict(state["return_stats"])
        self._largest, self._updates = float(state["largest"]), int(state["updates"])
        self._random = bool(state["random"])
