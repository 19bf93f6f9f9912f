"""One flat tensor under many parameters: the optimiser and gradient clipping then cost one kernel each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def flatten_parameters(parameters: Iterable[nn.Parameter]) -> nn.Parameter:
    """Move parameters into one vector, of which they and their gradients become views.

    Names, shapes and `state_dict` of the modules stay as they are. Call it after `.to(device)`; zero gradients with
    `zero_gradient`, never with `set_to_none`.

    Returns:
        The vector as a parameter with `.grad` allocated; give it alone to the optimiser.
    """
    members = list(parameters)
    flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in members]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for p in members:
        view = slice(start, start + p.numel())
        p.data = flat.data[view].view_as(p)
        p.grad = flat.grad[view].view_as(p)
        start = view.stop
    return flat


def zero_gradient(flat: nn.Parameter) -> None:
    """Zero the gradient in place, so that the views of the members stay."""
    assert flat.grad is not None
    flat.grad.zero_()


def clip_gradient(flat: nn.Parameter, max_norm: float) -> Tensor:
    """Scale `flat.grad` to a norm of at most `max_norm`, without a host sync; returns the norm before.

    A gradient that is not finite becomes zero, so it never reaches the weights; its norm tells.
    """
    assert flat.grad is not None
    norm = torch.linalg.vector_norm(flat.grad)
    scale = (max_norm / (norm + 1e-6)).clamp_(max=1.0)
    flat.grad.mul_(scale).masked_fill_(~norm.isfinite(), 0.0)
    return norm
