"""Units in which a policy learns, from the statistics of the data it was fitted to; part of the policy that ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robotrl.types import RobotRLError

LEAST_SPAN = 1e-3
"""Numbers that vary less than this, in their own units, are divided by it: they hardly vary at all."""
FEW = 0.02
"""Share of new data that may lie beyond twice the range of the old before the two count as differently scaled."""


class Scaling(nn.Module):
    """`(x - shift) / scale`, of single numbers side by side.

    `quantile`: the 1st and the 99th percentile become -1 and 1, so that rare jerks do not squeeze the rest; `std`: mean
    0 and deviation 1.

    Args:
        dim: how many numbers.
        mode: see above.
        clip: beyond which `forward` clips.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, dim: int, mode: str, clip: float) -> None:
        super().__init__()
        self.mode, self.clip = mode, clip
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, x: Tensor, least: float | Tensor = LEAST_SPAN) -> None:
        """Take the statistics of `x [rows, dim]`; `least` is the smallest scale."""
        if self.mode == "quantile":
            # sorting, since torch.quantile refuses large inputs
            ordered = x.float().sort(0).values
            low, high = (ordered[round(q * (len(x) - 1))] for q in (0.01, 0.99))
            shift, scale = (low + high) / 2, (high - low) / 2
        else:
            shift, scale = x.float().mean(0), x.float().std(0, correction=0)
        self.shift.copy_(shift)
        self.scale.copy_(torch.maximum(scale, torch.as_tensor(least)))

    def forward(self, x: Tensor) -> Tensor:
        """`x [..., dim]` in the policy's units."""
        return ((x - self.shift) / self.scale).clamp(-self.clip, self.clip)

    def inverse(self, x: Tensor) -> Tensor:
        """Back to the env's units."""
        return x * self.scale + self.shift

    def check(self, x: Tensor, what: str) -> None:
        """Make sure that `x [rows, dim]` is scaled like what it was fitted to.

        Raises:
            RobotRLError: it lies elsewhere, or in a range many times smaller; the first such number is named.
        """
        other = Scaling(len(self.shift), self.mode, self.clip)
        other.fit(x)
        beyond = ((x - self.shift) / self.scale).abs() > (3.0 if self.mode == "quantile" else 8.0)
        far, small = beyond.float().mean(0) > FEW, other.scale * 20.0 < self.scale
        for kind, wrong in (("beyond", far), ("within a twentieth of", small)):
            if bool(wrong.any()):
                i = int(wrong.nonzero()[0])
                raise RobotRLError(
                    f"The data set's {what} is scaled differently from the policy's: number {i} of it lies {kind} the "
                    f"range {self.shift[i] - self.scale[i]:.3g} to {self.shift[i] + self.scale[i]:.3g} that the policy "
                    "was fitted to. Convert the data to the policy's units, or train a new policy without init_from."
                )


__all__ = ["Scaling"]
