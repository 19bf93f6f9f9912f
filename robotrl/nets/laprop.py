"""LaProp with adaptive gradient clipping: the optimiser of world models whose losses differ widely in scale."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from robotrl.nets.flat import flatten_parameters
from robotrl.types import StateDict


class LaProp:
    """Scales the gradient by its running root mean square first, then averages (Ziyin et al. 2020, algorithm 2).

    Before that, the gradient of each tensor is clipped to a share of the tensor's own norm (Brock et al. 2021, eq. 3,
    for whole tensors as in the reference implementation of DreamerV3). A gradient that is not finite changes nothing
    and is counted.

    Args:
        parameters: they become views of one flat tensor, as with `flatten_parameters`.
        lr: learning rate after the warm-up.
        warmup: steps over which the learning rate rises linearly from 0.
        clip: largest gradient norm, as a share of the tensor's norm.
        beta1: of the average.
        beta2: of the mean square.
        eps: added to the root mean square.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        warmup: int = 1000,
        clip: float = 0.3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-20,
    ) -> None:
        members = list(parameters)
        self.flat = flatten_parameters(members)
        self.lr, self.warmup, self.clip, self.beta1, self.beta2, self.eps = lr, warmup, clip, beta1, beta2, eps
        self._weights = [p.data for p in members]
        assert self.flat.grad is not None
        pieces = self.flat.grad.split([p.numel() for p in members])
        self._grads = [g.view_as(p) for g, p in zip(pieces, members, strict=True)]
        self.steps = 0
        self._mean, self._square = torch.zeros_like(self.flat.data), torch.zeros_like(self.flat.data)
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=self.flat.device)

    @torch.no_grad()
    def step(self) -> Tensor:
        """Move the parameters along their gradient; returns its norm, before clipping."""
        grad = self.flat.grad
        assert grad is not None
        norm = torch.linalg.vector_norm(grad)
        finite = norm.isfinite()
        self.skipped_in_a_row.add_(1).mul_(~finite)
        sizes = torch.stack(torch._foreach_norm(self._weights)).clamp_(min=1e-3).mul_(self.clip)
        norms = torch.stack(torch._foreach_norm(self._grads))
        scales = torch.where(finite, (sizes / norms.clamp(min=1e-30)).clamp_(max=1.0), 0.0)
        torch._foreach_mul_(self._grads, list(scales.unbind()))
        grad.masked_fill_(~finite, 0.0)  # zero times infinity is not zero
        self.steps += 1
        self._square.mul_(self.beta2).addcmul_(grad, grad, value=1.0 - self.beta2)
        scale = self._square.div(1.0 - self.beta2**self.steps).sqrt_().add_(self.eps)
        self._mean.lerp_(grad.div(scale), 1.0 - self.beta1)
        lr = self.lr * min(1.0, self.steps / self.warmup) if self.warmup else self.lr
        self.flat.data.add_(self._mean * finite, alpha=-lr / (1.0 - self.beta1**self.steps))
        return norm

    def state_dict(self) -> StateDict:
        """Moments and counters; the weights belong to their modules."""
        return {
            "steps": self.steps,
            "mean": self._mean,
            "square": self._square,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.steps = int(state["steps"])
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self.skipped_in_a_row.copy_(state["skipped_in_a_row"])


__all__ = ["LaProp"]
