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
from torch.nn.functional import linear

EPS = 1e-4
CHUNK = 2048
"""Rows that pass through a net together on a CPU, so that what lies between its layers stays in the cache."""
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
        return _layers(x, self.parameters_in_order(), 1)

    def parameters_in_order(self) -> list[Tensor]:
        """Weight, bias and the norm's scale."""
        return [self.linear.weight, self.linear.bias, self.norm]


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
        parameters: list[Tensor] = []
        for layer in self.hidden:
            assert isinstance(layer, NormedLinear)
            parameters += layer.parameters_in_order()
        if self.out is not None:
            parameters += [self.out.weight, self.out.bias]
        return _layers(x, parameters, len(self.hidden))


class BlockLinear(nn.Module):
    """Weights and biases of a linear layer whose matrix is block-diagonal, but for inputs that every block sees.

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


def _layers(x: Tensor, parameters: list[Tensor], layers: int) -> Tensor:
    """`layers` layers of three parameters each, and perhaps a plain one of two, over the last axis of `x`."""
    if x.is_cuda:
        for i in range(0, 3 * layers, 3):
            x = normed_silu(linear(x, parameters[i], parameters[i + 1]), parameters[i + 2])
        return linear(x, *parameters[3 * layers :]) if len(parameters) > 3 * layers else x
    flat = x.reshape(-1, x.shape[-1])
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else parameters[0].dtype
    if torch.is_grad_enabled():
        out: Tensor = _Layers.apply(flat, layers, dtype, *parameters)
    else:
        out = _run(flat, parameters, layers, CHUNK, dtype, keep=False)[0]
    return out.view(*x.shape[:-1], out.shape[-1])


def normed_silu(x: Tensor, scale: Tensor) -> Tensor:
    """RMSNorm over the last axis, in float32 at least, then SiLU."""
    x = x if x.dtype == torch.float64 else x.float()
    return nn.functional.silu(nn.functional.rms_norm(x, scale.shape, scale, EPS))


class _Layers(torch.autograd.Function):
    """A whole net as one node. PyTorch has no RMSNorm of its own on a CPU, and its nodes take as long as small nets."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: int, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        """See `_layers`; `dtype` is of the matrix products."""
        out, *kept = _run(x, list(parameters), layers, CHUNK, dtype, keep=True)
        ctx.save_for_backward(x, *parameters, *kept)
        ctx.layers, ctx.dtype = layers, dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """By `x`, if asked for, and by each parameter."""
        count = len(ctx.needs_input_grad) - 3
        x, saved = ctx.saved_tensors[0], list(ctx.saved_tensors[1:])
        to_x = ctx.needs_input_grad[0]
        by_x, into = _pull(grad, x, saved[:count], saved[count:], ctx.layers, CHUNK, ctx.dtype, to_x)
        return (by_x if to_x else None, None, None, *into)


def eps_like(weight: Tensor, eps: float = EPS) -> Tensor:
    """`EPS [1]` for `normed_silu_run` with weights like this one: a number would become a tensor at each use."""
    return torch.full([1], eps, dtype=weight.dtype, device=weight.device)


@torch.jit.script
def normed_silu_run(x: Tensor, scale: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`normed_silu`; for its gradient: `x` with a root mean square of 1, and what it was scaled by for that."""
    norm = torch.linalg.vector_norm(x, 2.0, [-1], True)
    inverse = torch.addcmul(eps, norm, norm, value=1.0 / x.shape[-1]).rsqrt_()
    unit = x * inverse
    return torch.ops.aten.silu_(unit * scale), unit, inverse


@torch.jit.script
def normed_silu_pull(grad: Tensor, unit: Tensor, inverse: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """By `x`, and, for each row, by `scale`."""
    g = torch.ops.aten.silu_backward(grad, unit * scale)
    by_scale = g * unit
    along = torch.mv(by_scale, scale).unsqueeze(-1)
    return g.mul_(scale).addcmul_(unit, along, value=-1.0 / scale.numel()).mul_(inverse), by_scale


@torch.jit.script
def _run(
    x: Tensor,
    parameters: list[Tensor],
    layers: int,
    chunk: int,
    dtype: torch.dtype,
    keep: bool,  # noqa: FBT001  # scripts know no keyword-only booleans
) -> list[Tensor]:
    """The outputs; if asked to keep them, then of each chunk of rows and layer: unit, inverse and result."""
    plain, full = len(parameters) > 3 * layers, parameters[0].dtype
    width = parameters[-2 if plain else -3].shape[0]
    out = torch.empty([x.shape[0], width], dtype=dtype if plain else full, device=x.device)
    kept = [out]
    weights = [p.to(dtype) for p in parameters]
    eps = eps_like(parameters[0])
    for start in range(0, x.shape[0], chunk):
        count = min(chunk, x.shape[0] - start)
        h = x.narrow(0, start, count).to(dtype)
        for i in range(0, 3 * layers, 3):
            h, unit, inverse = normed_silu_run(linear(h, weights[i], weights[i + 1]).to(full), parameters[i + 2], eps)
            h = h.to(dtype)
            if keep:
                kept += [unit, inverse, h]
        if plain:
            torch.addmm(weights[-1], h, weights[-2].t(), out=out.narrow(0, start, count))
        else:
            out.narrow(0, start, count).copy_(h)
    return kept


@torch.jit.script
def _pull(
    grad: Tensor,
    x: Tensor,
    parameters: list[Tensor],
    kept: list[Tensor],
    layers: int,
    chunk: int,
    dtype: torch.dtype,
    to_x: bool,  # noqa: FBT001  # scripts know no keyword-only booleans
) -> tuple[Tensor, list[Tensor]]:
    """By `x` (nothing sensible, unless asked for) and by each parameter."""
    into = [torch.zeros_like(p) for p in parameters]
    by_x = torch.empty_like(x) if to_x else grad
    weights, full = [p.to(dtype) for p in parameters], parameters[0].dtype
    for start in range(0, x.shape[0], chunk):
        count = min(chunk, x.shape[0] - start)
        results = [x.narrow(0, start, count).to(dtype)]  # what each layer took in
        first = start // chunk * 3 * layers
        results += [kept[first + 3 * i + 2] for i in range(layers)]
        g = grad.narrow(0, start, count)
        if len(parameters) > 3 * layers:
            product = g.to(dtype)
            into[-2] += torch.mm(product.t(), results[-1])
            into[-1] += g.sum(0)
            g = torch.mm(product, weights[-2]).to(full)
        for k in range(layers):
            i = layers - 1 - k
            g, by_scale = normed_silu_pull(g, kept[first + 3 * i], kept[first + 3 * i + 1], parameters[3 * i + 2])
            product = g.to(dtype)
            into[3 * i] += torch.mm(product.t(), results[i])
            into[3 * i + 1] += g.sum(0)
            into[3 * i + 2] += by_scale.sum(0)
            if i > 0 or to_x:
                g = torch.mm(product, weights[3 * i]).to(full)
        if to_x:
            by_x.narrow(0, start, count).copy_(g)
    return by_x, into


__all__ = [
    "BlockLinear", "Linear", "NormedLinear", "NormedMLP", "init_linear", "normed_silu", "normed_silu_pull",
    "normed_silu_run",
]  # fmt: skip
