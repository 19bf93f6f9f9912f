"""Natural-gradient steps (Kakade 2001; Schulman et al. 2015, appendix C): conjugate gradients and a line search.

Everything works on rows: a vector of parameters is `[..., P]`, what belongs to it `[...]`. So the steps of many small
policies, one for each step of a horizon, are taken at once, each with scalars of its own, and a single policy is `[P]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, *, steps: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """Solves `A x = b` for symmetric positive definite `A`, each row by itself (Hestenes and Stiefel 1952).

    Args:
        product: `v -> A v`, rows `[..., P]` to rows.
        b: `[..., P]`.
        steps: at most so many.
        tolerance: a row whose squared residual is below this is left as it is.

    Returns:
        x, `[..., P]`.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    square = _dot(residual, residual)
    for _ in range(steps):
        going = square >= tolerance
        if not bool(going.any()):
            break
        along = product(direction)
        size = torch.where(going, square / _dot(direction, along), 0.0).unsqueeze(-1)
        x += size * direction
        residual -= size * along
        new = _dot(residual, residual)
        direction = torch.where(going, new / square, 0.0).unsqueeze(-1) * direction + residual
        square = torch.where(going, new, square)
    return x


def trust_region_step(
    product: Callable[[Tensor], Tensor], direction: Tensor, gradient: Tensor, max_kl: float
) -> tuple[Tensor, Tensor]:
    """The direction scaled to a KL divergence of `max_kl`, to second order, and the decrease it promises, to first.

    Args:
        product: of the Fisher matrix, damping included.
        direction: `[..., P]`.
        gradient: of the loss, `[..., P]`.
        max_kl: bound on the divergence.

    Returns:
        The step `[..., P]`, zero where the direction has no length, and the expected decrease of the loss `[...]`.
    """
    curvature = 0.5 * _dot(direction, product(direction))
    scale = torch.where(curvature > 0, (max_kl / curvature).sqrt(), 0.0)
    step = scale.unsqueeze(-1) * direction
    return step, -_dot(gradient, step)


def line_search(
    loss: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    start: Tensor,
    step: Tensor,
    expected: Tensor,
    *,
    before: Tensor,
    backtracks: int = 10,
    accept_ratio: float = 0.1,
    max_kl: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Halves the step until the loss falls by `accept_ratio` of what was expected, each row by itself.

    A row for which no step does, or whose numbers are not finite, stays where it is.

    Args:
        loss: parameters `[..., P]` to losses `[...]` and, where `max_kl` is given, divergences from `start` `[...]`.
        start: `[..., P]`.
        step: the full step, `[..., P]`.
        expected: decrease of the loss that the full step promises, `[...]`.
        before: the loss at `start`, `[...]`.
        backtracks: steps that are tried: 1, 1/2, 1/4, ... of the full one.
        accept_ratio: least share of the expected decrease.
        max_kl: also ask that the divergence be at most this; None: do not.

    Returns:
        The parameters `[..., P]`, and the share of the full step that each row took, 0 for none, `[...]`.
    """
    chosen, share = start.clone(), torch.zeros_like(before)
    for k in range(backtracks):
        fraction = 0.5**k
        candidate = start + fraction * step
        value, kl = loss(candidate)
        decrease = before - value
        good = (share == 0) & (expected > 0) & (decrease > 0) & (decrease > accept_ratio * fraction * expected)
        if max_kl is not None and kl is not None:
            good &= kl <= max_kl
        chosen = torch.where(good.unsqueeze(-1), candidate, chosen)
        share = torch.where(good, fraction, share)
        if bool((share > 0).all()):
            break
    return chosen, share


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


__all__ = ["conjugate_gradients", "line_search", "trust_region_step"]
