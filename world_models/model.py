"""A world model: encoder, recurrent state-space model, decoder, reward and continuation, in one module.

Source: Hafner et al. 2025 (DreamerV3), eq. 3 to 6. It knows no policy and no replay: learners that imagine, evaluate
policies inside the model or check actions before they are taken call `observe`, `imagine` and `decode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robotrl.nets.normaliser import Normaliser
from robotrl.types import EnvSpec, Obs, RobotRLError, State
from robotrl.world_models.codec import Decoder, Encoder, flatten, module_name
from robotrl.world_models.heads import ContinueHead, TwoHotHead
from robotrl.world_models.rssm import RSSM, Latents, kl_divergence
from robotrl.world_models.sizes import model_size

FREE_NATS = 1.0
"""Divergences below this are not worth a gradient (eq. 5)."""
Act = Callable[[Tensor], Tensor]
"""Features `[B, F]` to actions `[B, A]`, scaled to [-1, 1] or one-hot."""


class Dream(NamedTuple):
    """An imagined sequence; the first state is the given one."""

    features: Tensor
    """What the heads see, `[H + 1, B, F]`: deterministic and stochastic states side by side."""
    action: Tensor
    """`[H, B, A]`, taken in the first H states."""


class Perception(nn.Module):
    """What turns observations and actions into latent states: all that a policy needs of a world model.

    Args:
        spec: the env's; its observation groups and actions.
        size: `size1m` and so on, see `robotrl.world_models.sizes`.
        groups: observation groups to take in; None: all but `privileged`.
        normalise: see numbers in units of their running deviation from their running mean, which `take_in` brings up
            to date, and predict them so; without, in the env's units (as published). Symlog follows either way.

    Raises:
        RobotRLError: there is no such size or group, or an image has a size that the encoder cannot take.
    """

    def __init__(
        self,
        spec: EnvSpec,
        size: str = "size12m",
        *,
        groups: tuple[str, ...] | None = None,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        chosen = tuple(g for g in spec.obs if g != "privileged") if groups is None else tuple(groups)
        missing = [g for g in chosen if g not in spec.obs]
        if missing:
            raise RobotRLError(
                f"The world model asks for the observation groups {missing}, but {spec.id} has {sorted(spec.obs)}."
            )
        self.groups, self.size_name, self.size = chosen, size, model_size(size)
        self.obs = {name: spec.obs[name] for name in chosen}
        self.actions = ActionCode(spec)
        self.encoder = Encoder(self.obs, self.size)
        self._scaled_groups = self.encoder.vectors if normalise else ()
        self.normalisers = nn.ModuleDict(
            {module_name(g): Normaliser(math.prod(self.obs[g].shape), clip=math.inf) for g in self._scaled_groups}
        )
        self.rssm = RSSM(self.actions.dim, self.encoder.dim, self.size)

    def initial(self, num_envs: int) -> State:
        """The state before an episode, `deter [N, D]` and `stoch [N, S]`."""
        return self.rssm.initial(num_envs)

    def observe(self, obs: Obs, action: Tensor, is_first: Tensor, state: State) -> Latents:
        """Take in a sequence of observations.

        Args:
            obs: the groups, `[T, B, ...]`.
            action: `[T, B, A]`, scaled (see `ActionCode`), the one *before* each observation; ignored at `is_first`.
            is_first: `[T, B]` bool.
            state: before the sequence, as from `initial` or the end of an earlier one.
        """
        return self.rssm.observe(self.encoder(self.normalised(obs)), action, is_first, state)

    def observe_step(self, obs: Obs, action: Tensor, is_first: Tensor, state: State) -> Latents:
        """Like `observe` for one step: no time axis anywhere."""
        return self.rssm.observe_step(self.encoder(self.normalised(obs)), action, is_first, state)

    def normalised(self, obs: Obs) -> Obs:
        """The groups it takes in, `[..., *shape]` each, in its own units; images as they are."""
        return {g: self._scaled(g, obs[g], Normaliser.forward) for g in self.groups}

    def restored(self, obs: Obs) -> Obs:
        """The inverse of `normalised`."""
        return {g: self._scaled(g, obs[g], Normaliser.inverse) for g in self.groups}

    def take_in(self, obs: Obs) -> None:
        """Count new observations into the running means and deviations, if there are any."""
        for g in self._scaled_groups if obs else ():
            self._normaliser(g).merge(*Normaliser.moments(flatten(obs[g], self.obs[g].shape)))

    def _normaliser(self, group: str) -> Normaliser:
        found = self.normalisers[module_name(group)]
        assert isinstance(found, Normaliser)
        return found

    def _scaled(self, group: str, x: Tensor, how: Callable[[Normaliser, Tensor], Tensor]) -> Tensor:
        if group not in self._scaled_groups:
            return x
        return how(self._normaliser(group), flatten(x.float(), self.obs[group].shape)).view(x.shape)


class WorldModel(nn.Module):
    """See the module's docstring.

    Args:
        perception: encoder and recurrent model, perhaps shared with a policy.
        gamma: discount, which is part of the continuation head.
    """

    def __init__(self, perception: Perception, *, gamma: float = 1.0 - 1.0 / 333.0) -> None:
        super().__init__()
        size = perception.size
        self.perception = perception
        self.rssm = perception.rssm
        self.decoder = Decoder(perception.obs, size)
        self.reward = TwoHotHead(size.features, [size.units])
        self.going_on = ContinueHead(size.features, [size.units], gamma)

    def observe(self, obs: Obs, action: Tensor, is_first: Tensor, state: State) -> Latents:
        """Take in a sequence, see `Perception.observe`."""
        return self.perception.observe(obs, action, is_first, state)

    @torch.no_grad()
    def imagine(self, deter: Tensor, stoch: Tensor, act: Act, horizon: int) -> Dream:
        """Roll out without observations and without a gradient.

        Args:
            deter: `[B, D]`, where to begin.
            stoch: `[B, S]`.
            act: chooses the actions.
            horizon: H, steps.
        """
        dtype = torch.get_autocast_dtype(deter.device.type) if torch.is_autocast_enabled(deter.device.type) else None
        core, width = self.rssm.core_weights(dtype), deter.shape[-1]
        features = deter.new_empty(horizon + 1, len(deter), width + stoch.shape[-1], dtype=dtype)
        action = deter.new_empty(horizon, len(deter), self.rssm.action_dim)
        state = deter, stoch
        torch.cat(state, -1, out=features[0])
        for t in range(horizon):
            action[t] = act(features[t].data)  # autograd need not know of what is written beside it later
            state = self.rssm.imagine_step(*state, action[t], core)
            torch.cat(state, -1, out=features[t + 1])
        return Dream(features, action)

    def decode(self, features: Tensor) -> Obs:
        """The observations that features `[..., F]` stand for, in the env's units; images uint8."""
        return self.perception.restored(self.decoder.decode(features))

    def rest(self) -> dict[str, Tensor]:
        """The state of what is not perception: decoder, reward and continuation, and their discount."""
        state = {k: v for k, v in self.state_dict().items() if not k.startswith(("perception.", "rssm."))}
        return state | {"gamma": torch.tensor(self.going_on.gamma, dtype=torch.float64)}

    def load_rest(self, state: Mapping[str, Tensor]) -> None:
        """Take on what `rest` gave."""
        self.going_on.gamma = float(state["gamma"])
        own = {k: v for k, v in self.state_dict().items() if k.startswith(("perception.", "rssm."))}
        self.load_state_dict(own | {k: v for k, v in state.items() if k != "gamma"})

    def losses(self, latents: Latents, obs: Obs, reward: Tensor, terminal: Tensor) -> dict[str, Tensor]:
        """The terms of eq. 4 to 6, `[...]` each, not yet weighted: a reconstruction a group, and the four others.

        Args:
            latents: of `observe`, any leading axes.
            obs: the observations that were taken in.
            reward: `[...]`, received on arriving at each observation; 0 at the start of an episode.
            terminal: `[...]` bool: after this observation nothing comes.
        """
        features = latents.features
        told = self.decoder.losses(features, self.perception.normalised(obs))
        losses = {f"reconstruction/{n}": loss for n, loss in told.items()}
        losses["reward"] = self.reward.loss(features, reward)
        losses["continue"] = self.going_on.loss(features, terminal)
        prior, posterior = self.rssm.prior(latents.deter), latents.logits
        losses["dynamics"] = kl_divergence(posterior.detach(), prior).clamp(min=FREE_NATS)
        losses["representation"] = kl_divergence(posterior, prior.detach()).clamp(min=FREE_NATS)
        return losses


class ActionCode(nn.Module):
    """Env actions to what the model takes: continuous ones scaled to [-1, 1], discrete ones one-hot."""

    centre: Tensor
    scale: Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        a = spec.action
        self.continuous = a.kind == "continuous"
        self.rank = len(a.shape)
        low, high = torch.tensor(a.low).reshape(-1), torch.tensor(a.high).reshape(-1)
        bounded = torch.isfinite(low) & torch.isfinite(high)
        self.dim = low.numel() if self.continuous else a.num_actions
        self.register_buffer("centre", torch.where(bounded, (high + low) / 2, 0.0), persistent=False)
        self.register_buffer("scale", torch.where(bounded, (high - low) / 2, 1.0), persistent=False)

    def forward(self, action: Tensor) -> Tensor:
        """`[..., *shape]` in env units, or `[...]` indices, to `[..., dim]` float32."""
        if not self.continuous:
            return nn.functional.one_hot(action.long(), self.dim).float()
        flat = action.unsqueeze(-1) if self.rank == 0 else action.flatten(-self.rank)
        return (flat - self.centre) / self.scale


__all__ = ["FREE_NATS", "ActionCode", "Dream", "Perception", "WorldModel"]
