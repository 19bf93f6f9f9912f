"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905) and what became of it by options.

REDQ (Chen et al. 2021): many critics, `target_subset` of them in the target, `utd_ratio`, `actor_value=mean`. DroQ
(Hiraoka et al. 2022): `critic_dropout` and `critic_layer_norm` with two critics. RLPD (Ball et al. 2023): REDQ with
`critic_layer_norm` and half of each batch from demonstrations, `demo_ratio=0.5`. DrQ (Yarats et al. 2021): a policy
that reads images, `image_shift`; what sees them follows the critics' gradient alone (`robotrl.nets.vision`).

Differences from the SAC paper, each with its source:
- Truncation bootstraps with the value of the observation before the reset (Pardo et al. 2018).
- The critic sees actions in units where the env's bounds are [-1, 1], and so does the entropy.
- The log-deviation is kept in [-5, 2] by a scaled tanh (`robotrl.policies.squashed`).
- No state-value network: that of the first version of the paper fell out of the second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robotrl.functional.returns import bellman_rows
from robotrl.nets.ensemble import PRECISIONS
from robotrl.nets.flat import Adam, flatten_parameters, gradient_norm
from robotrl.nets.vision import Vision, ensemble
from robotrl.policies.squashed import SquashedPolicy, UniformPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group

Sample = tuple[Tensor, Tensor]
"""Actions and their log-probabilities."""
Pull = Callable[[Tensor, Tensor], None]
"""Takes the gradients of a loss by both back to the actor's parameters."""
_SHARES = (("gamma", 1.0), ("tau", 1.0), ("critic_dropout", 0.99), ("demo_ratio", 1.0), ("temperature_beta1", 0.999))


