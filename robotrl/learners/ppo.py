"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), the clipped variant.

Differences from the paper, each with its source:
- Truncation bootstraps with the value of the observation before the reset (Pardo et al. 2018).
- Advantages are normalised over the rollout, observations by the policy's running statistics, rewards by the running
  deviation of the discounted return (Engstrom et al. 2020; Andrychowicz et al. 2021).
- Actor and critic are separate networks with an optimiser and a gradient clip each, so their epochs are independent
  and can run side by side on two cores; the result is the same bytes as one after the other.
- Advantages may be recomputed before every epoch (Andrychowicz et al. 2021, sec. 3.5).
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from robotrl.functional.returns import discounted_sums, gae
from robotrl.functional.surrogate import clipped_surrogate
from robotrl.nets.flat import Adam, clip_gradient, flatten_parameters, zero_gradient
from robotrl.nets.network import ObsInputs
from robotrl.nets.normaliser import Normaliser
from robotrl.nets.regression import regress
from robotrl.policies.stochastic import StochasticPolicy
from robotrl.replay.rollout import RolloutBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group, ungroup


@dataclass(slots=True)
class PPOConfig:
    """Hyper-parameters of PPO."""

    learning_rate: float = 3e-4
    lr_schedule: str = "linear"
    """`linear` to zero over the run, or `constant`."""
    num_epochs: int = 10
    num_minibatches: int = 4
    clip_ratio: float = 0.2
    gamma: float = 0.99
    gae_lambda: float = 0.95
    entropy_coef: float = 0.0
    value_coef: float = 0.5
    max_grad_norm: float = 0.5
    """Largest gradient norm, of the actor and of the critic each."""
    target_kl: float | None = None
    """The actor's steps of an update end at the first minibatch whose mean KL exceeds this; None: never."""
    normalise_advantage: bool = True
    normalise_reward: bool = True
    """Divide rewards by the running deviation of the discounted return."""
    recompute_advantage: bool = False
    """Compute advantages anew before each epoch, with the critic as it is then."""
    critic_groups: list[str] | None = None
    """Observation groups of the critic; None: those of the policy."""
    two_threads: bool | None = None
    """Train the critic in a second thread on a CPU: the same bytes, sooner. None: where that is worth it, which is with
    tanh and no memory, with a layer of 128 units or more, or with images."""

    def __post_init__(self) -> None:
        positive = ("learning_rate", "num_epochs", "num_minibatches", "clip_ratio", "max_grad_norm", "value_coef")
        for name in positive:
            if getattr(self, name) <= 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("gamma", "gae_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must lie in [0, 1].")
        if self.lr_schedule not in ("linear", "constant"):
            raise RobotRLError(f"learner.lr_schedule is '{self.lr_schedule}'; it must be linear or constant.")


