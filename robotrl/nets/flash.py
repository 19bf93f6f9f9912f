"""The network of FlashSAC: normalised inputs, inverted residual blocks, weights of unit norm.

Every output of a linear layer is the product of a batch-normalised input with a unit vector, so that features keep
their scale whatever the learning rate does, and a step of the optimiser is an angle.

The backward pass is written out, as in `robotrl.nets.stack`. Activations are feature-major, `[E, features, B]`: a
feature's statistics are then sums over contiguous rows. Where the running statistics are used, each normalisation is a
linear map and is folded into the layer before it (that of the inputs into the layer behind it).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

EXPANSION = 4
"""Width inside a block, in widths of the network."""
MOMENTUM = 0.01
"""Share of a batch in the running statistics."""
EPS, RMS_EPS = 1e-5, 1e-6


class UnitBatchNorm(nn.Module):
    """Batch normalisation of `[E, dim, B]` over the last axis; its gain and shift together keep the norm sqrt(dim).

    Args:
        size: networks E.
        dim: features.
        shared: whether all networks see the same features, and so have the same statistics.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, size: int, dim: int, *, shared: bool = False) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(size, dim, 1)), nn.Parameter(torch.zeros(size, dim, 1))
        self.register_buffer("mean", torch.zeros(1 if shared else size, dim, 1))
        self.register_buffer("var", torch.ones(1 if shared else size, dim, 1))

    def scale_and_offset(self) -> tuple[Tensor, Tensor]:
        """By the running statistics the result is `scale * z + offset`, `[E, dim, 1]` each."""
        scale = self.gain * torch.rsqrt(self.var + EPS)
        return scale, self.shift - self.mean * scale

    def centre(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`z` less its batch's mean, in place, and one by its deviation. The running statistics follow."""
        batch, mean = z.shape[-1], z.mean(-1, keepdim=True)
        centred = z.sub_(mean)
        var = torch.linalg.vector_norm(centred, dim=-1, keepdim=True).square_().div_(batch)
        self.mean.lerp_(mean, MOMENTUM)
        self.var.lerp_(var * (batch / (batch - 1)), MOMENTUM)
        return centred, var.add_(EPS).rsqrt_()

    def activate(self, centred: Tensor, scale: Tensor) -> Tensor:
        """The normalised `z`, times gain, plus shift; then ReLU."""
        return (centred * (self.gain * scale)).add_(self.shift).relu_()

    def pull(self, grad: Tensor, centred: Tensor, scale: Tensor) -> Tensor:
        """The gradient by `z`, in place of that before the ReLU; writes those of gain and shift."""
        count = grad.shape[-1]
        total, along = grad.sum(-1, keepdim=True), (grad * centred).sum(-1, keepdim=True)
        _grad(self.shift).copy_(total)
        torch.mul(along, scale, out=_grad(self.gain))
        grad.sub_(total.div_(count)).sub_(centred * along.mul_(scale).mul_(scale).div_(count))
        return grad.mul_(self.gain * scale)

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale gain and shift back to their norm."""
        squares = self.gain.square().sum(1, keepdim=True) + self.shift.square().sum(1, keepdim=True)
        scale = math.sqrt(self.gain.shape[1]) * torch.rsqrt(squares + 1e-8)
        self.gain.mul_(scale)
        self.shift.mul_(scale)


@dataclass(slots=True)
class _Block:
    """What a block's gradient needs: input; of each half what was centred, one by the deviation, and the output."""

    h: Tensor
    centred: tuple[Tensor, Tensor]
    scale: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]


