"""Stacked ReLU networks with the backward pass written out.

Next to its matrix products, a 256-wide layer on a batch of 256 is expensive in everything that autograd does around
them: gradients in layouts that the next operation reads slowly, a fresh tensor for each step, sums into `.grad`. Here
every intermediate is computed in place and in the layout of the product that follows, and `pull` writes gradients where
they belong. `relu_stack` is the same as one autograd node, for whatever else a loss is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-5
"""Of layer normalisation, PyTorch's default."""


@dataclass(slots=True)
class Layers:
    """E networks of one shape: linear, dropout, layer normalisation, ReLU for each hidden layer; the last is linear."""

    weights: Sequence[Tensor]
    """`[E, in, out]` of each layer."""
    biases: Sequence[Tensor]
    """`[E, 1, out]` of each layer."""
    gains: Sequence[Tensor] = ()
    """`[E, 1, out]` of each hidden layer's normalisation; empty: none."""
    shifts: Sequence[Tensor] = ()
    dropout: float = 0.0
    """Probability with which a hidden unit is dropped."""
    dtype: torch.dtype = torch.float32
    """To which the inputs of matrix products are rounded, and in which hidden layers are kept."""

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in a fixed order."""
        return (*self.weights, *self.biases, *self.gains, *self.shifts)

    def of(self, tensors: Sequence[Tensor]) -> Layers:
        """The same form with other tensors, in the order of `tensors()`."""
        a, b = len(self.weights), 2 * len(self.weights)
        c = b + len(self.gains)
        return Layers(tensors[:a], tensors[a:b], tensors[b:c], tensors[c:], self.dropout, self.dtype)

    def rounded(self) -> Layers:
        """With all tensors in `dtype`, in the layout they have: at once, since each conversion alone costs its call."""
        if self.dtype == self.weights[0].dtype:
            return self
        low = [torch.empty_like(t, dtype=self.dtype) for t in self.tensors()]
        torch._foreach_copy_(low, self.tensors())
        return self.of(low)


@dataclass(slots=True)
class Trace:
    """What `run` keeps for `pull`."""

    layers: Layers
    low: Layers
    """The same, rounded to their `dtype`."""
    x: Tensor
    outputs: list[Tensor]
    norms: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    """Of each hidden layer: what was normalised, the result, mean and inverse deviation."""
    masks: list[Tensor]

    def first(self, rows: int) -> Trace:
        """That of the first `rows` of `x` alone."""
        outputs, masks = ([t[:, :rows] for t in kind] for kind in (self.outputs, self.masks))
        norms = [(a[:, :rows], b[:, :rows], c[:, :rows], d[:, :rows]) for a, b, c, d in self.norms]
        return Trace(self.layers, self.low, self.x[:rows], outputs, norms, masks)


def relu_stack(x: Tensor, layers: Layers) -> Tensor:
    """The networks on `x [B, in]`: `[E, B, out]`, float32; with autograd they are one node of it."""
    if not torch.is_grad_enabled():
        return run(x, layers)[0]
    result: Tensor = _ReluStack.apply(x, layers, *layers.tensors())
    return result


@torch.no_grad()
def run(x: Tensor, layers: Layers) -> tuple[Tensor, Trace]:
    """The networks on `x [B, in]`: `[E, B, out]`, float32, and what their gradient needs."""
    low = layers.rounded()
    trace = Trace(layers, low, x.to(low.dtype), [], [], [])
    h = trace.x.expand(len(low.weights[0]), *x.shape)
    for i in range(len(low.weights) - 1):
        z = torch.baddbmm(low.biases[i], h, low.weights[i])
        if layers.dropout:
            trace.masks.append(torch.empty_like(z).bernoulli_(1.0 - layers.dropout).div_(1.0 - layers.dropout))
            z.mul_(trace.masks[-1])
        if low.gains:
            normed, mean, scale = torch.native_layer_norm(z, z.shape[-1:], *_unit(z), EPS)
            trace.norms.append((z, normed, mean, scale))
            z = torch.addcmul(low.shifts[i], normed, low.gains[i])
        h = _relu(z)
        trace.outputs.append(h)
    bias = layers.biases[-1]
    return _product(h, low.weights[-1]).to(bias.dtype) + bias, trace


@torch.no_grad()
def pull(trace: Trace, grad: Tensor, into: Layers | None, *, to_x: slice | None = None) -> Tensor | None:
    """The gradient of `run` against its output's, `grad [E, B, out]`.

    Args:
        trace: from `run`; used up.
        grad: of the output.
        into: overwritten with the gradients of weights, biases, gains and shifts; None: they are not wanted.
        to_x: the columns of `x` whose gradient is wanted; None: it is not.

    Returns:
        `[B, columns]`, or None.
    """
    layers = trace.low
    g = grad.to(layers.dtype)
    for i in range(len(layers.weights) - 1, -1, -1):
        if into is not None:
            h = trace.outputs[i - 1] if i else trace.x.expand(len(g), *trace.x.shape)
            _weight_gradient(h, g, into.weights[i])
            _sum(g, into.biases[i])
        if i == 0:
            break
        back = layers.weights[i].transpose(1, 2)
        g = g * back if g.shape[2] == 1 else torch.bmm(g, back)
        g = _relu_back(g, trace.outputs[i - 1])
        if layers.gains:
            z, normed, mean, scale = trace.norms[i - 1]
            if into is not None:
                _sum(g * normed, into.gains[i - 1])
                _sum(g, into.shifts[i - 1])
            g.mul_(layers.gains[i - 1])
            g, _, _ = _norm_backward(g, z, [z.shape[-1]], mean, scale, None, None, [True, False, False])
        if trace.masks:
            g.mul_(trace.masks[i - 1])
    if to_x is None:
        return None
    # W @ g.T takes half the time of g @ W.T, being narrow
    return torch.bmm(layers.weights[0][:, to_x], g.transpose(1, 2)).sum(0, dtype=grad.dtype).t()


def _relu(z: Tensor) -> Tensor:
    """In place."""
    _plain_numbers(z).relu_()
    return z


def _relu_back(g: Tensor, out: Tensor) -> Tensor:
    """`g` in place, zero where `out`, that of a ReLU, is zero."""
    low = _plain_numbers(g)
    torch.ops.aten.threshold_backward.grad_input(low, _plain_numbers(out), 0, grad_input=low)
    return g


def _plain_numbers(z: Tensor) -> Tensor:
    """For what asks for signs only: PyTorch's kernels are faster on the same bits as integers.

    A negative NaN then counts as negative and becomes zero; what comes in from outside was checked at the seam.
    """
    return z.view(torch.int16) if z.dtype == torch.bfloat16 and not z.is_cuda else z


def _product(h: Tensor, weight: Tensor) -> Tensor:
    """`[E, B, in] x [E, in, out]`. With one output `bmm` takes many times as long as what is done here."""
    if weight.shape[2] > 1 or h.is_cuda:
        return torch.bmm(h, weight)
    if h.dtype != torch.float32:
        return torch.bmm(weight.transpose(1, 2), h.transpose(1, 2)).transpose(1, 2)
    out = h.new_empty(len(h), h.shape[1], 1)
    for member, rows, column in zip(out, h, weight, strict=True):
        torch.mm(rows, column, out=member)
    return out


def _weight_gradient(h: Tensor, g: Tensor, into: Tensor) -> None:
    """`h.T @ g` into a tensor that may be the transpose of a contiguous one, and of higher precision."""
    if into.stride(-1) == 1 and into.shape[2] > 1:
        left, right = h, g
    else:
        left, right, into = g, h, into.transpose(1, 2)
    if g.dtype == into.dtype:
        torch.bmm(left.transpose(1, 2), right, out=into)
    else:
        into.copy_(torch.bmm(left.transpose(1, 2), right))


def _sum(g: Tensor, into: Tensor) -> None:
    """Over the batch. PyTorch sums bfloat16 in float32 and rounds once; asked for float32 it converts all first."""
    into.copy_(g.sum(1, keepdim=True))


def _unit(z: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """A gain of one and a shift of zero: in float32, PyTorch's kernel takes half the time with them."""
    plain = z.dtype != torch.float32
    return (None, None) if plain else (z.new_ones(z.shape[-1]), z.new_zeros(z.shape[-1]))


