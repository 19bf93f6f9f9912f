"""Multilayer perceptron, written for the sizes robot learning uses (64 to 512 wide, batches of 64 to 4096).

On CPUs small nets spend most of their time outside the matrix products, so the tanh net is one autograd node that
works feature-major (`W @ x.T`: with MKL much cheaper than `x @ W.T` for narrow outputs) and takes tanh as
`2 sigmoid(2x) - 1`, which torch vectorises better than its tanh and which agrees with it to float32 rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from robotrl.nets.stack import Layers, relu_stack

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class _TanhStack(torch.autograd.Function):
    """Linear layers with tanh between them: `x [B, in]`, then weight `[out, in]` and bias `[out]` of each layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """Keep each hidden layer's output, feature-major."""
        hidden = [x.t()]
        for i in range(0, len(parameters), 2):
            inner = i + 2 < len(parameters)
            twice = 2.0 if inner else 1.0  # the 2x of tanh(x) = 2 sigmoid(2x) - 1 comes free with the product
            h = torch.addmm(parameters[i + 1].unsqueeze(1), parameters[i], hidden[-1], beta=twice, alpha=twice)
            if inner:
                hidden.append(h.sigmoid_().mul_(2.0).sub_(1.0))
        ctx.save_for_backward(x, *parameters, *hidden[1:])
        return h.t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input (if asked for) and of each weight and bias."""
        count = (len(ctx.saved_tensors) - 1) // 3 * 2 + 2
        x, parameters = ctx.saved_tensors[0], ctx.saved_tensors[1 : 1 + count]
        if torch.is_grad_enabled():  # asked for with create_graph: go through ops that autograd can differentiate again
            asked = [t for t, needed in zip((x, *parameters), ctx.needs_input_grad, strict=True) if needed]
            again = iter(torch.autograd.grad(_plain(x, parameters), asked, grad, create_graph=True))
            return tuple(next(again) if needed else None for needed in ctx.needs_input_grad)
        inputs = (x.t(), *ctx.saved_tensors[1 + count :])
        grads: list[Tensor | None] = [None] * (1 + count)
        g = grad.t()
        for i in range(count // 2 - 1, -1, -1):
            grads[1 + 2 * i] = torch.mm(g, inputs[i].t())
            grads[2 + 2 * i] = g.sum(1)
            if i:
                g = torch.mm(parameters[2 * i].t(), g)
                g = torch.ops.aten.tanh_backward.grad_input(g, inputs[i], grad_input=g)
            elif ctx.needs_input_grad[0]:
                grads[0] = torch.mm(parameters[0].t(), g).t()
        return tuple(grads)


def _plain(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    for i in range(0, len(parameters) - 2, 2):
        x = torch.tanh(nn.functional.linear(x, parameters[i], parameters[i + 1]))
    return nn.functional.linear(x, parameters[-2], parameters[-1])


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

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Apply the net over the last axis; `dtype` is of the matrix products, where the activation is relu."""
        if isinstance(self.activation, nn.Tanh):
            flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
            out = _TanhStack.apply(flat, *(p for layer in self.layers for p in (layer.weight, layer.bias)))
            return out if x.dim() == 2 else out.reshape(*x.shape[:-1], self.out_dim)
        if isinstance(self.activation, nn.ReLU):
            flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
            out = relu_stack(flat, self.stacked(dtype)).squeeze(0)
            return out if x.dim() == 2 else out.reshape(*x.shape[:-1], self.out_dim)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)

    def stacked(self, dtype: torch.dtype = torch.float32) -> Layers:
        """The layers as a stack of one network, views of the parameters."""
        return _one([*self.parameters()], dtype)

    def stacked_gradients(self) -> Layers:
        """The parameters' gradients in the form of `stacked`."""
        return _one([p.grad for p in self.parameters() if p.grad is not None], torch.float32)


def _one(tensors: Sequence[Tensor], dtype: torch.dtype) -> Layers:
    """Weight `[out, in]` and bias `[out]` of each layer in turn as a stack of one."""
    weights = [weight.t().unsqueeze(0) for weight in tensors[::2]]
    return Layers(weights, [bias.view(1, 1, -1) for bias in tensors[1::2]], dtype=dtype)
