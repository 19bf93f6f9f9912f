"""The network of FlashSAC: normalised inputs, inverted residual blocks, weights of unit norm.

Every output of a linear layer is the product of a batch-normalised input with a unit vector, so that features keep
their scale whatever the learning rate does, and a step of the optimiser is an angle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 4
"""Width inside a block, in widths of the network."""
MOMENTUM = 0.01
"""Share of a batch in the running statistics."""


class UnitBatchNorm(nn.Module):
    """Batch normalisation whose gain and shift together keep the norm sqrt(dim)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor, *, of_batch: bool) -> Tensor:
        """Normalise `[B, dim]` by the batch's statistics, which the running ones follow, or by those."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.gain, self.shift, training=of_batch, momentum=MOMENTUM
        )

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale gain and shift back to their norm."""
        scale = math.sqrt(len(self.gain)) / torch.sqrt(self.gain.square().sum() + self.shift.square().sum() + 1e-8)
        self.gain.mul_(scale)
        self.shift.mul_(scale)


class FlashNet(nn.Module):
    """`[B, in_dim] -> [B, out_dim]`: embedding, blocks with a skip connection around them, RMS normalisation, head.

    Args:
        in_dim: input features.
        width: of the residual stream.
        blocks: how many.
        out_dim: outputs.
    """

    def __init__(self, in_dim: int, width: int, blocks: int, out_dim: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        shapes = [(width, in_dim), *[(inner, width), (width, inner)] * blocks, (out_dim, width)]
        self.weights = nn.ParameterList(nn.init.orthogonal_(torch.empty(shape)) for shape in shapes)
        self.norms = nn.ModuleList(UnitBatchNorm(dim) for dim in (in_dim, *(inner, width) * blocks))
        self.gain, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(out_dim))
        self.normalise()

    def forward(self, x: Tensor, *, of_batch: bool = False) -> Tensor:
        """Apply the net; `of_batch` normalises by the batch's statistics and moves the running ones."""
        weights, norms = list(self.weights), list(self.norms)
        h = F.linear(norms[0](x, of_batch=of_batch), weights[0])
        for i in range(1, len(norms), 2):
            inner = F.relu(norms[i](F.linear(h, weights[i]), of_batch=of_batch))
            h = h + F.relu(norms[i + 1](F.linear(inner, weights[i + 1]), of_batch=of_batch))
        return F.linear(F.rms_norm(h, self.gain.shape, self.gain, 1e-6), weights[-1], self.bias).float()

    @torch.no_grad()
    def normalise(self) -> None:
        """Back to unit norm: each output's weights, and gains and shifts. To be called after each optimiser step."""
        for weight in self.weights:
            weight.div_(torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp_(min=1e-8))
        for norm in self.norms:
            norm.normalise()  # type: ignore[operator]  # a UnitBatchNorm
        self.gain.mul_(math.sqrt(len(self.gain)) / torch.sqrt(self.gain.square().sum() + 1e-8))


class FlashEnsemble(nn.Module):
    """Independent `FlashNet`s on one input, as a list: `[E, B, out_dim]`."""

    def __init__(self, size: int, in_dim: int, width: int, blocks: int, out_dim: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(FlashNet(in_dim, width, blocks, out_dim) for _ in range(size))

    def forward(self, x: Tensor, *, of_batch: bool = False) -> Tensor:
        """All of them on `x [B, in_dim]`."""
        return torch.stack([member(x, of_batch=of_batch) for member in self.members])

    def normalise(self) -> None:
        """As `FlashNet.normalise`, for each."""
        for member in self.members:
            member.normalise()  # type: ignore[operator]  # a FlashNet
