"""Several MLPs of one shape as one module: their weights are stacked, so each layer is one batched matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": F.elu, "silu": F.silu}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Of matrix products. Weights, their gradients and sums stay float32; with bf16 the products' inputs are rounded."""


class Ensemble(nn.Module):
    """`[B, in_dim] -> [E, B, out_dim]`: `size` independent MLPs on the same input.

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

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Members on `x [B, in_dim]`: `[E, B, out_dim]`, float32.

        Args:
            x: the input of all of them.
            members: indices of those that are asked; None: all.
        """
        return self._run(x, *(self._layers() if members is None else self._layers(members)))

    def frozen(self, x: Tensor) -> Tensor:
        """As `forward`, with gradients to `x` but none to the weights."""
        return self._run(x, *([p.detach() for p in layer] for layer in self._layers()))

    def _layers(self, members: Tensor | None = None) -> list[list[Tensor]]:
        kinds = (self.weights, self.biases, self.gains, self.shifts)
        return [[p if members is None else p.index_select(0, members) for p in kind] for kind in kinds]

    def _run(
        self, x: Tensor, weights: list[Tensor], biases: list[Tensor], gains: list[Tensor], shifts: list[Tensor]
    ) -> Tensor:
        h = x.to(self.dtype).expand(len(weights[0]), *x.shape)
        last = len(weights) - 1
        for i in range(last + 1):
            h = torch.baddbmm(biases[i].to(self.dtype), h, weights[i].to(self.dtype))
            if i == last:
                break
            if self.dropout:
                h = F.dropout(h, self.dropout, self.training)
            if self.layer_norm:
                h = F.layer_norm(h, h.shape[-1:])
                h = torch.addcmul(shifts[i].to(self.dtype), h, gains[i].to(self.dtype))
            h = _ACTIVATIONS[self.activation](h)
        return h.float()