class PPO:
    """See the module's docstring. The critic has the policy's architecture and is not part of what is deployed."""

    config_class = PPOConfig
    replay_class = RolloutBuffer
    policy_kind = "auto"

    def __init__(self, policy: StochasticPolicy, spec: EnvSpec, config: PPOConfig, *, num_envs: int) -> None:
        self.policy = self.acting = policy
        self.config, self._num_envs = config, num_envs
        c = config
        self.critic_inputs = policy.critic_inputs(c.critic_groups)
        self.critic = policy.network(1, inputs=self.critic_inputs)
        device = policy.log_std.device
        self.critic.to(device)
        self.critic_inputs.to(device)
        self._actor_flat = flatten_parameters(policy.actor_parameters())
        self._critic_flat = flatten_parameters(self.critic.parameters())
        self._actor_adam = Adam(self._actor_flat, c.learning_rate, eps=1e-5)
        self._critic_adam = Adam(self._critic_flat, c.learning_rate, eps=1e-5)
        self._critic_hidden = self._actor_flat.new_zeros(num_envs, self.critic.gru_size)
        self._return_sum = torch.zeros(num_envs)
        self._return_stats = Normaliser(1)
        self._moments: list[tuple[ObsInputs, tuple[Tensor, ...]]] = []
        self._next_critic_hidden = self._critic_hidden
        # a new thread would take torch's default of one thread a core, whatever the main thread was set to
        threads = torch.get_num_threads()
        wide = max(policy.config.hidden, default=0) >= 128 or bool(policy.inputs.images)
        side = device.type == "cpu" and (wide or self.critic.plain if c.two_threads is None else c.two_threads)
        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) if side else None
        # the keys of every loss, asserted against what the updates produce
        self._coef = {"policy": 1.0, "entropy": -c.entropy_coef, "value": c.value_coef}

    @property
    def batch_spec(self) -> BatchSpec:
        """One whole rollout."""
        return {"online": Part(kind="rollout")}

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Anneal the learning rate, gather observation moments, bring the reward scale up to date."""
        if self.config.lr_schedule == "linear":
            for adam in (self._actor_adam, self._critic_adam):
                adam.lr = self.config.learning_rate * (1.0 - progress.fraction)
        obs = group(fresh, "obs")
        for inputs in {id(i): i for i in (self.policy.inputs, self.critic_inputs)}.values():
            moments = inputs.moments(obs)
            if moments is not None:
                self._moments.append((inputs, moments))
        done = fresh["terminated"] | fresh["truncated"]
        sums, self._return_sum = discounted_sums(fresh["reward"].cpu(), done.cpu(), self._return_sum, self.config.gamma)
        self._return_stats.merge(*Normaliser.moments(sums.unsqueeze(-1)))

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """All epochs over one rollout; in each, actor and critic see the same minibatches."""
        c, policy = self.config, self.policy
        data = self._prepare(batch["online"])
        metrics: defaultdict[str, list[Tensor]] = defaultdict(list)
        log_ratios: list[Tensor] = []
        actor_learns = True
        for epoch in range(c.num_epochs):
            if epoch == 0 or c.recompute_advantage:
                self._estimate_advantages(batch["online"], data)
            minibatches = _shuffle(data, c.num_minibatches)
            beside = None if self._thread is None else self._thread.submit(self._fit_critic, minibatches)
            for rows in minibatches if actor_learns else ():
                out, pull = policy.net.sequence_pullback(group(rows, "inputs"), rows["hidden"][0], rows["is_first"])
                zero_gradient(self._actor_flat)
                log_prob, entropy = policy.log_prob_and_entropy(out.requires_grad_(), rows["raw_action"])
                log_ratio = log_prob.detach() - rows["log_prob"]
                loss, by_log_prob = clipped_surrogate(log_ratio, rows["advantage"], c.clip_ratio)
                log_prob.backward(by_log_prob)
                if c.entropy_coef:
                    (self._coef["entropy"] * entropy).backward()
                assert out.grad is not None
                pull(out.grad)
                log_ratios.append(log_ratio.flatten())
                metrics["loss/policy"].append(loss)
                metrics["loss/entropy"].append(entropy.detach())
                metrics["grad_norm/actor"].append(clip_gradient(self._actor_flat, c.max_grad_norm))
                self._actor_adam.step()
                if c.target_kl is not None and _kl(log_ratio) > c.target_kl:
                    actor_learns = False
                    break
            learned = self._fit_critic(minibatches) if beside is None else beside.result()
            for name, values in learned.items():
                metrics[name] += values
        self._merge_moments()
        return self._summary(metrics, torch.cat(log_ratios), data), None

    @torch.no_grad()
    def _fit_critic(self, minibatches: list[Batch]) -> dict[str, list[Tensor]]:
        """The critic's epoch: half the squared error to the lambda-returns, times `value_coef`."""
        own = "inputs" if self.critic_inputs is self.policy.inputs else "critic_inputs"
        losses, norms = regress(
            self.critic,
            self._critic_adam,
            [(group(rows, own), rows["critic_hidden"][0], rows["is_first"]) for rows in minibatches],
            [rows["returns"] for rows in minibatches],
            coef=self._coef["value"],
            max_norm=self.config.max_grad_norm,
        )
        return {"loss/value": losses, "grad_norm/critic": norms}

    @torch.no_grad()
    def _prepare(self, rollout: Batch) -> Batch:
        """What stays fixed over the epochs; its columns (axis 1) are what minibatches are drawn from.

        For a recurrent policy columns are envs and rows are time; for others there is one row, and each step is a
        column.
        """
        obs = group(rollout, "obs")
        data = {key: rollout[key] for key in ("raw_action", "log_prob", "is_first")}
        data |= ungroup(self.policy.inputs(obs), "inputs")
        if self.critic_inputs is not self.policy.inputs:
            data |= ungroup(self.critic_inputs(obs), "critic_inputs")
        if "state/hidden" in rollout:
            return data | {"hidden": rollout["state/hidden"][:1], "critic_hidden": self._critic_hidden.unsqueeze(0)}
        columns = data["is_first"].numel()
        data = {key: value.reshape(1, columns, *value.shape[2:]) for key, value in data.items()}
        nothing = self._critic_hidden.new_zeros(1, columns, 0)
        return data | {"hidden": nothing, "critic_hidden": nothing}

    @torch.no_grad()
    def _estimate_advantages(self, rollout: Batch, data: Batch) -> None:
        """Put `advantage`, `returns` and `value` into `data`."""
        c = self.config
        x = self.critic_inputs(group(rollout, "obs"))
        out, after = self.critic.sequence(x, self._critic_hidden, rollout["is_first"])
        value = out.squeeze(-1)
        # V(next_obs) is V of the next row, but for the last row and where an episode was cut off
        next_value = torch.cat([value[1:], value[-1:]])
        ask = rollout["truncated"].clone()
        ask[-1] = True
        next_inputs = self.critic_inputs({key: obs[ask] for key, obs in group(rollout, "next_obs").items()})
        next_value[ask] = self.critic(next_inputs, after[ask])[0].squeeze(-1)
        reward = rollout["reward"]
        if c.normalise_reward:
            reward = (reward / (self._return_stats.var.sqrt().float().to(reward.device) + 1e-8)).clamp(-10.0, 10.0)
        advantage = gae(reward, value, next_value, rollout["terminated"], rollout["truncated"], c.gamma, c.gae_lambda)
        data["returns"], data["value"] = advantage + value, value
        if c.normalise_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        data["advantage"] = advantage
        for key in ("returns", "value", "advantage"):
            data[key] = data[key].reshape(data["is_first"].shape)
        self._next_critic_hidden = after[-1]

    def _merge_moments(self) -> None:
        """After the last update of the iteration: from here on stored log-probabilities are no longer compared."""
        for inputs, moments in self._moments:
            assert inputs.normaliser is not None
            inputs.normaliser.merge(*moments)
        self._moments = []
        self._critic_hidden = self._next_critic_hidden

    def _summary(self, metrics: dict[str, list[Tensor]], log_ratio: Tensor, data: Batch) -> Metrics:
        norms = torch.stack(metrics["grad_norm/actor"] + metrics["grad_norm/critic"])
        result = {name: torch.stack(values).mean() for name, values in metrics.items()}
        assert {k.removeprefix("loss/") for k in result if k.startswith("loss/")} == set(self._coef)
        result["grad_norm/nonfinite"] = (~norms.isfinite()).float().sum()
        result["grad_steps"] = torch.tensor(len(metrics["grad_norm/critic"]))
        result["policy/kl"] = _kl(log_ratio)
        result["policy/clip_fraction"] = ((log_ratio.exp() - 1.0).abs() > self.config.clip_ratio).float().mean()
        result["policy/std"] = self.policy.log_std.detach().exp().mean()
        unexplained = (data["returns"] - data["value"]).var(correction=0)
        result["value/explained_variance"] = 1.0 - unexplained / (data["returns"].var(correction=0) + 1e-8)
        return result

    def state_dict(self) -> StateDict:
        """Weights, optimisers, normalisers and running sums."""
        return {
            "policy": dict(self.policy.state_dict()),
            "critic": dict(self.critic.state_dict()),
            "critic_inputs": dict(self.critic_inputs.state_dict()),
            "actor_adam": self._actor_adam.state_dict(),
            "critic_adam": self._critic_adam.state_dict(),
            "critic_hidden": self._critic_hidden,
            "return_sum": self._return_sum,
            "return_stats": dict(self._return_stats.state_dict()),
            "moments": [[i is not self.policy.inputs, list(m)] for i, m in self._moments],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.critic_inputs.load_state_dict(state["critic_inputs"])
        self._actor_adam.load_state_dict(state["actor_adam"])
        self._critic_adam.load_state_dict(state["critic_adam"])
        device = self._actor_flat.device
        self._critic_hidden = state["critic_hidden"].to(device)
        self._return_sum = state["return_sum"]
        self._return_stats.load_state_dict(state["return_stats"])
        own = {False: self.policy.inputs, True: self.critic_inputs}
        self._moments = [
            (own[bool(critic)], tuple(m.to(device) for m in moments)) for critic, moments in state["moments"]
        ]


def _kl(log_ratio: Tensor) -> Tensor:
    """KL(old, new) from samples of the old policy, by the estimator k3 of Schulman (2020): unbiased, never negative."""
    return (log_ratio.exp() - 1.0 - log_ratio).mean()


def _shuffle(data: Batch, count: int) -> list[Batch]:
    """The columns of `data` in random order, as `count` minibatches."""
    columns = data["is_first"].shape[1]
    order = torch.randperm(columns).to(data["is_first"].device)
    size = -(-columns // count)
    parts = {key: value.index_select(1, order).split(size, dim=1) for key, value in data.items()}
    return [{key: split[i] for key, split in parts.items()} for i in range(-(-columns // size))]
