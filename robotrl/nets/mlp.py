"""Multilayer perceptron, written for the sizes robot learning uses (64 to 512 wide, batches of 64 to 4096).

On CPUs small nets spend most of their time outside the matrix products, so the tanh net is one autograd node that
works feature-major (`W @ x.T`: with MKL much cheaper than `x @ W.T` for narrow outputs) and takes tanh as
`2 sigmoid(2x) - 1`, which torch vectorises better than its tanh and which agrees with it to float32 rounding.
Both its directions are scripted: that saves the interpreter's time between operations, and lets another thread have the
interpreter meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from robotrl.nets.stack import Layers, pull, relu_stack, run

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


@torch.jit.script
def tanh_run(x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The input and each layer's output, feature-major: `[in, B]`, hidden layers, `[out, B]`."""
    layers = [x.t()]
    last = len(parameters) - 2
    for i in range(0, last, 2):
        # the 2x of tanh(x) = 2 sigmoid(2x) - 1 comes free with the product
        h = torch.addmm(parameters[i + 1].unsqueeze(1), parameters[i], layers[-1], beta=2.0, alpha=2.0)
        layers.append(h.sigmoid_().mul_(2.0).sub_(1.0))
    layers.append(torch.addmm(parameters[last + 1].unsqueeze(1), parameters[last], layers[-1]))
    return layers


@torch.jit.script
def tanh_pull(
    grad: Tensor,
    layers: list[Tensor],
    parameters: list[Tensor],
    into: list[Tensor],
    to_x: bool,  # noqa: FBT001  # scripts know no keyword-only booleans
) -> Tensor:
    """Gradients of weights and biases into `into`, unless that is empty; returns that of `x`, if asked for."""
    g = grad.t()
    for k in range(len(layers) - 1):
        i = len(layers) - 2 - k
        if len(into) > 0:
            torch.mm(g, layers[i].t(), out=into[2 * i])
            torch.sum(g, [1], out=into[2 * i + 1])
        if i > 0:
            g = torch.mm(parameters[2 * i].t(), g)
            g = torch.ops.aten.tanh_backward(g, layers[i], grad_input=g)
        elif to_x:
            g = torch.mm(parameters[0].t(), g)
    return g.t()


class _TanhStack(torch.autograd.Function):
    """Linear layers with tanh between them: `x [B, in]`, then weight `[out, in]` and bias `[out]` of each layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """Keep each hidden layer's output, feature-major."""
        layers = tanh_run(x, list(parameters))
        ctx.save_for_backward(x, *parameters, *layers[1:-1])
        return layers[-1].t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input (if asked for) and of each weight and bias."""
        count = (len(ctx.saved_tensors) - 1) // 3 * 2 + 2
        x, parameters = ctx.saved_tensors[0], ctx.saved_tensors[1 : 1 + count]
        if torch.is_grad_enabled():  # asked for with create_graph: go through ops that autograd can differentiate again
            asked = [t for t, needed in zip((x, *parameters), ctx.needs_input_grad, strict=True) if needed]
            again = iter(torch.autograd.grad(_plain(x, parameters), asked, grad, create_graph=True))
            return tuple(next(again) if needed else None for needed in ctx.needs_input_grad)
        into = [torch.empty_like(p) for p in parameters]
        to_x = ctx.needs_input_grad[0]
        by_x = tanh_pull(grad, [x.t(), *ctx.saved_tensors[1 + count :], grad.t()], list(parameters), into, to_x)
        return (by_x if to_x else None, *into)


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
            parameters = self._in_order()
            out = _TanhStack.apply(flat, *parameters) if torch.is_grad_enabled() else tanh_run(flat, parameters)[-1].t()
            return out if x.dim() == 2 else out.reshape(*x.shape[:-1], self.out_dim)
        if isinstance(self.activation, nn.ReLU):
            flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
            out = relu_stack(flat, self._stacked(dtype)).squeeze(0)
            return out if x.dim() == 2 else out.reshape(*x.shape[:-1], self.out_dim)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of `[..., in_dim]`: `[..., hidden[-1]]`, or `x` itself without hidden layers."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return x

    def pullback(
        self, x: Tensor, dtype: torch.dtype = torch.float32, more: Tensor | None = None
    ) -> tuple[Tensor, Callable[[Tensor], None]]:
        """The net on `x [B, in_dim]` without autograd, and the function that takes its gradient back.

        Args:
            x: inputs.
            dtype: of the matrix products, where the activation is relu.
            more: inputs that are not in the loss; their outputs come after those of `x`, from the same products.

        Returns:
            Outputs `[B, out_dim]`, and `pull(grad)`: given the gradient of a loss by those of `x` it overwrites the
            parameters' gradients, which `flatten_parameters` has allocated. To be called once.
        """
        rows, every = len(x), x if more is None else torch.cat([x, more])
        parameters = self._in_order()
        gradients = [torch.empty_like(p) if p.grad is None else p.grad for p in parameters]  # None: it does not learn
        if isinstance(self.activation, nn.Tanh):
            with torch.no_grad():
                layers = tanh_run(every, parameters)
            kept = layers if more is None else [layer[:, :rows] for layer in layers]

            def back(grad: Tensor) -> None:
                with torch.no_grad():
                    tanh_pull(grad, kept, parameters, gradients, False)

            return layers[-1].t(), back
        if isinstance(self.activation, nn.ReLU):
            out, trace = run(every, self._stacked(dtype))

            def back_relu(grad: Tensor) -> None:
                kept = trace if more is None else trace.first(rows)
                pull(kept, grad.unsqueeze(0), _one(gradients, torch.float32))

            return out.squeeze(0), back_relu
        with torch.enable_grad():
            result = self(x)

        def by_autograd(grad: Tensor) -> None:
            for gradient in gradients:
                gradient.zero_()
            result.backward(grad)

        if more is None:
            return result.detach(), by_autograd
        with torch.no_grad():
            return torch.cat([result, self(more)]), by_autograd

    def _in_order(self) -> list[Tensor]:
        """Weight and bias of each layer in turn; `parameters()` takes five times as long."""
        return [p for layer in self.layers for p in (layer.weight, layer.bias)]  # type: ignore[misc]  # never modules

    def _stacked(self, dtype: torch.dtype) -> Layers:
        """The layers as a stack of one network, views of the parameters."""
        return _one(self._in_order(), dtype)


def _one(tensors: Sequence[Tensor], dtype: torch.dtype) -> Layers:
    """Weight `[out, in]` and bias `[out]` of each layer in turn as a stack of one."""
    weights = [weight.t().unsqueeze(0) for weight in tensors[::2]]
    return Layers(weights, [bias.view(1, 1, -1) for bias in tensors[1::2]], dtype=dtype)
