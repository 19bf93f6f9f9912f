"""Hybrid natural policy gradient (Zhou et al. 2023, arXiv:2311.08384, algorithms 4 and 5), the finite-horizon version.

One critic and one policy for each step h of an episode, no discount. An iteration sees whole episodes of its own and,
stratified by step, as many recorded ones, and does, in this order:
1. critics, from the last step back: recorded steps bootstrap from the critic of the next step, which this very
   iteration has fitted, and own ones regress on the return that followed;
2. advantages with the new critics;
3. a natural-gradient step of the policy of every h at once, on recorded and own states together.

Where the paper and its authors' code differ, this follows the code (docs/learners/hnpg.md lists what and why):
- In the policy's step, actions for recorded states are drawn from the policy, so that ratios start at one.
- The line search does not ask for the divergence again; advantages are not normalised.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robotrl.functional.natural import conjugate_gradients, line_search, trust_region_step
from robotrl.functional.returns import gae
from robotrl.nets.network import VECTOR
from robotrl.nets.stepwise import Regression, StepwiseMLP
from robotrl.policies.stepwise import StepwisePolicy
from robotrl.replay.rollout import RolloutBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group

ARMS = {"hybrid": ("online", "offline"), "online": ("online",), "offline": ("offline",)}


@dataclass(slots=True)
class HNPGConfig:
    """Hyper-parameters of HNPG; the defaults are its authors'."""

    arm: str = "hybrid"
    """`hybrid`; `online`: without recorded episodes (TRPO with a policy for each step); `offline`: without own ones."""
    critic_hidden: list[int] = field(default_factory=lambda: [64, 64])
    critic_steps: int = 30
    """Full-batch steps of a fresh Adam for each critic in each iteration."""
    critic_learning_rate: float = 3e-4
    critic_online_coef: float = 1.0
    critic_offline_coef: float = 1.0
    value_samples: int = 10
    """Actions over which a critic is averaged to give the value of a state."""
    gae_lambda: float = 0.97
    max_kl: float = 0.01
    damping: float = 0.1
    """Added to the diagonal of the Fisher matrix."""
    cg_steps: int = 10
    backtracks: int = 10
    accept_ratio: float = 0.1
    """Least share of the promised improvement that the line search accepts."""
    offline_episodes: int | None = None
    """Recorded steps for each h in an iteration; None: as many as own ones (with `arm=offline`, `num_envs`)."""

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise RobotRLError(f"learner.arm is '{self.arm}'; it must be hybrid, online or offline.")
        for name in ("critic_steps", "value_samples", "cg_steps", "backtracks"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("critic_learning_rate", "max_kl", "critic_online_coef", "critic_offline_coef"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be above 0.")
        if not 0.0 <= self.gae_lambda <= 1.0 or not self.damping >= 0 or not 0 <= self.accept_ratio < 1:
            raise RobotRLError("learner.gae_lambda must lie in [0, 1], accept_ratio in [0, 1), damping from 0 on.")
        if self.offline_episodes is not None and self.offline_episodes < 1:
            raise RobotRLError(f"learner.offline_episodes is {self.offline_episodes}; it must be at least 1.")


class HNPG:
    """See the module's docstring. Tensors are `[H, features, B]`: own episodes first along B, then recorded ones."""

    config_class = HNPGConfig
    replay_class = RolloutBuffer
    policy_kind = "stepwise"

    def __init__(self, policy: StepwisePolicy, spec: EnvSpec, config: HNPGConfig, *, num_envs: int) -> None:
        if not isinstance(policy, StepwisePolicy):
            raise RobotRLError("learner=hnpg trains a policy for each step: leave policy= out, or set policy=stepwise.")
        self.policy = self.acting = policy
        self.config, self.horizon = config, policy.horizon
        critic = StepwiseMLP(self.horizon, policy.inputs.dim + policy.actions.dim, config.critic_hidden, 1)
        self.critic = critic.to(policy.net.weights.device)
        self._episodes = config.offline_episodes or num_envs
        self._moments: list[tuple[Tensor, ...]] = []
        self._regression: tuple[tuple[int, int], Regression] | None = None
        # the keys of every loss, asserted against what the updates produce
        coefficients = {"online": config.critic_online_coef, "offline": config.critic_offline_coef}
        self._coef = {f"critic_{name}": coefficients[name] for name in ARMS[config.arm]} | {"policy": 1.0}

    @property
    def batch_spec(self) -> BatchSpec:
        """A rollout of whole episodes, and as many recorded steps of each h."""
        size = self._episodes * self.horizon
        parts = {
            "online": Part("online", "rollout"),
            "offline": Part("demos", "transition", size, stratify_by="step", strata=self.horizon),
        }
        return {name: parts[name] for name in ARMS[self.config.arm]}

    def check_schedule(self, rollout_steps: int, updates: float) -> None:
        """Refuse rollouts that would cut episodes."""
        if "online" in self.batch_spec and rollout_steps % self.horizon:
            whole = (
                f"learner=hnpg needs whole episodes of {self.horizon} steps. Set it to a multiple of {self.horizon}."
            )
            raise RobotRLError(f"schedule.rollout_steps is {rollout_steps}, but {whole}")

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Check that episodes are whole; gather observation moments.

        Raises:
            RobotRLError: they are not.
        """
        if not fresh:
            return
        steps, width = fresh["reward"].shape
        expected = torch.arange(steps, device=fresh["step"].device) % self.horizon
        if steps % self.horizon or not bool((fresh["step"] == expected.unsqueeze(1)).all()):
            raise RobotRLError(
                f"learner=hnpg needs whole episodes of {self.horizon} steps, but a rollout of {steps} begins or ends "
                f"inside of one. Set schedule.rollout_steps to a multiple of {self.horizon}, and use an env whose "
                "episodes never end before their time limit."
            )
        self._episodes = self.config.offline_episodes or steps // self.horizon * width
        moments = self.policy.inputs.moments(group(fresh, "obs"))
        if moments is not None:
            self._moments.append(moments)

    @torch.no_grad()
    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """Critics backwards, advantages, policies."""
        parts = {name: self._by_step(name, part) for name, part in batch.items()}
        metrics = self._fit_critics(parts)
        obs = torch.cat([part["obs"] for part in parts.values()], -1)
        raw, advantage = self._advantages(parts, obs, metrics)
        self._improve_policies(obs, raw, advantage, metrics)
        for moments in self._moments:
            assert self.policy.inputs.normaliser is not None
            self.policy.inputs.normaliser.merge(*moments)
        self._moments = []
        assert {k.removeprefix("loss/") for k in metrics if k.startswith("loss/")} == set(self._coef)
        metrics["grad_steps"] = torch.tensor(self.horizon * (self.config.critic_steps + 1))
        return metrics, None

    def _by_step(self, name: str, part: Batch) -> Batch:
        """`obs`, `next_obs`, `raw` and executed `action`: `[H, features, B]`; `reward` and `terminated`: `[H, B]`."""

        def rows(x: Tensor) -> Tensor:
            """`[T, N, ...]` of whole episodes, or `[H * B, ...]` ordered by step, to `[H, B, ...]`."""
            if name == "offline":
                return x.unflatten(0, (self.horizon, -1))
            return x.unflatten(0, (-1, self.horizon)).transpose(0, 1).flatten(1, 2)

        taken = ("action", "raw_action", "reward", "terminated")
        flat = {k: rows(v) for k, v in part.items() if k in taken or k.startswith(("obs/", "next_obs/"))}
        inputs = self.policy.inputs
        found = {key: inputs(group(flat, key))[VECTOR].transpose(1, 2) for key in ("obs", "next_obs")}
        if name == "online":
            found["raw"] = flat["raw_action"].transpose(1, 2)
            found["action"] = self.policy.unit(found["raw"], axis=-2)
        else:
            found["action"] = self.policy.actions.from_env(flat["action"]).transpose(1, 2)
        return found | {"reward": flat["reward"], "terminated": flat["terminated"]}

    def _draw(self, obs: Tensor, steps: slice, count: int) -> tuple[Tensor, Tensor]:
        """`count` actions of the policies of these steps in `obs [h, D, B]`, raw and executed, `[h, A, B, count]`."""
        rows = self.policy.net.weights[steps]
        mean, _ = self.policy.net.run(rows, obs)
        std = self.policy.net.tail(rows).exp()[..., None, None]
        raw = mean.unsqueeze(-1) + std * torch.randn(*mean.shape, count, device=mean.device)
        return raw, self.policy.unit(raw, axis=-3)

    def _fit_critics(self, parts: dict[str, Batch]) -> Metrics:
        """From the last step back; the policies stay, so what they would do next is drawn for all steps at once."""
        c, critic, ones = self.config, self.critic, torch.ones_like
        x = torch.cat([torch.cat([p["obs"], p["action"], ones(p["obs"][:, :1])], 1) for p in parts.values()], -1)
        sizes = (*(part["reward"].shape[1] for part in parts.values()),)
        target = x.new_empty(self.horizon, sum(sizes))
        if "online" in parts:  # undiscounted return from each step on
            target[:, : sizes[0]] = parts["online"]["reward"].flip(0).cumsum(0).flip(0)
        offline = parts.get("offline")
        if offline is not None:
            following, recorded = offline["next_obs"][:-1], slice(sum(sizes[:-1]), sum(sizes))
            target[:, recorded] = offline["reward"]
            action = self._draw(following, slice(1, None), 1)[1].squeeze(-1)
            after = torch.cat([following, action, ones(following[:, :1])], 1)
            goes_on = ~offline["terminated"]
        regression, weights = self._regression_for(parts, sizes), critic.weights.data
        errors, nonfinite = torch.empty_like(target), 0
        for h in range(self.horizon - 1, -1, -1):
            if offline is not None and h < self.horizon - 1:
                target[h, recorded] += regression.predict(weights[h + 1], after[h]) * goes_on[h]
            before = weights[h].clone()
            errors[h] = regression.fit(
                weights[h], x[h], target[h], steps=c.critic_steps, learning_rate=c.critic_learning_rate
            )
            if not bool(weights[h].sum().isfinite()):
                weights[h], nonfinite = before, nonfinite + 1
        split = errors.split(list(sizes), 1)
        metrics = {f"loss/critic_{name}": e.mean() for name, e in zip(parts, split, strict=True)}
        metrics["grad_norm/nonfinite"] = torch.tensor(float(nonfinite))
        return metrics

    def _regression_for(self, parts: dict[str, Batch], sizes: tuple[int, ...]) -> Regression:
        """Buffers for batches of this size; each source's loss is a mean over its own samples."""
        key = (sizes[0], sizes[-1])
        if self._regression is None or self._regression[0] != key:
            weight = [torch.full((b,), self._coef[f"critic_{name}"] / b) for name, b in zip(parts, sizes, strict=True)]
            self._regression = key, Regression(self.critic, torch.cat(weight))
        return self._regression[1]

    def _advantages(self, parts: dict[str, Batch], obs: Tensor, metrics: Metrics) -> tuple[Tensor, Tensor]:
        """Raw actions `[H, A, B]` and their advantages `[H, B]` by the new critics.

        Own steps: generalised advantage estimation, with no future after the last step. Recorded states: the critic at
        an action drawn from the policy, less the value.
        """
        c, rows = self.config, self.critic.weights.data
        raw, executed = self._draw(obs, slice(None), c.value_samples + 1)
        q = self.critic.many(rows, obs, executed)
        value = q[..., 1:].mean(-1)
        metrics["value/start"] = value[0].mean()
        actions, advantages = [], []
        if "online" in parts:
            own = parts["online"]
            width = own["reward"].shape[1]
            now = value[:, :width]
            ends = torch.zeros_like(own["terminated"])
            ends[-1] = True
            after = torch.cat([now[1:], now[-1:]])
            advantages.append(gae(own["reward"], now, after, ends, torch.zeros_like(ends), 1.0, c.gae_lambda))
            actions.append(own["raw"])
        if "offline" in parts:
            width = parts["offline"]["reward"].shape[1]
            advantages.append((q[..., 0] - value)[:, -width:])
            actions.append(raw[:, :, -width:, 0])
        return torch.cat(actions, -1), torch.cat(advantages, -1)

    def _improve_policies(self, obs: Tensor, raw: Tensor, advantage: Tensor, metrics: Metrics) -> None:
        """A step along the natural gradient of the surrogate -mean(A ratio), for every h by itself."""
        c, net = self.config, self.policy.net
        start, batch = net.weights.data, raw.shape[-1]
        mean, hidden = net.run(start, obs)
        log_std = net.tail(start).unsqueeze(-1)
        precision = (-2.0 * log_std).exp()
        z = (raw - mean) * (-log_std).exp()

        def fisher(v: Tensor) -> Tensor:
            """The Fisher matrix of a Gaussian, `J' precision J` for the mean and 2 for log-deviations, plus damping."""
            moved = net.push(start, v, obs, hidden)
            result = net.pull(start, moved * (precision / batch), obs, hidden)
            net.tail(result).copy_(2.0 * net.tail(v))
            return result.add_(v, alpha=c.damping)

        def surrogate(candidate: Tensor) -> tuple[Tensor, None]:
            new_mean, _ = net.run(candidate, obs)
            new_log_std = net.tail(candidate).unsqueeze(-1)
            new_z = (raw - new_mean) * (-new_log_std).exp()
            log_ratio = (0.5 * (z.square() - new_z.square()) + log_std - new_log_std).sum(1)
            return -(advantage * log_ratio.exp()).mean(-1), None

        by_log_prob = -advantage.unsqueeze(1) / batch
        gradient = net.pull(start, by_log_prob * z * (-log_std).exp(), obs, hidden)
        net.tail(gradient).copy_((by_log_prob * (z.square() - 1.0)).sum(-1))
        direction = conjugate_gradients(fisher, -gradient, steps=c.cg_steps)
        step, expected = trust_region_step(fisher, direction, gradient, c.max_kl)
        before = -advantage.mean(-1)
        chosen, share = line_search(
            surrogate, start, step, expected, before=before, backtracks=c.backtracks, accept_ratio=c.accept_ratio
        )
        new_mean, _ = net.run(chosen, obs)
        new_log_std = net.tail(chosen).unsqueeze(-1)
        change = 0.5 * (precision.reciprocal() + (mean - new_mean).square()) * (-2.0 * new_log_std).exp() - 0.5
        metrics["policy/kl"] = (change + new_log_std - log_std).sum(1).mean()
        metrics["policy/accepted"] = (share > 0).float().mean()
        metrics["policy/step_share"] = share.mean()
        metrics["policy/std"] = new_log_std.exp().mean()
        metrics["grad_norm/actor"] = gradient.norm(dim=-1).mean()
        metrics["loss/policy"] = before.mean()
        start.copy_(chosen)

    def state_dict(self) -> StateDict:
        """Weights, and moments that are still to be merged; optimisers live for one fit only."""
        return {
            "policy": dict(self.policy.state_dict()),
            "critic": self.critic.weights.data,
            "episodes": self._episodes,
            "moments": [list(moments) for moments in self._moments],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.policy.load_state_dict(state["policy"])
        self.critic.weights.data.copy_(state["critic"])
        self._episodes = int(state["episodes"])
        self._moments = [tuple(moments) for moments in state["moments"]]