_norm_backward = torch.ops.aten.native_layer_norm_backward


class _ReluStack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Layers, *tensors: Tensor) -> Tensor:
        """As `run`."""
        out, trace = run(x, layers.of(tensors))
        ctx.save_for_backward(x, *tensors)
        ctx.trace = trace
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """As `pull`; for a second derivative through operations that autograd can differentiate again."""
        x, *tensors = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
        trace: Trace = ctx.trace
        if torch.is_grad_enabled():
            asked = [t for t, needed in zip((x, *tensors), wanted, strict=True) if needed]
            again = iter(torch.autograd.grad(_plain(x, trace.layers, trace.masks), asked, grad, create_graph=True))
            x_grad, *grads = [next(again) if needed else None for needed in wanted]
        else:
            into = trace.layers.of([torch.empty_like(t) for t in tensors]) if any(wanted[1:]) else None
            x_grad = pull(trace, grad, into, to_x=slice(None) if wanted[0] else None)
            grads = list(into.tensors()) if into is not None else [None] * len(tensors)
        return x_grad, None, *grads


def _plain(x: Tensor, layers: Layers, masks: list[Tensor]) -> Tensor:
    h, dtype = x.to(layers.dtype).expand(len(layers.weights[0]), *x.shape), layers.dtype
    last = len(layers.weights) - 1
    for i, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        h = torch.baddbmm(bias.to(dtype), h, weight.to(dtype))
        if i == last:
            break
        if masks:
            h = h * masks[i]
        if layers.gains:
            h = F.layer_norm(h, h.shape[-1:], eps=EPS) * layers.gains[i].to(dtype) + layers.shifts[i].to(dtype)
        h = torch.relu(h)
    return h.to(layers.biases[-1].dtype)
