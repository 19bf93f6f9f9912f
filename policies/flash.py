"""The policy of FlashSAC: a squashed Gaussian on FlashSAC's network, whose noise is held for several steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robotrl.functional.distributions import gaussian_log_prob, squash_correction
from robotrl.nets.flash import FlashStack
from robotrl.nets.network import VECTOR, ObsInputs
from robotrl.policies.config import PolicyConfig
from robotrl.policies.squashed import SquashedPolicy
from robotrl.types import EnvSpec, Extras, Obs, RobotRLError, State

MAX_HOLD, EXPONENT = 16, 2.0
"""A noise vector is held for k steps with probability proportional to k^-2, up to 16: a truncated zeta distribution."""


class FlashActor(nn.Module):
    """A `FlashStack` of one over the inputs that `ObsInputs` makes, in the form of `robotrl.nets.network.Network`."""

    gru_size = 0

    def __init__(self, inputs: ObsInputs, out_dim: int, width: int, blocks: int) -> None:
        super().__init__()
        self.net = FlashStack(1, inputs.dim, width, blocks, out_dim)

    def forward(self, inputs: Mapping[str, Tensor], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step of `[N, ...]` inputs, normalised by running statistics; `hidden` passes through."""
        return self.net(inputs[VECTOR])[0], hidden

    def sequence(self, inputs: Mapping[str, Tensor], hidden: Tensor, is_first: Tensor) -> tuple[Tensor, Tensor]:
        """Time-major inputs `[T, N, ...]` to outputs `[T, N, out_dim]`."""
        x = inputs[VECTOR]
        return self.net(x.flatten(0, 1))[0].unflatten(0, x.shape[:2]), hidden


class FlashPolicy(SquashedPolicy):
    """As `SquashedPolicy`; `policy.hidden` has the network's width once for each block. Numbers only, no images.

    The noise in force and the steps for which it is still held are policy state, `noise [N, A]` and `held [N]`. Held
    noise moves a robot somewhere, while fresh noise at every step averages out. An action's log-probability is that of
    the distribution, as if its noise were fresh.
    """

    net: FlashActor  # type: ignore[assignment]  # the same form as Network
    _hold_chances: Tensor

    def __init__(self, config: PolicyConfig, spec: EnvSpec) -> None:
        if len(set(config.hidden)) != 1:
            raise RobotRLError(
                f"policy.hidden is {config.hidden}; FlashSAC's blocks have one width, as in policy.hidden=[128,128]."
            )
        super().__init__(config, spec)
        if self.inputs.images:
            raise RobotRLError(
                f"policy=flash reads numbers, not the images {sorted(self.inputs.images)}. Choose its groups with "
                "policy.groups, or use learner=sac."
            )
        chances = torch.arange(1, MAX_HOLD + 1, dtype=torch.float32) ** -EXPONENT
        self.register_buffer("_hold_chances", chances / chances.sum(), persistent=False)

    def network(self, out_dim: int, *, inputs: ObsInputs | None = None, out_gain: float = 1.0) -> FlashActor:  # type: ignore[override]  # the same form
        """A new actor network; its weights have unit norm, so there is no `out_gain`."""
        return FlashActor(inputs or self.inputs, out_dim, self.config.hidden[0], len(self.config.hidden))

    def initial_state(self, num_envs: int) -> State:
        """No noise, held for no more steps."""
        device = self.actions.low.device
        noise = torch.zeros(num_envs, self.actions.dim, device=device)
        return {"noise": noise, "held": torch.zeros(num_envs, dtype=torch.int64, device=device)}

    def reset_state(self, state: State, done: Tensor) -> State:
        """A new episode starts with new noise."""
        return state | {"held": state["held"] * ~done}

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """See `robotrl.types.Policy.act`; the extras are `raw_action` and `log_prob`."""
        out, _ = self.net(self.inputs(obs), state["noise"])
        mean, log_std = self.mean_and_log_std(out)
        if explore:
            state = self._next_noise(state)
            raw = torch.addcmul(mean, log_std.exp(), state["noise"])
        else:
            raw = mean
        log_prob = gaussian_log_prob(raw, mean, log_std) - squash_correction(raw)
        if not bool(torch.isfinite(log_prob.sum())):
            raise RobotRLError(
                "The policy produced a non-finite action. Its weights or its input are not finite: "
                "lower the learning rate, or check the observations with robotrl doctor and the env checker."
            )
        return self.actions.to_env(torch.tanh(raw)), {"raw_action": raw, "log_prob": log_prob}, state

    def _next_noise(self, state: State) -> State:
        """Hold the noise one step more, or draw another and for how long."""
        new = state["held"] == 0
        noise = torch.where(new.unsqueeze(-1), torch.randn_like(state["noise"]), state["noise"])
        drawn = torch.multinomial(self._hold_chances, len(new), replacement=True) + 1
        return {"noise": noise, "held": torch.where(new, drawn, state["held"]) - 1}
