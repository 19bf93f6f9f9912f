"""The recurrent state-space model: a block-diagonal GRU and categorical latents.

Source: Hafner et al. 2025 (DreamerV3), eq. 3, and its reference implementation for what the paper leaves open. Time
loops hold only what must be sequential, the recurrent core and the posterior; everything else is computed for all
steps at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robotrl.nets.normed import BlockLinear, Linear, NormedLinear, NormedMLP
from robotrl.types import State
from robotrl.world_models.recurrence import (
    UNIMIX,
    Core,
    Posterior,
    SequenceNode,
    class_shares,
    core_step,
    drawn,
    sequence_run,
    unimixed,
)
from robotrl.world_models.sizes import ModelSize


class Latents(NamedTuple):
    """States of the model over time."""

    deter: Tensor
    """`[T, B, deter]`."""
    stoch: Tensor
    """`[T, B, latents * classes]`, samples with a straight-through gradient."""
    logits: Tensor
    """`[T, B, latents, classes]`, log-probabilities of the posterior, unimix included."""

    @property
    def features(self) -> Tensor:
        """What the heads see, `[..., deter + stoch]`."""
        return torch.cat([self.deter, self.stoch], -1)


class RSSM(nn.Module):
    """Deterministic state h, stochastic state z; see the module's docstring.

    Args:
        action_dim: numbers of an action, scaled to [-1, 1] or one-hot.
        token_dim: outputs of the observation encoder.
        size: widths.
    """

    def __init__(self, action_dim: int, token_dim: int, size: ModelSize) -> None:
        super().__init__()
        s = self.size = size
        self.action_dim = action_dim
        self.deter_in = NormedLinear(s.deter, s.hidden)
        self.stoch_in = NormedLinear(s.stoch, s.hidden)
        self.action_in = NormedLinear(action_dim, s.hidden)
        self.core = BlockLinear(3 * s.hidden + s.deter // s.blocks, s.deter, s.blocks, shared=3 * s.hidden)
        self.core_norm = nn.Parameter(torch.ones(s.deter))
        self.gates = BlockLinear(s.deter, 3 * s.deter, s.blocks)
        self.posterior_in = NormedLinear(s.deter + token_dim, s.hidden)
        self.posterior_out = Linear(s.hidden, s.stoch)
        self.prior_net = NormedMLP(s.deter, [s.hidden, s.hidden], s.stoch)

    def initial(self, num_envs: int) -> State:
        """The state before an episode: zeros, `deter [N, D]` and `stoch [N, S]`."""
        like = self.core_norm
        return {"deter": like.new_zeros(num_envs, self.size.deter), "stoch": like.new_zeros(num_envs, self.size.stoch)}

    def embed_action(self, action: Tensor) -> Tensor:
        """Features `[..., hidden]` of actions `[..., A]`, each number first brought into [-1, 1]."""
        features: Tensor = self.action_in(action / action.detach().abs().clamp(min=1.0))
        return features

    def prior(self, deter: Tensor) -> Tensor:
        """Log-probabilities `[..., latents, classes]` of the stochastic state without an observation."""
        return self._log_probs(self.prior_net(deter))

    def observe(self, tokens: Tensor, action: Tensor, is_first: Tensor, state: State) -> Latents:
        """Take in a sequence.

        Args:
            tokens: `[T, B, token_dim]`, encoded observations.
            action: `[T, B, A]`, the action *before* each observation; ignored where `is_first`.
            is_first: `[T, B]` bool; the state is set to zero there.
            state: `deter [B, D]`, `stoch [B, S]` before the sequence.
        """
        with torch.autocast(tokens.device.type, enabled=False):  # a few rows at a time do not gain by it
            tokens = tokens.to(self.core_norm.dtype)
            keep = (~is_first).to(tokens.dtype).unsqueeze(-1)
            first = self.posterior_in.linear
            seen = nn.functional.linear(tokens, first.weight[:, self.size.deter :], first.bias)
            uniform = torch.rand(*is_first.shape, 1, self.size.latents, dtype=tokens.dtype, device=tokens.device)
            given = (state["deter"], state["stoch"], keep, self.embed_action(action * keep), seen, uniform)
            core, posterior = self.core_weights(), self._posterior_weights()
            if torch.is_grad_enabled():
                deter, stoch, probs = SequenceNode.apply(*given, *core, *posterior)
            else:
                deter, stoch, probs = sequence_run(*given, core, posterior)[0]
            return Latents(deter, stoch, probs.transpose(-1, -2).log())

    def observe_step(self, tokens: Tensor, action: Tensor, is_first: Tensor, state: State) -> Latents:
        """Like `observe` for one step: all arguments and results without the time axis."""
        latents = self.observe(tokens.unsqueeze(0), action.unsqueeze(0), is_first.unsqueeze(0), state)
        return Latents(*(value.squeeze(0) for value in latents))

    @torch.no_grad()
    def imagine_step(self, deter: Tensor, stoch: Tensor, action: Tensor, core: Core) -> tuple[Tensor, Tensor]:
        """The next state without an observation: `[B, D]` and a sample `[B, S]`; without a gradient.

        Args:
            deter: `[B, D]`.
            stoch: `[B, S]`.
            action: `[B, A]`, taken in this state.
            core: of `core_weights`.
        """
        deter, _ = core_step(deter, stoch, self.embed_action(action), core)
        probs = unimixed(class_shares(self.prior_net(deter).float(), self.size.latents))
        return deter, drawn(probs, torch.rand_like(probs[..., :1, :]))

    def core_weights(self, dtype: torch.dtype | None = None) -> Core:
        """What `core_step` needs, for products in `dtype`."""
        a, b, core, gates = self.deter_in, self.stoch_in, self.core, self.gates
        form = self.core_norm.new_tensor([[1.0, -2.0, 1.0], [0.0, 0.0, -1.0]])
        factor, shift = form.repeat_interleave(gates.weight.shape[-1] // 3, 1)

        def rounded(*weights: Tensor | None) -> list[Tensor]:
            return [w if dtype is None else w.to(dtype) for w in weights if w is not None]

        return Core._make([
            *rounded(a.linear.weight, a.linear.bias), a.norm, *rounded(b.linear.weight, b.linear.bias), b.norm,
            *rounded(core.shared, core.weight, core.bias), self.core_norm,
            *rounded(gates.weight * factor, torch.addcmul(shift, gates.bias, factor)),
        ])  # fmt: skip

    def classes(self, stoch: Tensor) -> Tensor:
        """The class of each latent, uint8 `[..., latents]`: a small way to store `stoch [..., S]`."""
        return stoch.unflatten(-1, (self.size.latents, self.size.classes)).argmax(-1).to(torch.uint8)

    def one_hot(self, classes: Tensor) -> Tensor:
        """What `classes` came from."""
        return nn.functional.one_hot(classes.long(), self.size.classes).flatten(-2).to(self.core_norm.dtype)

    def _posterior_weights(self) -> Posterior:
        first, out = self.posterior_in, self.posterior_out
        return Posterior(first.linear.weight[:, : self.size.deter], first.norm, out.weight, out.bias)

    def _log_probs(self, raw: Tensor) -> Tensor:
        return torch.log(self._probs(raw))

    def _probs(self, raw: Tensor) -> Tensor:
        return unimixed(class_shares(raw.float(), self.size.latents)).transpose(-1, -2)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats `[...]`, summed over the latents of `[..., latents, classes]` log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


__all__ = ["RSSM", "UNIMIX", "Latents", "kl_divergence"]
