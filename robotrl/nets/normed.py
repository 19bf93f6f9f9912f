"""Layers whose activations keep their scale: linear -> RMSNorm -> SiLU, and a block-diagonal linear layer.

Source: Hafner et al. 2025 (DreamerV3), "Networks"; RMSNorm is Zhang and Sennrich 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPS = 1e-4
_TRUNCATED = 1.1368
"""1 / the deviation of a standard normal that is cut at two deviations."""


def init_linear(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """Fill with a truncated normal of deviation `scale / sqrt(fan_in)`; `scale` 0 gives exact zeros."""
    if scale == 0.0:
        nn.init.zeros_(weight)
        return
    std = scale * _TRUNCATED / math.sqrt(fan_in)
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


class Linear(nn.Linear):
    """A linear layer with `init_linear` and a zero bias.

    Args:
        in_dim: inputs.
        out_dim: outputs.
        scale: of the initial weights; 0 for a layer that starts as zero.
    """

    def __init__(self, in_dim: int, out_dim: int, *, scale: float = 1.0) -> None:
        self._scale = scale
        super().__init__(in_dim, out_dim)

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init_linear(self.weight, self.in_features, self._scale)
        nn.init.zeros_(self.bias)


class NormedLinear(nn.Module):
    """`SiLU(RMSNorm(x W + b))`, `[..., in_dim] -> [..., out_dim]`."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = Linear(in_dim, out_dim)
        self.norm = nn.Parameter(torch.ones(out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer over the last axis."""
        return normed_silu(self.linear(x), self.norm)


class NormedMLP(nn.Module):
    """Hidden layers of `NormedLinear`, then one plain linear layer (none for `out_dim` 0).

    Args:
        in_dim: inputs.
        hidden: widths of the hidden layers.
        out_dim: outputs; 0: the last hidden layer is the output.
        out_scale: of the last layer's initial weights.
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], out_dim: int = 0, *, out_scale: float = 1.0) -> None:
        super().__init__()
        widths = [in_dim, *hidden]
        self.hidden = nn.ModuleList(NormedLinear(a, b) for a, b in pairwise(widths))
        self.out = Linear(widths[-1], out_dim, scale=out_scale) if out_dim else None
        self.out_dim = out_dim or widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the net over the last axis."""
        for layer in self.hidden:
            x = layer(x)
        return x if self.out is None else self.out(x)


class BlockLinear(nn.Module):
    """A linear layer whose matrix is block-diagonal, with inputs that every block sees besides its own.

    Args:
        in_dim: inputs of one block, the shared ones included, if there are any; else of all blocks together.
        out_dim: outputs of all blocks together.
        blocks: number of blocks.
        shared: inputs that go to every block.
    """

    def __init__(self, in_dim: int, out_dim: int, blocks: int, *, shared: int = 0) -> None:
        super().__init__()
        own = in_dim - shared if shared else in_dim // blocks
        width = out_dim // blocks
        self.weight = nn.Parameter(torch.empty(blocks, own, width))
        self.bias = nn.Parameter(torch.zeros(blocks, 1, width))
        init_linear(self.weight.data, own + shared)
        self.shared = nn.Parameter(torch.empty(shared, out_dim)) if shared else None
        if self.shared is not None:
            init_linear(self.shared.data, own + shared)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """`[blocks, B, in / blocks]`, and `[B, shared]` if there are shared inputs, to `[blocks, B, out / blocks]`."""
        start = self.bias
        if self.shared is not None:
            assert shared is not None
            of_all = torch.mm(shared, self.shared).unflatten(-1, (x.shape[0], -1)).transpose(0, 1)
            start = of_all + start
        return torch.baddbmm(start, x, self.weight)


def normed_silu(x: Tensor, scale: Tensor) -> Tensor:
    """RMSNorm over the last axis, in float32 at least, then SiLU."""
    if x.is_cuda or x.dtype == torch.float64:
        return nn.functional.silu(nn.functional.rms_norm(x, scale.shape, scale, EPS))
    x = x.float()
    if torch.is_grad_enabled():
        result: Tensor = _NormedSilu.apply(x, scale)
    else:
        result = _normed_silu(x, scale)[0]
    return result


class _NormedSilu(torch.autograd.Function):
    """One node instead of nine: on a CPU, PyTorch's RMSNorm is put together from small operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        """See `normed_silu`."""
        out, *kept = _normed_silu(x, scale)
        ctx.save_for_backward(*kept, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """By `x` and by `scale`."""
        by_x, by_scale = _normed_silu_back(grad, *ctx.saved_tensors)
        return by_x, by_scale


@torch.jit.script
def _normed_silu(x: Tensor, scale: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result; for its gradient: `x` of root mean square 1, the same times `scale`, and what `x` was scaled by."""
    norm = torch.linalg.vector_norm(x, 2.0, [-1], True)
    inverse = torch.rsqrt((norm * norm).div_(x.shape[-1]).add_(eps))
    unit = x * inverse
    scaled = unit * scale
    return torch.nn.functional.silu(scaled), unit, scaled, inverse


@torch.jit.script
def _normed_silu_back(
    grad: Tensor, unit: Tensor, scaled: Tensor, inverse: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    g = torch.ops.aten.silu_backward(grad, scaled)
    by_scale = (g * unit).reshape(-1, scale.numel()).sum(0)
    g.mul_(scale)
    along = (g * unit).mean([-1], keepdim=True)
    return g.sub_(unit * along).mul_(inverse), by_scale


__all__ = ["BlockLinear", "Linear", "NormedLinear", "NormedMLP", "init_linear", "normed_silu"]
