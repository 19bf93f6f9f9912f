"""The loops over time of the recurrent state-space model, with their gradient: scripted, since their steps are small.

A step on a few rows takes the interpreter and autograd's bookkeeping several times as long as its arithmetic. So a
sequence is one autograd node whose two directions are scripted loops, and whose gradients by the weights are one
product over all steps each, after the loop back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from robotrl.nets.normed import eps_like, normed_silu_pull, normed_silu_run

UNIMIX = 0.01
"""Share of the uniform distribution in every categorical: no class ever has probability zero."""


class Core(NamedTuple):
    """Weights of the step from one deterministic state to the next; H is `hidden`, K the number of blocks."""

    deter: Tensor
    """`[H, D]`, and so on: the layer that takes in the deterministic state."""
    deter_bias: Tensor
    deter_norm: Tensor
    stoch: Tensor
    """`[H, S]`, and so on: the layer that takes in the stochastic state."""
    stoch_bias: Tensor
    stoch_norm: Tensor
    shared: Tensor
    """`[3 H, D]`, by which what all blocks see is multiplied: the two layers' results and the action's features."""
    own: Tensor
    """`[K, D / K, D / K]`, by which each block's own state is multiplied."""
    bias: Tensor
    """`[K, 1, D / K]`, of both."""
    norm: Tensor
    """`[D]`."""
    gates: Tensor
    """`[K, D / K, 3 D / K]`: reset, candidate and update of each block, the candidate by -2: a tanh is then
    `1 - 2 sigmoid(x)`."""
    gates_bias: Tensor
    """`[K, 1, 3 D / K]`; that of the update is 1 less, so that the core remembers by default."""


class Posterior(NamedTuple):
    """Weights of the step from a deterministic state and an observation to the stochastic state."""

    deter: Tensor
    """`[H, D]`, the part of the first layer that takes in the state; what it makes of the tokens is known before."""
    norm: Tensor
    """`[H]`."""
    out: Tensor
    """`[latents * classes, H]`."""
    out_bias: Tensor


