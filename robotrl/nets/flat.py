"""One flat tensor under many parameters: the optimiser and gradient clipping then cost one kernel each."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robotrl.types import StateDict


def flatten_parameters(parameters: Iterable[nn.Parameter]) -> nn.Parameter:
    """Move parameters into one vector, of which they and their gradients become views.

    Names, shapes and `state_dict` of the modules stay as they are. Call it after `.to(device)`; zero gradients with
    `zero_gradient`, never with `set_to_none`.

    Returns:
        The vector as a parameter with `.grad` allocated, for `Adam`.
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
    norm: Tensor = clip(flat.grad, max_norm)
    return norm


@torch.jit.script
def clip(gradient: Tensor, max_norm: float) -> Tensor:
    """`clip_gradient` of the gradient itself, for other scripted functions."""
    norm = torch.linalg.vector_norm(gradient)
    scale = (max_norm / (norm + 1e-6)).clamp_(max=1.0)
    gradient.mul_(scale).masked_fill_(~norm.isfinite(), 0.0)
    return norm


def gradient_norm(flat: nn.Parameter) -> Tensor:
    """The norm of `flat.grad`, which becomes zero if it is not finite, so that it never reaches the weights."""
    assert flat.grad is not None
    norm = torch.linalg.vector_norm(flat.grad)
    if flat.is_cuda:  # without a host sync
        flat.grad.masked_fill_(~norm.isfinite(), 0.0)
    elif not math.isfinite(norm.item()):
        flat.grad.zero_()
    return norm


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) on one flat parameter.

    One kernel a step, that of `torch.optim.Adam(fused=True)`, without the class around it: its bookkeeping takes
    about as long as the gradient of a 64-wide net, and importing what it needs delays the start of every run.
    """

    def __init__(
        self, flat: nn.Parameter, lr: float, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self.flat, self.lr, self.beta1, self.beta2, self.eps = flat, lr, beta1, beta2, eps
        self.steps = 0
        self.mean, self.square = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
        self._count = torch.zeros((), dtype=torch.float32, device=flat.device)

    def step(self) -> None:
        """Move the parameter along `flat.grad`."""
        grad = self.flat.grad
        assert grad is not None
        self.steps += 1
        torch._fused_adam_(
            [self.flat.data], [grad], [self.mean], [self.square], [], [self._count.fill_(self.steps)],
            lr=self.lr, beta1=self.beta1, beta2=self.beta2, weight_decay=0.0, eps=self.eps, amsgrad=False,
            maximize=False,
        )  # fmt: skip

    def state_dict(self) -> StateDict:
        """Moments, the number of steps and the learning rate."""
        return {"steps": self.steps, "mean": self.mean, "square": self.square, "lr": self.lr}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.steps, self.lr = int(state["steps"]), float(state["lr"])
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