class FlashStack(nn.Module):
    """`[B, in_dim] -> [E, B, out_dim]`: embedding, blocks with a skip connection, RMS normalisation, head.

    Args:
        size: independent networks E on one input.
        in_dim: input features.
        width: of the residual stream.
        blocks: how many.
        out_dim: outputs.
    """

    def __init__(self, size: int, in_dim: int, width: int, blocks: int, out_dim: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        shapes = [(width, in_dim), *[(inner, width), (width, inner)] * blocks, (out_dim, width)]
        self.weights = nn.ParameterList(
            torch.stack([nn.init.orthogonal_(torch.empty(shape)) for _ in range(size)]) for shape in shapes
        )
        dims = (in_dim, *(inner, width) * blocks)
        self.norms = nn.ModuleList(UnitBatchNorm(size, dim, shared=i == 0) for i, dim in enumerate(dims))
        self.gain, self.bias = nn.Parameter(torch.ones(size, 1, width)), nn.Parameter(torch.zeros(size, 1, out_dim))
        self.normalise()

    def forward(self, x: Tensor) -> Tensor:
        """All networks on `x`, normalised by the running statistics."""
        h = self._embed(x, *self._folded(0))
        for i in range(1, len(self.norms), 2):
            inner = torch.relu(_linear(h, *self._folded(i)))
            h = h + torch.relu(_linear(inner, *self._folded(i + 1)))
        return self._head(h)[0]

    @torch.no_grad()
    def pullback_to_input(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As `forward`, without autograd, and the function that takes the gradient by the outputs to that by `x`."""
        embedding = self._folded(0)
        h, blocks = self._embed(x, *embedding), []
        for i in range(1, len(self.norms), 2):
            first, second = self._folded(i), self._folded(i + 1)
            inner = _linear(h, *first).relu_()
            outer = _linear(inner, *second).relu_()
            blocks.append((first[0], second[0], inner, outer))
            h = h + outer
        out, unit, scale = self._head(h)

        @torch.no_grad()
        def back(grad: Tensor) -> Tensor:
            g = self._pull_head(grad, unit, scale)
            for first, second, inner, outer in reversed(blocks):
                ga = torch.bmm(second.transpose(1, 2), _relu_back(g, outer))
                g = torch.baddbmm(g, first.transpose(1, 2), _relu_back(ga, inner, in_place=True))
            return torch.mm(g.flatten(0, 1).t(), embedding[0].flatten(0, 1))  # the sum over networks comes with it

        return out, back

    @torch.no_grad()
    def of_batch(self, x: Tensor, rows: slice) -> Tensor:
        """Outputs `[E, b, out_dim]` for some `rows` of `x`, normalised by the statistics of all of it."""
        return self._run(x, rows, None)[0]

    @torch.no_grad()
    def pullback(self, x: Tensor, rows: slice) -> tuple[Tensor, Callable[[Tensor], None]]:
        """As `of_batch`, and the function that takes the gradient by those outputs back.

        Returns:
            Outputs, and `pull(grad)`, to be called once: it overwrites the gradients of all parameters, which
            `flatten_parameters` has allocated. The statistics depend on all rows, and so gradients go through all.
        """
        blocks: list[_Block] = []
        out, normed, unit, scale = self._run(x, rows, blocks)

        @torch.no_grad()
        def back(grad: Tensor) -> None:
            g = normed.new_zeros(len(self.gain), self.gain.shape[2], normed.shape[-1])
            g[..., rows] = self._pull_head(grad, unit, scale, to_weights=True)
            for i in range(len(self.norms) - 2, 0, -2):
                g = self._pull_block(i, g, blocks.pop())
            self._pull_embedding(g, normed)

        return out, back

    def _run(self, x: Tensor, rows: slice, blocks: list[_Block] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Outputs of `rows`, the normalised input, and the normalised features with their scale."""
        first = self._norm(0)
        centred, scale = first.centre(x.t().unsqueeze(0).clone(memory_format=torch.contiguous_format))
        normed, weight = centred.mul_(scale), self.weights[0]
        h = self._embed(normed[0].t(), weight * first.gain.transpose(1, 2), torch.bmm(weight, first.shift))
        for i in range(1, len(self.norms), 2):
            one, one_scale = self._norm(i).centre(torch.bmm(self.weights[i], h))
            inner = self._norm(i).activate(one, one_scale)
            two, two_scale = self._norm(i + 1).centre(torch.bmm(self.weights[i + 1], inner))
            outer = self._norm(i + 1).activate(two, two_scale)
            if blocks is not None:
                blocks.append(_Block(h, (one, two), (one_scale, two_scale), (inner, outer)))
            h = h + outer
        out, unit, scale = self._head(h[..., rows])
        return out, normed, unit, scale

    def _pull_block(self, i: int, g: Tensor, block: _Block) -> Tensor:
        """From the gradient by what a block adds up to that by its input."""
        first, second = self.weights[i], self.weights[i + 1]
        gz = self._norm(i + 1).pull(_relu_back(g, block.out[1]), block.centred[1], block.scale[1])
        torch.bmm(gz, block.out[0].transpose(1, 2), out=_grad(second))
        ga = _relu_back(torch.bmm(second.transpose(1, 2), gz), block.out[0], in_place=True)
        gz = self._norm(i).pull(ga, block.centred[0], block.scale[0])
        torch.bmm(gz, block.h.transpose(1, 2), out=_grad(first))
        return torch.baddbmm(g, first.transpose(1, 2), gz)

    def _embed(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`weight [E, width, in_dim]` and `bias [E, width, 1]` on `x [B, in_dim]`, as one product."""
        flat = torch.addmm(bias.flatten(0, 1), weight.flatten(0, 1), x.t())
        return flat.view(*weight.shape[:2], len(x))

    def _pull_embedding(self, g: Tensor, normed: Tensor) -> None:
        first, weight = self._norm(0), self.weights[0]
        by_product = torch.mm(g.flatten(0, 1), normed[0].t()).view_as(weight)
        total = g.sum(-1, keepdim=True)
        torch.addcmul(total * first.shift.transpose(1, 2), by_product, first.gain.transpose(1, 2), out=_grad(weight))
        _grad(first.gain).copy_((by_product * weight).sum(1).unsqueeze(-1))
        torch.bmm(weight.transpose(1, 2), total, out=_grad(first.shift))

    def _head(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs for `h [E, width, b]`, the features of root mean square 1, and what these were scaled by."""
        scale = torch.rsqrt(h.square().mean(1, keepdim=True) + RMS_EPS)
        unit = h * scale
        weight = self.weights[-1] * self.gain
        return torch.baddbmm(self.bias, unit.transpose(1, 2), weight.transpose(1, 2)), unit, scale

    def _pull_head(self, grad: Tensor, unit: Tensor, scale: Tensor, *, to_weights: bool = False) -> Tensor:
        weight, grad_t = self.weights[-1], grad.transpose(1, 2)
        if to_weights:
            by_product = torch.bmm(grad_t, unit.transpose(1, 2))
            torch.mul(by_product, self.gain, out=_grad(weight))
            torch.sum(by_product * weight, 1, keepdim=True, out=_grad(self.gain))
            torch.sum(grad, 1, keepdim=True, out=_grad(self.bias))
        g = torch.bmm((weight * self.gain).transpose(1, 2), grad_t)
        along = (g * unit).mean(1, keepdim=True)
        return g.addcmul_(unit, along, value=-1.0).mul_(scale)

    def _folded(self, i: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of layer i together with its normalisation by the running statistics."""
        weight, (scale, offset) = self.weights[i], self._norm(i).scale_and_offset()
        if i == 0:
            return weight * scale.transpose(1, 2), torch.bmm(weight, offset)
        return weight * scale, offset

    def _norm(self, i: int) -> UnitBatchNorm:
        norm = self.norms[i]
        assert isinstance(norm, UnitBatchNorm)
        return norm

    @torch.no_grad()
    def normalise(self) -> None:
        """Back to unit norm: each output's weights, and gains and shifts. To be called after each optimiser step."""
        for weight in self.weights:
            weight.div_(torch.linalg.vector_norm(weight, dim=-1, keepdim=True).clamp_(min=1e-8))
        for i in range(len(self.norms)):
            self._norm(i).normalise()
        width = self.gain.shape[-1]
        self.gain.mul_(math.sqrt(width) * torch.rsqrt(self.gain.square().sum(-1, keepdim=True) + 1e-8))


def _linear(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias, weight, h)


def _relu_back(grad: Tensor, out: Tensor, *, in_place: bool = False) -> Tensor:
    """`grad` where `out`, that of a ReLU, is positive, else zero."""
    if in_place:
        return torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)
    return torch.ops.aten.threshold_backward(grad, out, 0)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "flatten_parameters allocates gradients"
    return parameter.grad


__all__ = ["EXPANSION", "MOMENTUM", "FlashStack", "UnitBatchNorm"]
