"""The network of FlashSAC: normalised inputs, inverted residual blocks, weights of unit norm.

Every output of a linear layer is the product of a batch-normalised input with a unit vector, so that features keep
their scale whatever the learning rate does, and a step of the optimiser is an angle.

The backward pass is written out, as in `robotrl.nets.stack`, and both directions are scripted (ADR 0014): a narrow
network has many small operations. Activations are feature-major, `[E, features, B]`, so that the statistics of a
feature are sums over contiguous rows. By the running statistics a normalisation is a linear map, and folded into the
layer before it (that of the inputs into the layer behind it).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

EXPANSION = 4
"""Width inside a block, in widths of the network."""
MOMENTUM = 0.01
"""Share of a batch in the running statistics."""
EPS = 1e-5
RMS_EPS = 1e-6


class FlashStack(nn.Module):
    """`[B, in_dim] -> [E, B, out_dim]`: embedding, blocks with a skip connection, RMS normalisation, head.

    Args:
        size: independent networks E on one input.
        in_dim: input features.
        width: of the residual stream.
        blocks: how many.
        out_dim: outputs.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, size: int, in_dim: int, width: int, blocks: int, out_dim: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        shapes = [(width, in_dim), *[(inner, width), (width, inner)] * blocks, (out_dim, width)]
        dims = (in_dim, *(inner, width) * blocks)
        self.weights = nn.ParameterList(
            torch.stack([nn.init.orthogonal_(torch.empty(shape)) for _ in range(size)]) for shape in shapes
        )
        self.gains = nn.ParameterList(torch.ones(size, dim, 1) for dim in dims)
        self.shifts = nn.ParameterList(torch.zeros(size, dim, 1) for dim in dims)
        self.gain, self.bias = nn.Parameter(torch.ones(size, 1, width)), nn.Parameter(torch.zeros(size, 1, out_dim))
        # of the inputs, which all networks share, then of each layer, all networks side by side
        statistics = in_dim + size * sum(dims[1:])
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("var", torch.ones(statistics))
        self.normalise()

    def forward(self, x: Tensor) -> Tensor:
        """All networks on `x`, normalised by the running statistics."""
        out, _ = _run_folded(x, *self._lists(), self.gain, self.bias, self.mean, self.var)
        return out

    @torch.no_grad()
    def pullback_to_input(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As `forward`, without autograd, and the function that takes the gradient by the outputs to that by `x`."""
        weights, gains, shifts = self._lists()
        out, trace = _run_folded(x, weights, gains, shifts, self.gain, self.bias, self.mean, self.var)

        @torch.no_grad()
        def back(grad: Tensor) -> Tensor:
            return _pull_folded(grad, trace, weights[-1], self.gain)

        return out, back

    @torch.no_grad()
    def of_batch(self, x: Tensor, rows: slice) -> Tensor:
        """Outputs `[E, b, out_dim]` for some `rows` of `x`, normalised by the statistics of all of it."""
        first, last, _ = rows.indices(len(x))
        return _run(x, *self._lists(), self.gain, self.bias, self.mean, self.var, first, last)[0]

    @torch.no_grad()
    def pullback(self, x: Tensor, rows: slice) -> tuple[Tensor, Callable[[Tensor], None]]:
        """As `of_batch`, and the function that takes the gradient by those outputs back.

        Returns:
            Outputs, and `pull(grad)`, to be called once: it overwrites the gradients of all parameters, which
            `flatten_parameters` has allocated. The statistics depend on all rows, and so gradients go through all.
        """
        first, last, _ = rows.indices(len(x))
        weights, gains, shifts = self._lists()
        out, trace = _run(x, weights, gains, shifts, self.gain, self.bias, self.mean, self.var, first, last)

        @torch.no_grad()
        def back(grad: Tensor) -> None:
            into = [[_grad(p) for p in kind] for kind in (weights, gains, shifts)]
            _pull(
                grad, trace, weights, gains, shifts, self.gain, *into, _grad(self.gain), _grad(self.bias), first, last
            )

        return out, back

    def _lists(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        return list(self.weights), list(self.gains), list(self.shifts)

    @torch.no_grad()
    def normalise(self) -> None:
        """Back to unit norm: each output's weights, and gains and shifts. To be called after each optimiser step."""
        _normalise(*self._lists(), self.gain)


@torch.jit.script
def _normalise(weights: list[Tensor], gains: list[Tensor], shifts: list[Tensor], gain: Tensor) -> None:
    for weight in weights:
        weight.div_(torch.linalg.vector_norm(weight, 2.0, [-1], True).clamp_(min=1e-8))
    for i in range(len(gains)):
        squares = torch.addcmul(shifts[i] * shifts[i], gains[i], gains[i]).sum([1], keepdim=True)
        scale = torch.rsqrt(squares.add_(1e-8)).mul_(math.sqrt(gains[i].shape[1]))
        gains[i].mul_(scale)
        shifts[i].mul_(scale)
    squares = (gain * gain).sum([-1], keepdim=True)
    gain.mul_(torch.rsqrt(squares.add_(1e-8)).mul_(math.sqrt(gain.shape[2])))


@torch.jit.script
def _standardised(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`z [..., B]` less its mean, in place; the mean, and the biased variance, `[..., 1]`."""
    mean = z.mean([-1], keepdim=True)
    z.sub_(mean)
    norm = torch.linalg.vector_norm(z, 2.0, [-1], True)
    return mean, norm.mul_(norm).div_(z.shape[-1]), z


@torch.jit.script
def _head(h: Tensor, weight: Tensor, gain: Tensor, bias: Tensor, eps: float = RMS_EPS) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs for `h [E, width, b]`, the features of root mean square 1, and what these were scaled by."""
    scale = torch.rsqrt((h * h).mean([1], keepdim=True).add_(eps))
    unit = h * scale
    return torch.baddbmm(bias, unit.transpose(1, 2), (weight * gain).transpose(1, 2)), unit, scale


@torch.jit.script
def _pull_head(grad: Tensor, unit: Tensor, scale: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
    """From the gradient by the outputs to that by `h`."""
    g = torch.bmm((weight * gain).transpose(1, 2), grad.transpose(1, 2))
    along = (g * unit).mean([1], keepdim=True)
    return g.sub_(unit * along).mul_(scale)


@torch.jit.script
def _run(
    x: Tensor,
    weights: list[Tensor],
    gains: list[Tensor],
    shifts: list[Tensor],
    gain: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    first: int,
    last: int,
    eps: float = EPS,
    momentum: float = MOMENTUM,
) -> tuple[Tensor, list[Tensor]]:
    """Outputs of the rows `first` to `last - 1`, normalised by the statistics of all; what `_pull` needs of it."""
    batch = x.shape[0]
    size, width = weights[0].shape[0], weights[0].shape[1]
    mean, var, normed = _standardised(x.t().clone(memory_format=torch.contiguous_format))
    means, variances = [mean.flatten()], [var.flatten()]
    normed.mul_(torch.rsqrt(var + eps))
    embedding = (weights[0] * gains[0].transpose(1, 2)).flatten(0, 1)
    h = torch.addmm(torch.bmm(weights[0], shifts[0]).flatten(0, 1), embedding, normed).view(size, width, batch)
    trace = [normed]
    for i in range(1, len(gains), 2):
        block = [h]
        a = h
        for k in range(i, i + 2):
            mean, var, z = _standardised(torch.bmm(weights[k], a))
            means.append(mean.flatten())
            variances.append(var.flatten())
            scale = torch.rsqrt(var + eps)
            factor = gains[k] * scale
            a = (z * factor).add_(shifts[k]).relu_()
            block += [z, scale, factor, a]
        trace += block
        h = h + a
    running_mean.lerp_(torch.cat(means), momentum)
    running_var.lerp_(torch.cat(variances).mul_(batch / (batch - 1)), momentum)
    out, unit, rms = _head(h[:, :, first:last], weights[len(weights) - 1], gain, bias)
    trace += [unit, rms]
    return out, trace


@torch.jit.script
def _pull(
    grad: Tensor,
    trace: list[Tensor],
    weights: list[Tensor],
    gains: list[Tensor],
    shifts: list[Tensor],
    gain: Tensor,
    into_weights: list[Tensor],
    into_gains: list[Tensor],
    into_shifts: list[Tensor],
    into_gain: Tensor,
    into_bias: Tensor,
    first: int,
    last: int,
) -> None:
    """The gradient of `_run` by everything, from that by its outputs."""
    unit, rms, normed = trace[len(trace) - 2], trace[len(trace) - 1], trace[0]
    batch, top = normed.shape[1], len(weights) - 1
    by_product = torch.bmm(grad.transpose(1, 2), unit.transpose(1, 2))
    torch.mul(by_product, gain, out=into_weights[top])
    torch.sum(by_product * weights[top], [1], True, out=into_gain)
    torch.sum(grad, [1], True, out=into_bias)
    g = torch.zeros([unit.shape[0], unit.shape[1], batch], dtype=unit.dtype, device=unit.device)
    g[:, :, first:last] = _pull_head(grad, unit, rms, weights[top], gain)
    for step in range(len(gains) // 2):
        place = len(trace) - 2 - 9 * (step + 1)
        by_out = g
        for back in range(2):
            k = len(gains) - 1 - 2 * step - back
            z, scale, factor, a = trace[place + 5 - 4 * back : place + 9 - 4 * back]
            before = trace[place + 4 - 4 * back]
            by_out = torch.ops.aten.threshold_backward(by_out, a, 0)
            torch.sum(by_out, [-1], True, out=into_shifts[k])
            torch.mul((by_out * z).sum([-1], keepdim=True), scale, out=into_gains[k])
            by_out.sub_(into_shifts[k], alpha=1.0 / batch)
            by_out.sub_(z * (into_gains[k] * scale), alpha=1.0 / batch).mul_(factor)
            torch.bmm(by_out, before.transpose(1, 2), out=into_weights[k])
            if back == 0:
                by_out = torch.bmm(weights[k].transpose(1, 2), by_out)
            else:
                g = torch.baddbmm(g, weights[k].transpose(1, 2), by_out)
    by_product = torch.mm(g.flatten(0, 1), normed.t()).view_as(weights[0])
    total = g.sum([-1], keepdim=True)
    into_weights[0].copy_(by_product * gains[0].transpose(1, 2) + total * shifts[0].transpose(1, 2))
    into_gains[0].copy_((by_product * weights[0]).sum([1]).unsqueeze(-1))
    torch.bmm(weights[0].transpose(1, 2), total, out=into_shifts[0])


@torch.jit.script
def _run_folded(
    x: Tensor,
    weights: list[Tensor],
    gains: list[Tensor],
    shifts: list[Tensor],
    gain: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float = EPS,
) -> tuple[Tensor, list[Tensor]]:
    """Outputs by the running statistics; what `_pull_folded` needs of it."""
    size, width, dim = weights[0].shape[0], weights[0].shape[1], weights[0].shape[2]
    scales = torch.rsqrt(running_var + eps)
    scale = gains[0] * scales[:dim].unsqueeze(1)
    offset = shifts[0] - scale * running_mean[:dim].unsqueeze(1)
    embedding = (weights[0] * scale.transpose(1, 2)).flatten(0, 1)
    h = torch.addmm(torch.bmm(weights[0], offset).flatten(0, 1), embedding, x.t()).view(size, width, x.shape[0])
    trace = [embedding]
    start = dim
    for i in range(1, len(gains), 2):
        a = h
        for k in range(i, i + 2):
            stop = start + gains[k].numel()
            scale = gains[k] * scales[start:stop].view_as(gains[k])
            folded = weights[k] * scale
            offset = shifts[k] - scale * running_mean[start:stop].view_as(gains[k])
            a = torch.baddbmm(offset, folded, a).relu_()
            trace += [folded, a]
            start = stop
        h = h + a
    out, unit, rms = _head(h, weights[len(weights) - 1], gain, bias)
    trace += [unit, rms]
    return out, trace


@torch.jit.script
def _pull_folded(grad: Tensor, trace: list[Tensor], head: Tensor, gain: Tensor) -> Tensor:
    """The gradient of `_run_folded` by `x`, `[B, in]`, from that by its outputs."""
    end = len(trace) - 2
    g = _pull_head(grad, trace[end], trace[end + 1], head, gain)
    for place in range(end - 4, 0, -4):
        inner = torch.bmm(trace[place + 2].transpose(1, 2), torch.ops.aten.threshold_backward(g, trace[place + 3], 0))
        inner = torch.ops.aten.threshold_backward(inner, trace[place + 1], 0)
        g = torch.baddbmm(g, trace[place].transpose(1, 2), inner)
    return torch.mm(g.flatten(0, 1).t(), trace[0])  # the sum over networks comes with it


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "flatten_parameters allocates gradients"
    return parameter.grad


__all__ = ["EXPANSION", "MOMENTUM", "FlashStack"]