@torch.jit.script
def gated_run(deter: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The GRU's last step: `deter [B, D]` with some of its numbers moved towards what the gates hold.

    Args:
        deter: the state before.
        gates: `[B, K, 3 D / K]`, before their nonlinearities: reset, candidate by -2, update.

    Returns:
        The state after; for its gradient the given candidate, and reset, candidate and update after their
        nonlinearities, `[B, K, D / K]` each.
    """
    reset, gate, update = gates.unflatten(2, [3, -1]).unbind(2)
    reset = torch.sigmoid(reset)
    candidate = torch.rsub((reset * gate).sigmoid_(), 1.0, 2.0)  # tanh, for which PyTorch's own kernel takes longer
    update = torch.sigmoid(update)
    return torch.lerp(deter.view_as(candidate), candidate, update).flatten(1), gate, reset, candidate, update


@torch.jit.script
def gated_pull(
    grad: Tensor, deter: Tensor, gate: Tensor, reset: Tensor, candidate: Tensor, update: Tensor
) -> tuple[Tensor, Tensor]:
    """By `deter [B, D]` and by the gates, `[B, K, 3, D / K]`."""
    moved = grad.view_as(candidate)
    by_candidate = moved * update
    inner = torch.ops.aten.tanh_backward(by_candidate, candidate).mul_(-0.5)
    by_reset = torch.ops.aten.sigmoid_backward(inner * gate, reset)
    by_update = torch.ops.aten.sigmoid_backward(moved * (candidate - deter.view_as(candidate)), update)
    return grad - by_candidate.flatten(1), torch.stack([by_reset, inner * reset, by_update], 2)


@torch.jit.script
def core_step(deter: Tensor, stoch: Tensor, action: Tensor, w: Core) -> tuple[Tensor, list[Tensor]]:
    """The next deterministic state `[B, D]` (eq. 3, sequence model), and what its gradient needs.

    Args:
        deter: `[B, D]`.
        stoch: `[B, S]`.
        action: `[B, H]`, features of the action taken in this state.
        w: the weights; products are made in their precision, everything else in that of the norms' scales.
    """
    dtype, full, blocks = w.deter.dtype, w.norm.dtype, w.own.shape[0]
    eps = eps_like(w.norm)
    from_deter = linear(deter.to(dtype), w.deter, w.deter_bias).to(full)
    from_deter, deter_unit, deter_inverse = normed_silu_run(from_deter, w.deter_norm, eps)
    from_stoch = linear(stoch.to(dtype), w.stoch, w.stoch_bias).to(full)
    from_stoch, stoch_unit, stoch_inverse = normed_silu_run(from_stoch, w.stoch_norm, eps)
    shared = torch.cat([from_deter, from_stoch, action], 1)
    x = linear(shared.to(dtype), w.shared.t(), w.bias.flatten())
    by_block = deter.to(dtype).unflatten(1, [blocks, -1]).transpose(0, 1)
    x.unflatten(1, [blocks, -1]).transpose(0, 1).baddbmm_(by_block, w.own)
    x, unit, inverse = normed_silu_run(x.to(full), w.norm, eps)
    gates = w.gates_bias.squeeze(1).repeat(deter.shape[0], 1, 1)  # row by row, which is what follows
    gates.transpose(0, 1).baddbmm_(x.to(dtype).unflatten(1, [blocks, -1]).transpose(0, 1), w.gates)
    after, gate, reset, candidate, update = gated_run(deter, gates.to(full))
    kept = [
        deter, stoch, shared, deter_unit, deter_inverse, stoch_unit, stoch_inverse, x, unit, inverse,
        gate, reset, candidate, update,
    ]  # fmt: skip
    return after, kept


def class_shares(raw: Tensor, latents: int) -> Tensor:
    """Softmax of `raw [..., latents * classes]` over the classes, `[..., classes, latents]`.

    Latents lie along the last axis: PyTorch's kernels are slow along one that does not fill a CPU's vectors.
    """
    return torch.softmax(raw.unflatten(-1, [latents, -1]).transpose(-1, -2), -2)


def unimixed(shares: Tensor, unimix: float = UNIMIX) -> Tensor:
    """Probabilities of a softmax `[..., classes, latents]` with a share of the uniform distribution."""
    return torch.lerp(shares, torch.full([1], 1.0 / shares.shape[-2], dtype=shares.dtype, device=shares.device), unimix)


def drawn(probs: Tensor, uniform: Tensor) -> Tensor:
    """One-hot samples `[..., latents * classes]`: the first class whose cumulative probability lies above a number.

    Args:
        probs: `[..., classes, latents]`.
        uniform: `[..., 1, latents]`, uniform numbers in [0, 1).
    """
    passed = (probs.cumsum(-2)[..., :-1, :] <= uniform).to(probs.dtype)
    above = torch.nn.functional.pad(passed, [0, 0, 1, 0], value=1.0)
    return (above - torch.nn.functional.pad(passed, [0, 0, 0, 1])).transpose(-1, -2).flatten(-2)


class SequenceNode(torch.autograd.Function):
    """Takes in a whole sequence: deterministic states `[T, B, D]`, samples `[T, B, S]`, probabilities."""

    @staticmethod
    def forward(
        ctx: Any, deter: Tensor, stoch: Tensor, keep: Tensor, action: Tensor, seen: Tensor, uniform: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """See `sequence_run`; the weights are those of `Core`, then those of `Posterior`."""
        core, posterior = _weights(weights)
        (deters, stochs, probs), kept = sequence_run(deter, stoch, keep, action, seen, uniform, core, posterior)
        ctx.save_for_backward(keep, deters, *kept, *weights)
        return deters, stochs, probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_deter: Tensor, by_stoch: Tensor, by_probs: Tensor) -> tuple[Tensor | None, ...]:
        """By everything but `keep` and the numbers that were drawn with. A sample's gradient is its probability's."""
        count = len(Core._fields) + len(Posterior._fields)
        keep, deters, *kept = ctx.saved_tensors[:-count]
        core, posterior = _weights(ctx.saved_tensors[-count:])
        start, steps = sequence_pull(by_deter, by_stoch, by_probs, keep, kept, core, posterior)
        by_action, by_seen = steps[3][..., -core.deter.shape[0] :], steps[8]
        return *start, None, by_action, by_seen, None, *weights_pull(steps, deters, kept, core)


def _weights(given: tuple[Tensor, ...]) -> tuple[Core, Posterior]:
    count = len(Core._fields)
    return Core(*given[:count]), Posterior(*given[count:])


@torch.jit.script
def sequence_run(
    deter: Tensor, stoch: Tensor, keep: Tensor, action: Tensor, seen: Tensor, uniform: Tensor,
    core: Core, posterior: Posterior,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Deterministic states `[T, B, D]`, samples `[T, B, S]`, probabilities `[T, B, classes, latents]`; what is kept.

    Args:
        deter: `[B, D]`, before the sequence.
        stoch: `[B, S]`, before the sequence.
        keep: `[T, B, 1]`, 0 where the state is set to zero, else 1.
        action: `[T, B, H]`, features of the actions before.
        seen: `[T, B, H]`, what the posterior's first layer makes of the tokens.
        uniform: `[T, B, 1, latents]`, numbers that the samples are drawn with.
        core: weights.
        posterior: weights.
    """
    steps: list[list[Tensor]] = []
    eps = eps_like(posterior.norm)
    for t in range(keep.shape[0]):
        deter, kept = core_step(deter * keep[t], stoch * keep[t], action[t], core)
        hidden, unit, inverse = normed_silu_run(seen[t].addmm(deter, posterior.deter.t()), posterior.norm, eps)
        shares = class_shares(linear(hidden, posterior.out, posterior.out_bias), uniform.shape[-1])
        probs = unimixed(shares)
        stoch = drawn(probs, uniform[t])
        kept += [hidden, unit, inverse, shares, deter, stoch, probs]
        steps.append(kept)
    along = [torch.stack([step[i] for step in steps]) for i in range(len(steps[0]))]
    return along[-3:], along[:-3]


@torch.jit.script
def sequence_pull(
    by_deter: Tensor, by_stoch: Tensor, by_probs: Tensor, keep: Tensor, kept: list[Tensor],
    core: Core, posterior: Posterior, unimix: float = UNIMIX,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Gradients by the state before the sequence; and of each step, `[T, ...]`, by what its layers gave."""
    width, blocks, latents = core.deter.shape[0], core.own.shape[0], by_probs.shape[-1]
    back_own, back_gates, back_shared = core.own.transpose(1, 2), core.gates.transpose(1, 2), core.shared.t()
    (
        before, _, _, deter_unit, deter_inverse, stoch_unit, stoch_inverse, _, unit, inverse, gate, reset, candidate,
        update, _, seen_unit, seen_inverse, shares,
    ) = [values.unbind(0) for values in kept]  # fmt: skip
    to_deter, to_stoch = torch.zeros_like(by_deter[0]), torch.zeros_like(by_stoch[0])
    steps: list[list[Tensor]] = []
    for k in range(keep.shape[0]):
        t = keep.shape[0] - 1 - k
        to_probs = by_probs[t] + (by_stoch[t] + to_stoch).unflatten(1, [latents, -1]).transpose(1, 2)
        to_raw = torch.ops.aten._softmax_backward_data(to_probs, shares[t], 1, to_probs.dtype).mul_(1.0 - unimix)
        to_raw = to_raw.transpose(1, 2).flatten(1)
        to_hidden = torch.mm(to_raw, posterior.out)
        to_seen, by_seen_norm = normed_silu_pull(to_hidden, seen_unit[t], seen_inverse[t], posterior.norm)
        to_deter = (by_deter[t] + to_deter).addmm_(to_seen, posterior.deter)
        to_deter, to_gates = gated_pull(to_deter, before[t], gate[t], reset[t], candidate[t], update[t])
        to_x = torch.bmm(to_gates.flatten(2).transpose(0, 1), back_gates).transpose(0, 1).flatten(1)
        to_x, by_norm = normed_silu_pull(to_x, unit[t], inverse[t], core.norm)
        to_shared = torch.mm(to_x, back_shared)
        from_deter, from_stoch = to_shared[:, :width], to_shared[:, width : 2 * width]
        from_deter, by_deter_norm = normed_silu_pull(from_deter, deter_unit[t], deter_inverse[t], core.deter_norm)
        from_stoch, by_stoch_norm = normed_silu_pull(from_stoch, stoch_unit[t], stoch_inverse[t], core.stoch_norm)
        own = torch.bmm(to_x.unflatten(1, [blocks, -1]).transpose(0, 1), back_own).transpose(0, 1).flatten(1)
        to_deter = (to_deter + own).addmm_(from_deter, core.deter) * keep[t]
        to_stoch = torch.mm(from_stoch, core.stoch) * keep[t]
        steps.append([
            to_x, by_norm, to_gates, to_shared, from_deter, by_deter_norm, from_stoch, by_stoch_norm, to_seen,
            by_seen_norm, to_raw,
        ])  # fmt: skip
    steps.reverse()
    return [to_deter, to_stoch], [torch.stack([step[i] for step in steps]) for i in range(len(steps[0]))]


@torch.jit.script
def weights_pull(steps: list[Tensor], deters: Tensor, kept: list[Tensor], core: Core) -> list[Tensor]:
    """Gradients by the weights of `Core` and `Posterior`, from those by what their layers gave at each step."""
    blocks = core.own.shape[0]
    rows = [step.flatten(0, 1) for step in steps]
    sums = [row.sum(0) for row in rows]
    deter, stoch, shared, x, hidden = [kept[i].flatten(0, 1) for i in [0, 1, 2, 7, 14]]
    by_block = rows[0].unflatten(1, [blocks, -1]).transpose(0, 1)
    gates = rows[2].flatten(2).transpose(0, 1)
    return [
        torch.mm(rows[4].t(), deter), sums[4], sums[5],
        torch.mm(rows[6].t(), stoch), sums[6], sums[7],
        torch.mm(shared.t(), rows[0]),
        torch.bmm(deter.unflatten(1, [blocks, -1]).permute(1, 2, 0), by_block),
        sums[0].view_as(core.bias), sums[1],
        torch.bmm(x.unflatten(1, [blocks, -1]).permute(1, 2, 0), gates), sums[2].view_as(core.gates_bias),
        torch.mm(rows[8].t(), deters.flatten(0, 1)), sums[9],
        torch.mm(rows[10].t(), hidden), sums[10],
    ]  # fmt: skip
