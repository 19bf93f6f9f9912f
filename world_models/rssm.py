"""The recurrent state-space model: a block-diagonal GRU and categorical latents.

Source: Hafner et al. 2025 (DreamerV3), eq. 3, and its reference implementation for what the paper leaves open. Time
loops hold only what must be sequential, the recurrent core and the posterior; everything else is computed for all
steps at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from robotrl.nets.normed import BlockLinear, Linear, NormedLinear, NormedMLP, normed_silu
from robotrl.types import State
from robotrl.world_models.sizes import ModelSize

UNIMIX = 0.01
"""Share of the uniform distribution in every categorical: no class ever has probability zero."""
FULL_VECTOR = 16
"""Float32 numbers that a CPU computes with at once."""


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

    def step(self, deter: Tensor, stoch: Tensor, action_features: Tensor) -> Tensor:
        """The next deterministic state `[B, D]` (eq. 3, sequence model).

        Args:
            deter: `[B, D]`.
            stoch: `[B, S]`.
            action_features: `[B, hidden]`, what `embed_action` made of the action taken in this state.
        """
        blocks = self.size.blocks
        shared = torch.cat([self.deter_in(deter), self.stoch_in(stoch), action_features], -1)
        by_block = deter.unflatten(-1, (blocks, -1)).transpose(0, 1)
        x = self.core(by_block, shared).transpose(0, 1).flatten(1)
        x = normed_silu(x, self.core_norm)
        gates = self.gates(x.unflatten(-1, (blocks, -1)).transpose(0, 1)).transpose(0, 1)
        return gated(deter, gates.unflatten(-1, (3, -1)))

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
        keep = (~is_first).to(tokens.dtype).unsqueeze(-1)
        action = self.embed_action(action * keep)
        seen = self._posterior_of_tokens(tokens)
        deter, stoch = state["deter"], state["stoch"]
        steps = []
        for t in range(tokens.shape[0]):
            deter = self.step(deter * keep[t], stoch * keep[t], action[t])
            logits = self._posterior(deter, seen[t])
            stoch = sample_latents(logits)
            steps.append((deter, stoch, logits))
        return Latents(*(torch.stack(values) for values in zip(*steps, strict=True)))

    def observe_step(self, tokens: Tensor, action: Tensor, is_first: Tensor, state: State) -> Latents:
        """Like `observe` for one step: all arguments and results without the time axis."""
        keep = (~is_first).to(tokens.dtype).unsqueeze(-1)
        deter = self.step(state["deter"] * keep, state["stoch"] * keep, self.embed_action(action * keep))
        logits = self._posterior(deter, self._posterior_of_tokens(tokens))
        return Latents(deter, sample_latents(logits), logits)

    def imagine_step(self, deter: Tensor, stoch: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The next state without an observation: `[B, D]` and a sample `[B, S]`."""
        deter = self.step(deter, stoch, self.embed_action(action))
        return deter, sample_one_hot(self._probs(self.prior_net(deter)))

    def classes(self, stoch: Tensor) -> Tensor:
        """The class of each latent, uint8 `[..., latents]`: a small way to store `stoch [..., S]`."""
        return stoch.unflatten(-1, (self.size.latents, self.size.classes)).argmax(-1).to(torch.uint8)

    def one_hot(self, classes: Tensor) -> Tensor:
        """What `classes` came from."""
        return nn.functional.one_hot(classes.long(), self.size.classes).flatten(-2).to(self.core_norm.dtype)

    def _posterior_of_tokens(self, tokens: Tensor) -> Tensor:
        """The part of the posterior's first layer that does not depend on the state."""
        layer = self.posterior_in.linear
        return nn.functional.linear(tokens, layer.weight[:, self.size.deter :], layer.bias)

    def _posterior(self, deter: Tensor, seen: Tensor) -> Tensor:
        layer = self.posterior_in
        x = seen + nn.functional.linear(deter, layer.linear.weight[:, : self.size.deter])
        return self._log_probs(self.posterior_out(normed_silu(x, layer.norm)))

    def _log_probs(self, raw: Tensor) -> Tensor:
        return torch.log(self._probs(raw))

    def _probs(self, raw: Tensor) -> Tensor:
        s = self.size
        probs = _softmax(raw.unflatten(-1, (s.latents, s.classes)).float())
        return torch.lerp(probs, torch.full_like(probs[..., :1], 1.0 / s.classes), UNIMIX)


