"""DreamerV3 (Hafner et al. 2025, "Mastering diverse control tasks through world models"), the current version of it.

One update: the world model takes in real sequences and is fitted to them; from every state it reached it imagines
`horizon` steps, in which actor and critic learn; the critic also learns on the real sequences. One optimiser steps all.

Differences from the paper's text are those of its reference implementation, and these:
- A step here holds (obs, action, reward, next_obs); the model wants the reward that came *with* an observation. So the
  reward of the step before belongs to an observation, and an episode's last observation, which is no step's `obs`, is
  taken in by one more model step from the state before it, for all episodes that end in the batch at once.
- Imagination runs without a gradient but for the actor's outputs, and the critic looks at all its states in one pass:
  with REINFORCE the gradients are the same.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robotrl.functional.returns import lambda_returns
from robotrl.nets.laprop import LaProp
from robotrl.policies.rssm import RSSMPolicy
from robotrl.replay.buffer import ReplayBuffer
from robotrl.types import Batch, BatchSpec, EnvSpec, Metrics, Part, Progress, RobotRLError, StateDict, group
from robotrl.world_models.heads import TwoHotHead
from robotrl.world_models.model import Dream, WorldModel
from robotrl.world_models.rssm import Latents

SNAPSHOT_EVERY = 100
"""Updates between copies of the weights, which a run of bad updates is rolled back to."""


@dataclass(slots=True)
class DreamerConfig:
    """Hyper-parameters of Dreamer; the model's size is `policy.world_model`."""

    learning_rate: float = 4e-5
    warmup_updates: int = 1000
    """Updates over which the learning rate rises to its value."""
    agc: float = 0.3
    """Largest gradient of a tensor, as a share of the tensor's norm."""
    batch_size: int = 16
    """Sequences in an update."""
    batch_length: int = 64
    """Steps of a sequence, besides the one before it whose stored latent state it begins from."""
    horizon: int = 15
    """Imagined steps."""
    imagine_share: float = 1.0
    """Share of the batch's states that imagination begins from, drawn by lot."""
    gamma: float = 1.0 - 1.0 / 333.0
    trace: float = 0.95
    """Lambda of the lambda-returns."""
    entropy_coef: float = 3e-4
    slow_rate: float = 0.02
    """Share by which the slow critic follows the critic after each update."""
    return_rate: float = 0.01
    """Share by which the range of returns follows that of the batch."""
    reconstruction_coef: float = 1.0
    reward_coef: float = 1.0
    continue_coef: float = 1.0
    dynamics_coef: float = 1.0
    representation_coef: float = 0.1
    policy_coef: float = 1.0
    value_coef: float = 1.0
    replay_value_coef: float = 0.3
    """Of the critic's loss on real sequences."""
    max_bad_updates: int = 10
    """Updates in a row with a gradient that is not finite, which are skipped, before the weights are rolled back."""
    matmul_precision: str = "fp32"
    """`bf16`: matrix products in bfloat16, but not where the real sequences are taken in a few rows at a time."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "agc", "imagine_share"):
            if not getattr(self, name) > 0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name, least in (("batch_size", 1), ("batch_length", 2), ("horizon", 1), ("max_bad_updates", 1)):
            if getattr(self, name) < least:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.matmul_precision not in ("fp32", "bf16"):
            raise RobotRLError(f"learner.matmul_precision is '{self.matmul_precision}'; it must be fp32 or bf16.")
        for name in ("gamma", "trace", "slow_rate", "return_rate", "imagine_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RobotRLError(f"learner.{name} is {getattr(self, name)}; it must lie in [0, 1].")


class Observed(NamedTuple):
    """What an update knows of its real sequences once the model has taken them in."""

    latents: Latents
    """`[L, B, ...]`."""
    ends: Latents | None
    """States on arriving at the last observations of the `M` episodes that end here, `[M, ...]`."""
    ended: Tensor
    """`[L, B]` bool: the step after this state ends its episode; M are true."""
    rows: Batch
    """The L steps, `[L, B, ...]`."""


class Dreamer:
    """See the module's docstring. What is deployed is the policy: encoder, recurrent model and actor."""

    config_class = DreamerConfig
    replay_class = ReplayBuffer
    policy_kind = "rssm"

    def __init__(self, policy: RSSMPolicy, spec: EnvSpec, config: DreamerConfig, *, num_envs: int) -> None:
        if not isinstance(policy, RSSMPolicy):
            raise RobotRLError(f"learner=dreamer trains policy=rssm, not policy={policy.config.kind}.")
        self.policy = self.acting = policy
        self.config = c = config
        device = next(policy.parameters()).device
        size = policy.perception.size
        self.model = WorldModel(policy.perception, gamma=c.gamma).to(device)
        self.critic = TwoHotHead(size.features, [size.units] * 3).to(device)
        self.slow_critic = deepcopy(self.critic).requires_grad_(False)
        self._nets = nn.ModuleDict({"model": self.model, "actor": policy.actor, "critic": self.critic})
        self._optimiser = LaProp(self._nets.parameters(), c.learning_rate, warmup=c.warmup_updates, clip=c.agc)
        self._range = torch.zeros(2, device=device)  # running 5th and 95th percentile of the returns
        self._snapshot = self._optimiser.flat.detach().clone()
        self._coef = {
            "reward": c.reward_coef, "continue": c.continue_coef, "dynamics": c.dynamics_coef,
            "representation": c.representation_coef, "policy": c.policy_coef, "value": c.value_coef,
            "replay_value": c.replay_value_coef,
        }  # fmt: skip
        self._coef |= {f"reconstruction/{name}": c.reconstruction_coef for name in policy.perception.groups}

    @property
    def batch_spec(self) -> BatchSpec:
        """Sequences from anywhere, over the ends of episodes, and each new stretch once as soon as it is complete."""
        c = self.config
        return {"online": Part(kind="sequence", batch_size=c.batch_size, length=c.batch_length + 1, newest_first=True)}

    @property
    def beside(self) -> dict[str, StateDict]:
        """The rest of the world model: what it takes to look into what the policy expects."""
        return {"world_model": self.model.rest()}

    def observe(self, fresh: Batch, progress: Progress) -> None:
        """Count what was seen into its mean and deviation; roll back after too many skipped updates in a row."""
        self.policy.perception.take_in(group(fresh, "obs"))
        if int(self._optimiser.skipped_in_a_row) >= self.config.max_bad_updates:
            self._optimiser.flat.data.copy_(self._snapshot)
            self._optimiser.skipped_in_a_row.zero_()

    def update(self, batch: dict[str, Batch]) -> tuple[Metrics, Batch]:
        """One step of everything; the latent states it computed go back to the replay."""
        with torch.autocast(self._range.device.type, torch.bfloat16, enabled=self.config.matmul_precision == "bf16"):
            seen = self._observe_sequences(batch["online"])
            losses = self._model_losses(seen)
            dream = self._imagine(seen.latents)
            behaviour, metrics, first_returns = self._behaviour_losses(dream)
            losses |= behaviour
            if self.config.imagine_share < 1.0:  # the states that were left out continue with the critic's own value
                first_returns = self.critic.mean(seen.latents.features.detach())
            losses["replay_value"] = self._replay_value_loss(seen, first_returns.detach())
        means = {name: loss.mean() for name, loss in losses.items()}
        assert means.keys() == self._coef.keys()
        assert self._optimiser.flat.grad is not None
        self._optimiser.flat.grad.zero_()
        torch.stack([self._coef[name] * loss for name, loss in means.items()]).sum().backward()
        norm = self._optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, self.config.slow_rate)
            if self._optimiser.steps % SNAPSHOT_EVERY == 0:
                good = self._optimiser.skipped_in_a_row == 0
                self._snapshot = torch.where(good, self._optimiser.flat, self._snapshot)
        metrics |= {f"loss/{name}": loss.detach() for name, loss in means.items()}
        metrics |= {"grad_norm/all": norm, "grad_norm/nonfinite": (~norm.isfinite()).float()}
        deter = seen.latents.deter.detach()
        stored = {
            "row": seen.rows["row"],
            "latent/deter": torch.where(deter.isfinite(), deter, seen.rows["latent/deter"]),
            "latent/stoch": self.model.rssm.classes(seen.latents.stoch.detach()),
        }
        return metrics, stored

    def _observe_sequences(self, part: Batch) -> Observed:
        """The first step only gives the latent state that the others begin from, and the action before them."""
        rssm, perception = self.model.rssm, self.policy.perception
        stored = part["latent/deter"].shape[-1], part["latent/stoch"].shape[-1]
        if stored != (rssm.size.deter, rssm.size.latents):
            raise RobotRLError(
                f"The replay holds latent states of {stored[0]} and {stored[1]} numbers, but the model "
                f"{self.policy.config.world_model} has {rssm.size.deter} and {rssm.size.latents}. Use the "
                "policy.world_model that collected the data, or start with an empty replay."
            )
        rows = {key: value[1:] for key, value in part.items()}
        start = {"deter": part["latent/deter"][0], "stoch": rssm.one_hot(part["latent/stoch"][0])}
        action = perception.actions(part["action"])
        latents = perception.observe(group(rows, "obs"), action[:-1], rows["is_first"], start)
        ended = rows["terminated"] | rows["truncated"]
        ends = None
        if bool(ended.any()):
            state = {"deter": latents.deter[ended], "stoch": latents.stoch[ended]}
            last = {key: value[ended] for key, value in group(rows, "next_obs").items()}
            ends = perception.observe_step(last, action[1:][ended], torch.zeros_like(ended[ended]), state)
        # what was received on arriving at each observation; nothing at an episode's start
        rows["reward_before"] = torch.where(rows["is_first"], 0.0, part["reward"][:-1])
        return Observed(latents, ends, ended, rows)

    def _model_losses(self, seen: Observed) -> dict[str, Tensor]:
        """Eq. 4 to 6 over all observations, an episode's last one included."""
        rows, ended = seen.rows, seen.ended
        alive = torch.zeros_like(ended)
        losses = self.model.losses(seen.latents, group(rows, "obs"), rows["reward_before"], alive)
        losses = {name: loss.flatten() for name, loss in losses.items()}
        if seen.ends is not None:
            last = {key: value[ended] for key, value in group(rows, "next_obs").items()}
            at_ends = self.model.losses(seen.ends, last, rows["reward"][ended], rows["terminated"][ended])
            losses = {name: torch.cat([loss, at_ends[name]]) for name, loss in losses.items()}
        return losses

    def _imagine(self, latents: Latents) -> tuple[Dream, Tensor]:
        """From the states of the batch on, with the policy; also the actor's outputs `[H, N, ...]`."""
        deter, stoch = latents.deter.detach().flatten(0, 1), latents.stoch.detach().flatten(0, 1)
        if self.config.imagine_share < 1.0:
            count = max(1, int(self.config.imagine_share * len(deter)))
            chosen = torch.randperm(len(deter), device=deter.device)[:count]
            deter, stoch = deter[chosen], stoch[chosen]

        outputs = []

        def act(features: Tensor) -> Tensor:
            with torch.enable_grad():
                outputs.append(self.policy.actor(features))
            return self.policy.scaled(self.policy.sample(outputs[-1]))

        return self.model.imagine(deter, stoch, act, self.config.horizon), torch.stack(outputs)

    def _behaviour_losses(self, imagined: tuple[Dream, Tensor]) -> tuple[dict[str, Tensor], Metrics, Tensor]:
        """Actor and critic in imagination (eq. 7 to 11); also the returns of the first states, `[N]`."""
        (dream, out), c = imagined, self.config
        features = dream.features
        logits = self.critic(features)
        with torch.no_grad():
            value = self.critic.mean_of(logits)
            reward, discount = self.model.reward.mean(features[1:]), self.model.going_on.discount(features[1:])
            returns = lambda_returns(reward, discount, value[1:], value[-1], c.trace)
            weight = torch.cat([torch.ones_like(discount[:1]), discount[:-1]]).cumprod(0)
            low_high = torch.quantile(returns.flatten(), returns.new_tensor([0.05, 0.95]))
            self._range.lerp_(torch.where(low_high.isfinite(), low_high, self._range), c.return_rate)
            scale = (self._range[1] - self._range[0]).clamp(min=1.0)
            advantage = (returns - value[:-1]) / scale
            slow = self.slow_critic.mean(features[:-1])
        log_prob, entropy = self.policy.log_prob_and_entropy(out, self.policy.raw(dream.action))
        losses = {
            "policy": -weight * (log_prob * advantage + c.entropy_coef * entropy),
            "value": weight * self.critic.loss_of(logits[:-1], returns, slow),
        }
        metrics = {
            "policy/entropy": entropy.detach().mean(),
            "value/imagined": value.mean(),
            "value/return_range": scale,
            "value/advantage_std": advantage.std(),
            "model/imagined_reward": reward.mean(),
        }
        return losses, metrics, returns[0]

    def _replay_value_loss(self, seen: Observed, at_states: Tensor) -> Tensor:
        """The critic on real rewards; its gradient reaches the world model.

        Args:
            seen: the real sequences.
            at_states: `[L, B]` or `[L * B]`, returns imagined from their states, with which each step may continue.
        """
        c, rows = self.config, seen.rows
        later = at_states.reshape(seen.ended.shape)[1:].clone()
        ended = seen.ended[:-1]
        if seen.ends is not None:
            at_ends = torch.zeros_like(rows["reward"])
            at_ends[seen.ended] = self.critic.mean(seen.ends.features).detach()
            later = torch.where(ended, at_ends[:-1], later)
        discount = c.gamma * ~rows["terminated"][:-1]
        returns = lambda_returns(rows["reward"][:-1], discount, later, later[-1], c.trace * ~ended)
        features = seen.latents.features[:-1]
        logits = self.critic(features)
        slow = self.slow_critic.mean(features).detach()
        return self.critic.loss_of(logits, returns, slow)

    def state_dict(self) -> StateDict:
        """Weights, optimiser, range of returns, and the weights to roll back to."""
        return {
            "nets": dict(self._nets.state_dict()),
            "slow_critic": dict(self.slow_critic.state_dict()),
            "optimiser": self._optimiser.state_dict(),
            "range": self._range,
            "snapshot": self._snapshot,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self._nets.load_state_dict(state["nets"])
        self.slow_critic.load_state_dict(state["slow_critic"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._range.copy_(state["range"])
        self._snapshot.copy_(state["snapshot"])
