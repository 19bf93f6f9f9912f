"""Numbers of any size for networks: symlog, and scalars as categorical distributions over bins.

Sources: Hafner et al. 2025, "Mastering diverse control tasks through world models" (DreamerV3), eq. 9 and 10, for
symlog and two-hot; Imani and White 2018, "Improving regression performance with distributional losses"
(arXiv:1806.04613), section 3.1, for the histogram of a Gaussian.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def symlog(x: Tensor) -> Tensor:
    """`sign(x) log(1 + |x|)`: nearly the identity around zero, logarithmic far from it."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def symexp_bins(count: int = 255, limit: float = 20.0) -> Tensor:
    """Bin centres `[count]` at `symexp(linspace(-limit, limit))`, exactly symmetric about an exact zero.

    Args:
        count: number of bins, odd.
        limit: largest centre, before `symexp`.

    Raises:
        ValueError: `count` is even or below 3.
    """
    if count < 3 or count % 2 == 0:
        raise ValueError(f"The number of bins is {count}; it must be odd and at least 3, so that one bin is zero.")
    negative = symexp(torch.linspace(-limit, 0.0, count // 2 + 1))[:-1]
    return torch.cat([negative, negative.new_zeros(1), -negative.flip(0)])


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Weights `[..., K]` on the two bins around each `x [...]`, whose mean is `x` again.

    The split is linear between the raw bin centres; what lies beyond the outermost bins is put on them.
    """
    x = x.clamp(bins[0], bins[-1])
    upper = torch.searchsorted(bins, x.contiguous()).clamp_(1, len(bins) - 1)
    lower = upper - 1
    low, high = bins[lower], bins[upper]
    weight = ((x - low) / (high - low)).unsqueeze(-1)
    out = x.new_zeros(*x.shape, len(bins))
    return out.scatter_(-1, lower.unsqueeze(-1), 1.0 - weight).scatter_(-1, upper.unsqueeze(-1), weight)


def two_hot_loss(logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy in nats between two-hot targets and `logits [..., K]`; no `[..., K]` target is made.

    Args:
        logits: `[..., K]`.
        target: `[...]`; or `[..., M]`, several to be fitted at once, whose cross-entropies are added.
        bins: `[K]`.

    Returns:
        `[...]`, differentiable by the logits.
    """
    target = target.detach()
    several = target if target.dim() == logits.dim() else target.unsqueeze(-1)
    loss: Tensor = _TwoHotLoss.apply(logits, several, bins)  # type: ignore[no-untyped-call]  # as all of autograd
    return loss


class _TwoHotLoss(torch.autograd.Function):
    """Autograd would take the softmax once for each target, and make a `[..., K]` of zeros for what is read of it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
        """Log-probabilities of each target's two bins by their weights, added up; less that."""
        target = target.clamp(bins[0], bins[-1])
        upper = torch.searchsorted(bins, target.contiguous()).clamp_(1, len(bins) - 1)
        low, high = bins[upper - 1], bins[upper]
        weight = (target - low) / (high - low)
        log_probs = torch.log_softmax(logits, -1)
        ctx.save_for_backward(log_probs, upper, weight)
        return -torch.lerp(log_probs.gather(-1, upper - 1), log_probs.gather(-1, upper), weight).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """That by the log-probabilities, two numbers a target, through the softmax."""
        log_probs, upper, weight = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        out = torch.zeros_like(log_probs)
        out.scatter_add_(-1, upper - 1, grad * (weight - 1.0)).scatter_add_(-1, upper, -grad * weight)
        return torch.ops.aten._log_softmax_backward_data(out, log_probs, -1, log_probs.dtype), None, None


def gaussian_histogram(x: Tensor, edges: Tensor, sigma: float) -> Tensor:
    """Weights `[..., K]` that a Gaussian around each `x [...]` puts on the bins between `edges [K + 1]`; they sum to 1.

    What the Gaussian has beyond the outermost edges is left out (HL-Gauss), and `x` is brought between them first.
    """
    x = x.clamp(edges[0], edges[-1]).unsqueeze(-1)
    below = torch.erf((edges - x) / (sigma * 2.0**0.5))
    return below.diff(dim=-1) / (below[..., -1:] - below[..., :1])


def mean_bin(logits: Tensor) -> Tensor:
    """The bin `[...]` of `logits [..., K]` in which their mean lies, for bins of equal width.

    It moves with every bit of probability, where the likeliest bin and the median may stay.
    """
    places = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return (torch.softmax(logits, -1) @ places).round().long()


def two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Mean `[...]` of the distribution `logits [..., K]` over `bins [K]`; exactly zero for equal logits.

    Each bin is paired with its mirror image before the sum: the outermost bins are some 5e8, and in any other order
    their rounding errors would drown the answer. For the same reason autocast has no say here.
    """
    probs = torch.softmax(logits, -1)
    half = len(bins) // 2
    with torch.autocast(logits.device.type, enabled=False):
        mean: Tensor = (probs[..., half + 1 :] - probs[..., :half].flip(-1)) @ bins[half + 1 :]
    return mean


__all__ = [
    "gaussian_histogram",
    "mean_bin",
    "symexp",
    "symexp_bins",
    "symlog",
    "two_hot",
    "two_hot_loss",
    "two_hot_mean",
]