@dataclass(slots=True)
class SACConfig:
    """Hyper-parameters of SAC."""

    learning_rate: float = 3e-4
    """Of actor and critics, and of the temperature unless it has one of its own."""
    batch_size: int = 256
    """Transitions in one step of the critics."""
    gamma: float = 0.99
    tau: float = 0.005
    n_step: int = 1
    """Rewards summed before the target bootstraps."""
    utd_ratio: int = 1
    """Steps of the critics in one update, each on a batch of its own; the actor steps once, on the last."""
    num_critics: int = 2
    target_subset: int = 2
    """Target critics whose least value is the target, drawn anew for each step."""
    actor_value: str = "min"
    """What the actor climbs: the `min` of all critics, or their `mean`."""
    critic_hidden: list[int] | None = None
    """Widths of the critics' hidden layers; None: those of the policy."""
    critic_layer_norm: bool = False
    critic_dropout: float = 0.0
    critic_groups: list[str] | None = None
    """Observation groups of the critics; None: those of the policy."""
    entropy_backup: bool = True
    """Whether the target counts the entropy of the next action."""
    init_temperature: float = 1.0
    learn_temperature: bool = True
    temperature_learning_rate: float | None = None
    """None: `learning_rate`."""
    temperature_beta1: float = 0.9
    """Decay of the first moment in the temperature's Adam."""
    target_entropy_scale: float = 1.0
    """The temperature steers to an entropy of minus this times the number of action dimensions, in nats."""
    demo_ratio: float = 0.0
    """Share of demonstrations in each batch of the critics; above 0 it needs `replay.demos`."""
    random_env_steps: int = 5000
    """Act uniformly at random until so many env steps are made."""
    image_shift: int = 4
    """Pixels by which images are shifted at random, at most, whenever an update looks at them; 0: not at all."""
    matmul_precision: str = "fp32"
    """Of the update's matrix products and convolutions, `fp32` or `bf16`; weights, and what acts, are float32."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "tau", "init_temperature", "temperature_learning_rate"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("batch_size", "n_step", "utd_ratio", "num_critics", "target_subset"):
            if getattr(self, name) < 1:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.image_shift < 0:
            raise RobotRLError(f"learner.image_shift is {self.image_shift}; it must be at least 0.")
        for name, top in _SHARES:
            if not 0.0 <= getattr(self, name) <= top:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must lie in [0, {top:g}].")
        if self.target_subset > self.num_critics:
            raise RobotRLError(
                f"learner.target_subset is {self.target_subset}, but there are {self.num_critics} critics. Set it to "
                "at most learner.num_critics."
            )
        for name, known in (("actor_value", ("min", "mean")), ("matmul_precision", tuple(PRECISIONS))):
            if getattr(self, name) not in known:
                raise RobotRLError(f"learner.{name} is '{getattr(self, name)}'; it must be {' or '.join(known)}.")


class SAC:
    """See the module's docstring. Critics and temperature are not part of what is deployed."""

    config_class = SACConfig
    replay_class = ReplayBuffer
    policy_kind = "squashed"

    def __init__(self, policy: SquashedPolicy, spec: EnvSpec, config: SACConfig, *, num_envs: int) -> None:
        if not isinstance(policy, SquashedPolicy):
            raise RobotRLError(f"learner=sac trains policy=squashed, not policy={policy.config.kind}.")
        self.policy, self.config = policy, config
        device = next(policy.parameters()).device
        self.critic_inputs = policy.critic_inputs(config.critic_groups).to(device)
        if tuple(self.critic_inputs.images) != tuple(policy.inputs.images):
            raise RobotRLError(
                f"learner.critic_groups has the images {list(self.critic_inputs.images)}, the policy reads "
                f"{list(policy.inputs.images)}. The critics train what sees for both, so let both read the same images."
            )
        self.critics = ensemble(
            policy.net.seen_dims,
            policy.config.image_features,
            self.critic_inputs.dim + policy.actions.dim,
            config.critic_hidden or policy.config.hidden,
            config.num_critics,
            activation=policy.config.activation,
            layer_norm=config.critic_layer_norm,
            dropout=config.critic_dropout,
            precision=config.matmul_precision,
        ).to(device)
        self.targets = deepcopy(self.critics).requires_grad_(False)
        lr, shift, seeing = config.learning_rate, config.image_shift, policy.net.seeing_parameters()
        self.vision = Vision(policy.net, learning_rate=lr, shift=shift, dtype=self.critics.dtype) if seeing else None
        self._actor_flat = flatten_parameters(p for p in policy.actor_parameters() if all(p is not q for q in seeing))
        self._critic_flat = flatten_parameters(self.critics.parameters())
        self._target_flat = flatten_parameters(self.targets.parameters())
        self._log_temperature = nn.Parameter(torch.tensor([config.init_temperature], device=device).log())
        self._log_temperature.grad = torch.zeros_like(self._log_temperature)
        self._actor_adam = Adam(self._actor_flat, lr)
        self._critic_adam = Adam(self._critic_flat, lr)
        slow = config.temperature_learning_rate or lr
        self._temperature_adam = Adam(self._log_temperature, slow, beta1=config.temperature_beta1)
        self._target_entropy = -config.target_entropy_scale * policy.actions.dim
        self._demos = round(config.demo_ratio * config.batch_size)
        self._uniform = UniformPolicy(spec, policy.obs_groups, device)
        self._random = config.random_env_steps > 0
        # the keys of every loss, asserted against what the updates produce
        self._coef = {"critic": 1.0, "policy": 1.0} | ({"temperature": 1.0} if config.learn_temperature else {})

    @property
    def acting(self) -> SquashedPolicy | UniformPolicy:
        """Uniform at first, then the policy."""
        return self._uniform if self._random else self.policy

    @property
    def batch_spec(self) -> BatchSpec:
        """Transitions for all of an update's critic steps, or windows of `n_step`, of one source or two."""
        c = self.config
        kind, length = ("transition", 1) if c.n_step == 1 else ("sequence", c.n_step)
        sizes = {"online": c.batch_size - self._demos, "demos": self._demos}
        return {
            name: Part(name, kind, c.utd_ratio * size, length, within_episode=length > 1)  # type: ignore[arg-type]
            for name, size in sizes.items()
            if size
        }

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """End the random phase; bring the observation normalisers up to date, between updates."""
        self._random = progress.env_steps < self.config.random_env_steps
        obs = group(fresh, "obs")
        for inputs in {id(i): i for i in (self.policy.inputs, self.critic_inputs)}.values():
            moments = inputs.moments(obs) if obs else None
            if moments is not None and inputs.normaliser is not None:
                inputs.normaliser.merge(*moments)

    @torch.no_grad()
    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, None]:
        """`utd_ratio` steps of the critics and their targets, then one of the actor and one of the temperature."""
        metrics: defaultdict[str, list[Tensor]] = defaultdict(list)
        for part in (slices := self._slices(batch)):
            rows = part if self.vision is None else self.vision.see(part)
            sampled, pull = self._sample(rows, ("obs", "next_obs") if part is slices[-1] else ("next_obs",))
            self._critic_gradient(rows, sampled["next_obs"], metrics)
            metrics["grad_norm/critic"].append(gradient_norm(self._critic_flat))
            self._critic_adam.step()
            self._target_flat.data.lerp_(self._critic_flat.data, self.config.tau)
        self._policy_gradient(rows, sampled["obs"], pull, metrics)
        metrics["grad_norm/actor"].append(gradient_norm(self._actor_flat))
        self._actor_adam.step()
        if self.config.learn_temperature:
            self._step_temperature(sampled["obs"][1], metrics)
        result = {name: v[0] if len(v) == 1 else torch.stack(v).mean() for name, v in metrics.items()}
        assert {k.removeprefix("loss/") for k in result if k.startswith("loss/")} == set(self._coef)
        norms = torch.stack([norm for name, v in metrics.items() if name.startswith("grad_norm/") for norm in v])
        result["grad_norm/nonfinite"] = norms.mul_(0.0).ne_(0.0).sum()  # zero times what is not finite is NaN
        result["grad_steps"] = torch.tensor(self.config.utd_ratio)
        return result, None

    @torch.no_grad()
    def _sample(self, rows: Batch, prefixes: Sequence[str]) -> tuple[dict[str, Sample], Pull]:
        """Actions at each prefix's observations, in one pass of the network, and what pulls the first's gradients."""
        inputs = [self.policy.inputs(group(rows, prefix)) for prefix in prefixes]
        out, pull_actor = self.policy.net.pullback(inputs[0], self.critics.dtype, *inputs[1:])
        actions, log_probs, pull_sample = self.policy.sample_pullback(out)
        parts = zip(actions.chunk(len(inputs)), log_probs.chunk(len(inputs)), strict=True)
        return dict(zip(prefixes, parts, strict=True)), lambda *by: pull_actor(pull_sample(*by))

    @torch.no_grad()
    def _critic_gradient(self, rows: Batch, after: Sample, metrics: dict[str, list[Tensor]]) -> None:
        """Of the squared error to the soft Bellman target (eq. 5), the mean over critics and batch."""
        c, (action, log_prob) = self.config, after
        few = c.target_subset < c.num_critics
        members = torch.randperm(c.num_critics)[: c.target_subset].to(action.device) if few else None
        value = self.targets(self._critic_input(rows, "next_obs", action), members).squeeze(-1).amin(0)
        if c.entropy_backup:
            value = value - self._log_temperature.exp() * log_prob
        target = torch.addcmul(rows["reward"], rows["discount"], value)
        q, pull = self.critics.pullback(self._critic_input(rows, "obs", rows["unit_action"]))
        error = q - target.unsqueeze(-1)
        by_input = pull(error * (2.0 / error.numel()), to_x=None if self.vision is None else slice(None))
        if self.vision is not None and by_input is not None:
            metrics["grad_norm/encoder"].append(self.vision.step(by_input))
        metrics["loss/critic"].append(error.square_().mean())
        metrics["value/q"].append(q.mean())
        metrics["value/target"].append(target.mean())

    @torch.no_grad()
    def _policy_gradient(self, rows: Batch, now: Sample, pull_actor: Pull, metrics: dict[str, list[Tensor]]) -> None:
        """Of temperature times log-probability less the critics' value (eq. 9)."""
        action, log_prob = now
        temperature, count, least = self._log_temperature.exp(), len(action), self.config.actor_value == "min"
        q, pull = self.critics.pullback(self._critic_input(rows, "obs", action))
        value = q.amin(0) if least else q.mean(0)
        share = (q == value).float() if least else torch.ones_like(q)  # how each critic's value moves the chosen one
        share.div_(share.sum(0).mul_(-count))
        by_action = pull(share, to_weights=False, to_x=slice(-action.shape[1], None))
        assert by_action is not None
        pull_actor(by_action, (temperature / count).expand(count))
        metrics["loss/policy"].append((temperature * log_prob - value.squeeze(-1)).mean())
        metrics["policy/entropy"].append(-log_prob.mean())
        metrics["policy/temperature"].append(temperature.squeeze())

    def _step_temperature(self, log_prob: Tensor, metrics: dict[str, list[Tensor]]) -> None:
        """Descend the temperature times the entropy's excess (eq. 18); its gradient is the loss itself."""
        loss = self._log_temperature.detach().exp() * (-log_prob.mean() - self._target_entropy)
        self._log_temperature.grad = loss.nan_to_num(0.0, 0.0, 0.0)
        self._temperature_adam.step()
        metrics["loss/temperature"].append(loss.squeeze())

    def _critic_input(self, rows: Batch, prefix: str, action: Tensor) -> Tensor:
        return self.critic_inputs.joined(self.critic_inputs(group(rows, prefix)), action)

    def _slices(self, batch: dict[str, Batch]) -> list[Batch]:
        """One batch for each critic step: every source is cut first, so each slice has the same share of it."""
        c, unit_action = self.config, self.policy.actions.from_env
        parts = [bellman_rows(part, c.n_step, c.gamma, unit_action) for part in batch.values()]
        cut = [{key: value.chunk(c.utd_ratio) for key, value in part.items()} for part in parts]
        keys = [key for key in cut[0] if all(key in part for part in cut)]  # who records keeps the groups that are read
        return [
            {key: torch.cat([part[key][i] for part in cut]) if len(cut) > 1 else cut[0][key][i] for key in keys}
            for i in range(self.config.utd_ratio)
        ]

    def state_dict(self) -> StateDict:
        """Weights, optimisers, temperature, normalisers and whether actions are still random."""
        return {
            "policy": dict(self.policy.state_dict()),
            "critics": dict(self.critics.state_dict()),
            "targets": dict(self.targets.state_dict()),
            "critic_inputs": dict(self.critic_inputs.state_dict()),
            "log_temperature": self._log_temperature.data,
            "actor_adam": self._actor_adam.state_dict(),
            "critic_adam": self._critic_adam.state_dict(),
            "temperature_adam": self._temperature_adam.state_dict(),
            "vision": None if self.vision is None else self.vision.state_dict(),
            "random": self._random,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.policy.load_state_dict(state["policy"])
        self.critics.load_state_dict(state["critics"])
        self.targets.load_state_dict(state["targets"])
        self.critic_inputs.load_state_dict(state["critic_inputs"])
        self._log_temperature.data.copy_(state["log_temperature"])
        self._actor_adam.load_state_dict(state["actor_adam"])
        self._critic_adam.load_state_dict(state["critic_adam"])
        self._temperature_adam.load_state_dict(state["temperature_adam"])
        if self.vision is not None:
            self.vision.load_state_dict(state["vision"])
        self._random = bool(state["random"])
