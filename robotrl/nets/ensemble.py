"""Several MLPs of one shape as one module: their weights are stacked, so each layer is one batched matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robotrl.nets.stack import Layers, pull, relu_stack, run

_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": F.elu, "silu": F.silu}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Of matrix products. Weights, their gradients and sums stay float32; with bf16 the products' inputs are rounded."""


class Ensemble(nn.Module):
    """`[B, in_dim] -> [E, B, out_dim]`: `size` independent MLPs on the same input, or `[E, B, in_dim]` on one each.

    Each hidden layer is linear, dropout, layer normalisation, activation, the middle two if asked for: the order of
    DroQ (Hiraoka et al. 2022, fig. 2), and without dropout that of RLPD (Ball et al. 2023).

    Args:
        in_dim: input features.
        hidden: widths of the hidden layers.
        size: number of members E.
        out_dim: outputs of each.
        activation: `tanh`, `relu`, `elu` or `silu`.
        layer_norm: normalise each hidden layer before its activation.
        dropout: probability with which a hidden unit is dropped, in training mode.
        precision: of the matrix products, `fp32` or `bf16`.
    """

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        size: int,
        *,
        out_dim: int = 1,
        activation: str = "relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.size, self.dropout, self.layer_norm = size, dropout, layer_norm
        self.activation = activation
        self.dtype = PRECISIONS[precision]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.gains, self.shifts = nn.ParameterList(), nn.ParameterList()
        for i, (fan_in, fan_out) in enumerate(pairwise([in_dim, *hidden, out_dim])):
            weight = torch.empty(size, fan_out, fan_in)
            for member in weight:
                nn.init.orthogonal_(member, 1.0 if i == len(hidden) else math.sqrt(2.0))
            self.weights.append(nn.Parameter(weight.transpose(1, 2).contiguous()))
            self.biases.append(nn.Parameter(torch.zeros(size, 1, fan_out)))
            if layer_norm and i < len(hidden):
                self.gains.append(nn.Parameter(torch.ones(size, 1, fan_out)))
                self.shifts.append(nn.Parameter(torch.zeros(size, 1, fan_out)))
        kinds = self.weights, self.biases, self.gains, self.shifts
        self._kinds = [list(kind) for kind in kinds]  # a `ParameterList` takes ten times as long to give them

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Members on `x [B, in_dim]`: `[E, B, out_dim]`, float32.

        Args:
            x: the input of all of them; or `[E, B, in_dim]`, one each, unless the activation is relu.
            members: indices of those that are asked; None: all.
        """
        layers = self._layers(members)
        return relu_stack(x, layers) if self.activation == "relu" else self._plain(x, layers)

    def pullback(self, x: Tensor) -> tuple[Tensor, Callable[..., Tensor | None]]:
        """All members on `x`, without autograd, and the function that takes their gradient back.

        Returns:
            Outputs `[E, B, out_dim]`, and `pull(grad, *, to_weights=True, to_x=None)`: given the gradient of a loss by
            the outputs it overwrites the gradients of the weights, and returns that of the columns `to_x`, a slice, of
            `x [B, in_dim]`, each if asked for. To be called once. Weights must have gradients (`flatten_parameters`
            gives them).
        """
        if self.activation != "relu":
            return self._pullback_by_autograd(x)
        out, trace = run(x, self._layers())

        def back(grad: Tensor, *, to_weights: bool = True, to_x: slice | None = None) -> Tensor | None:
            into = trace.layers.of([_grad(p) for p in trace.layers.tensors()]) if to_weights else None
            return pull(trace, grad, into, to_x=to_x)

        return out, back

    def _pullback_by_autograd(self, x: Tensor) -> tuple[Tensor, Callable[..., Tensor | None]]:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            out = self._plain(leaf, self._layers())

        def back(grad: Tensor, *, to_weights: bool = True, to_x: slice | None = None) -> Tensor | None:
            weights = list(self.parameters()) if to_weights else []
            *found, x_grad = torch.autograd.grad(out, [*weights, leaf], grad)
            for parameter, value in zip(weights, found, strict=True):
                _grad(parameter).copy_(value)
            return None if to_x is None else x_grad[:, to_x]

        return out.detach(), back

    def _layers(self, members: Tensor | None = None) -> Layers:
        weights, biases, gains, shifts = (
            kind if members is None else [p.index_select(0, members) for p in kind] for kind in self._kinds
        )
        return Layers(weights, biases, gains, shifts, self.dropout if self.training else 0.0, self.dtype)

    def _plain(self, x: Tensor, layers: Layers) -> Tensor:
        last = len(layers.weights) - 1
        h = x.to(self.dtype).expand(len(layers.weights[0]), *x.shape[-2:])
        for i, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
            h = torch.baddbmm(bias.to(self.dtype), h, weight.to(self.dtype))
            if i == last:
                break
            h = F.dropout(h, layers.dropout)
            if layers.gains:
                h = F.layer_norm(h, h.shape[-1:])
                h = torch.addcmul(layers.shifts[i].to(self.dtype), h, layers.gains[i].to(self.dtype))
            h = _ACTIVATIONS[self.activation](h)
        return h.float()


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "flatten_parameters allocates gradients"
    return parameter.grad
