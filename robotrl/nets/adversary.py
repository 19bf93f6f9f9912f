"""A discriminator that is trained, and the reward that is read from it: what methods of adversarial imitation share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from robotrl.functional.imitation import absorbing_pair
from robotrl.nets.discriminator import Discriminator, Divergence, adversarial_losses
from robotrl.nets.flat import Adam, flatten_parameters, gradient_norm, zero_gradient
from robotrl.nets.network import ObsInputs
from robotrl.nets.vision import Onlooker
from robotrl.types import Batch, Metrics, StateDict, group


class Adversary:
    """Trains a discriminator on steps of an expert and of a policy, and gives steps the reward that it implies.

    A termination leads to the absorbing state, which is one point: its value is kept as a number that moves, at the
    rate `tau`, towards its own reward and its discounted self, as a target critic would there.

    Args:
        net: the discriminator, of pairs `[..., K + 1]` (see `robotrl.functional.imitation`).
        inputs: the observation groups it sees; a normaliser in it takes in all that `step` is given.
        onlooker: what `inputs` gives to the numbers that it sees of it.
        unit_action: env actions to units where the bounds are [-1, 1].
        divergence: the discriminator's loss.
        reward: its output to the reward.
        learning_rate: of the discriminator.
        penalty_coef: weight of the gradient penalty.
        gamma: discount of the absorbing state's value.
        tau: rate of the absorbing state's value.
    """

    def __init__(
        self,
        net: Discriminator,
        inputs: ObsInputs,
        onlooker: Onlooker,
        unit_action: Callable[[Tensor], Tensor],
        *,
        divergence: Divergence,
        reward: Callable[[Tensor], Tensor],
        learning_rate: float,
        penalty_coef: float,
        gamma: float,
        tau: float,
    ) -> None:
        self.net, self._inputs, self._onlooker, self._unit_action = net, inputs, onlooker, unit_action
        self._divergence, self._reward_of, self._gamma, self._tau = divergence, reward, gamma, tau
        self._flat = flatten_parameters(net.parameters())
        self._adam = Adam(self._flat, learning_rate)
        self.absorbing_value = self._flat.detach().new_zeros(())
        self.coef = {"discriminator": 1.0, "penalty": penalty_coef}
        """Coefficients of the losses, by name."""

    def step(self, expert: Batch, policy: Batch) -> Metrics:
        """One step of the discriminator on transitions `[B, ...]` of either; its losses and what it makes of them."""
        for part in (expert, policy):
            moments = self._inputs.moments(group(part, "obs"))
            if moments is not None and self._inputs.normaliser is not None:
                self._inputs.normaliser.merge(*moments)
        losses, expert_out, policy_out = adversarial_losses(
            self.net, self._divergence, self.pairs(expert), self.pairs(policy),
            expert["terminated"], policy["terminated"],
        )  # fmt: skip
        loss = losses["discriminator"] + self.coef["penalty"] * losses["penalty"]
        zero_gradient(self._flat)
        loss.backward()
        norm = gradient_norm(self._flat)
        self._adam.step()
        expert_out, policy_out = expert_out.detach()[:-1], policy_out.detach()[:-1]
        right = torch.cat([expert_out > 0, policy_out < 0])
        return {
            **{f"loss/{name}": value.detach() for name, value in losses.items()},
            "grad_norm/discriminator": norm,
            "discriminator/accuracy": right.float().mean(),
            "reward/expert": self._reward_of(expert_out).mean(),
            "reward/policy": self._reward_of(policy_out).mean(),
        }

    @torch.no_grad()
    def rewarded(self, part: Batch) -> Batch:
        """The part with the present reward; a termination earns what the absorbing state is worth as well."""
        pairs, ends = self.pairs(part), part["terminated"]
        reward = self._reward(pairs)
        if bool(ends.any()):
            target = self._reward(absorbing_pair(pairs)).squeeze(0) + self._gamma * self.absorbing_value
            self.absorbing_value = self.absorbing_value.lerp(target, self._tau)
        return part | {"reward": torch.where(ends, reward + self._gamma * self.absorbing_value, reward)}

    def _reward(self, pairs: Tensor) -> Tensor:
        return self._reward_of(self.net(pairs))

    @torch.no_grad()
    def pairs(self, part: Batch) -> Tensor:
        """What is seen of the observation, the action in [-1, 1] units, and the absorbing state's indicator."""
        seen = self._onlooker(self._inputs(group(part, "obs")))
        action = self._unit_action(part["action"]).clamp(-1.0, 1.0)
        return F.pad(torch.cat([seen, action], -1), (0, 1))

    def state_dict(self) -> StateDict:
        """The discriminator with its optimiser and normaliser, and the absorbing state's value."""
        return {
            "discriminator": dict(self.net.state_dict()),
            "inputs": dict(self._inputs.state_dict()),
            "onlooker": dict(self._onlooker.state_dict()),
            "adam": self._adam.state_dict(),
            "absorbing_value": self.absorbing_value,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.net.load_state_dict(state["discriminator"])
        self._inputs.load_state_dict(state["inputs"])
        self._onlooker.load_state_dict(state["onlooker"])
        self._adam.load_state_dict(state["adam"])
        self.absorbing_value = state["absorbing_value"].to(self.absorbing_value)


__all__ = ["Adversary"]