def gated(deter: Tensor, gates: Tensor) -> Tensor:
    """The GRU's last step: `[B, D]` with some of its numbers moved towards what the gates hold.

    Args:
        deter: `[B, D]`, the state before.
        gates: `[B, blocks, 3, D / blocks]`: reset, candidate and update, before their nonlinearities.
    """
    gates = gates.to(deter.dtype)
    if gates.is_cuda or gates.dtype == torch.float64:
        reset, candidate, update = gates.unbind(2)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1.0)  # remembers by default
        return torch.lerp(deter, candidate.flatten(1), update.flatten(1))
    if torch.is_grad_enabled():
        result: Tensor = _Gated.apply(deter, gates)
        return result
    return _gated(deter, gates)[0]


class _Gated(torch.autograd.Function):
    """One node instead of nine, which counts in a loop over time."""

    @staticmethod
    def forward(ctx: Any, deter: Tensor, gates: Tensor) -> Tensor:
        """See `gated`."""
        out, *kept = _gated(deter, gates)
        ctx.save_for_backward(deter, gates, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """By `deter` and by `gates`."""
        by_deter, by_gates = _gated_back(grad, *ctx.saved_tensors)
        return by_deter, by_gates


@torch.jit.script
def _gated(deter: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result; for its gradient: the reset, the candidate and the update after their nonlinearities."""
    reset = torch.sigmoid(gates[:, :, 0])
    # tanh, for which PyTorch's own kernel takes longer
    candidate = torch.sigmoid((reset * gates[:, :, 1]).mul_(2.0)).mul_(2.0).sub_(1.0)
    update = torch.sigmoid(gates[:, :, 2] - 1.0)  # remembers by default
    return torch.lerp(deter, candidate.flatten(1), update.flatten(1)), reset, candidate, update


@torch.jit.script
def _gated_back(
    grad: Tensor, deter: Tensor, gates: Tensor, reset: Tensor, candidate: Tensor, update: Tensor
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(gates)
    moved = grad.view_as(candidate)
    by_candidate = moved * update
    by_deter = grad - by_candidate.flatten(1)
    inner = torch.ops.aten.tanh_backward(by_candidate, candidate)
    out[:, :, 0] = torch.ops.aten.sigmoid_backward(inner * gates[:, :, 1], reset)
    out[:, :, 1] = inner * reset
    out[:, :, 2] = torch.ops.aten.sigmoid_backward(moved * (candidate - deter.view_as(candidate)), update)
    return by_deter, out


def _softmax(raw: Tensor) -> Tensor:
    """Over the last axis, along which PyTorch's kernel is slow where a row does not fill a CPU's vector."""
    if raw.shape[-1] >= FULL_VECTOR or raw.is_cuda:
        return torch.softmax(raw, -1)
    return torch.softmax(raw.transpose(-1, -2).contiguous(), -2).transpose(-1, -2)


def sample_latents(logits: Tensor) -> Tensor:
    """One-hot samples, flattened to `[..., latents * classes]`, with the gradient of the probabilities.

    Args:
        logits: `[..., latents, classes]`, log-probabilities.
    """
    return sample_one_hot(logits.exp())


def sample_one_hot(probs: Tensor) -> Tensor:
    """As `sample_latents`, from probabilities `[..., latents, classes]`."""
    with torch.no_grad():  # the first class whose cumulative probability lies above a uniform number
        passed = probs.cumsum(-1)[..., :-1] <= torch.rand_like(probs[..., :1])
        one_hot = torch.zeros_like(probs).scatter_(-1, passed.sum(-1, keepdim=True), 1.0)
    if torch.is_grad_enabled() and probs.requires_grad:
        one_hot = one_hot + (probs - probs.detach())
    return one_hot.flatten(-2)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats `[...]`, summed over the latents of `[..., latents, classes]` log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


__all__ = ["RSSM", "UNIMIX", "Latents", "gated", "kl_divergence", "sample_latents", "sample_one_hot"]
