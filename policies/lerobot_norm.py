"""LeRobot's normalisation of one feature as a module, with the statistics as buffers, so that they ship with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from robotrl.types import RobotRLError

NEEDED = {
    "IDENTITY": (), "MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}  # fmt: skip
"""Statistics that a mode reads."""
SHARES = {"min": 0.0, "q01": 0.01, "q10": 0.1, "q90": 0.9, "q99": 0.99, "max": 1.0}
FEW = 0.02
"""Share of the data that may lie far outside of the policy's range."""


class Norm(nn.Module):
    """`MEAN_STD`: mean 0, deviation 1; `MIN_MAX`, `QUANTILES` and `QUANTILE10`: the range becomes [-1, 1].

    Args:
        shape: of the statistics.
        mode: LeRobot's name of it.
        names: statistics that are kept; of a mode whose statistics are missing, nothing is changed, as in LeRobot.
        eps: added to what is divided by.
    """

    def __init__(self, shape: tuple[int, ...], mode: str, names: Iterable[str], *, eps: float) -> None:
        super().__init__()
        self.names = tuple(names)
        self.mode = mode if set(NEEDED[mode]) <= set(self.names) else "IDENTITY"
        if self.mode != mode and self.names:
            lacks = sorted(set(NEEDED[mode]) - set(self.names))
            raise RobotRLError(
                f"The checkpoint normalises by {mode}, for which it lacks {', '.join(lacks)}. Compute "
                "the statistics of its data set again and save its processors with them."
            )
        self.eps = eps
        for name in self.names:
            self.register_buffer(
                name, torch.ones(shape) if name in ("std", "max", "q90", "q99") else torch.zeros(shape)
            )

    def values(self) -> dict[str, Tensor]:
        """The statistics, by name."""
        return {name: getattr(self, name).detach().cpu().clone() for name in self.names}

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Set the statistics."""
        for name in self.names:
            mine: Tensor = getattr(self, name)
            mine.copy_(values[name].reshape(mine.shape))

    def fit(self, x: Tensor) -> None:
        """Take them from `x [rows, dim]`."""
        ordered = x.sort(0).values
        for name in self.names:
            if name in SHARES:
                value = ordered[round(SHARES[name] * (len(x) - 1))]
            else:
                value = x.mean(0) if name == "mean" else x.std(0, correction=0)
            getattr(self, name).copy_(value.reshape(getattr(self, name).shape))

    def _line(self) -> tuple[Tensor, Tensor]:
        """What is taken off, and what is divided by."""
        low, high = (getattr(self, name) for name in NEEDED[self.mode])
        if self.mode == "MEAN_STD":
            return low, high + self.eps
        span = high - low
        if self.mode == "MIN_MAX" or self.mode.startswith("QUANTILE"):
            span = torch.where(span == 0, self.eps, span)
        return low, span

    def forward(self, x: Tensor) -> Tensor:
        """`x [..., *shape]` in the policy's units."""
        if self.mode == "IDENTITY":
            return x
        low, span = self._line()
        return (x - low) / span if self.mode == "MEAN_STD" else 2 * (x - low) / span - 1

    def inverse(self, x: Tensor) -> Tensor:
        """Back to the data's units."""
        if self.mode == "IDENTITY":
            return x
        low, span = self._line()
        return x * self.std + self.mean if self.mode == "MEAN_STD" else (x + 1) / 2 * span + low  # type: ignore[operator]

    def range(self) -> tuple[Tensor, Tensor]:
        """Between which numbers the data lay, each `[*shape]`: their extremes, or two deviations around the mean."""
        for low, high in (("q01", "q99"), ("min", "max"), ("q10", "q90")):
            if low in self.names and high in self.names:
                return getattr(self, low), getattr(self, high)
        if "mean" in self.names and "std" in self.names:
            return self.mean - self.std, self.mean + self.std  # type: ignore[operator]
        infinite = torch.tensor(torch.inf)
        return infinite, -infinite

    def differences(self, x: Tensor) -> list[str]:
        """In which respects data `x [rows, dim]` are unlike what the policy was trained on; mostly none."""
        if self.mode == "IDENTITY":
            return []
        low, high = (bound.flatten() for bound in self.range())
        if "mean" in self.names and "std" in self.names:
            mean, std = self.mean.flatten(), self.std.flatten()  # type: ignore[operator]
            low, high = torch.minimum(low, mean - 3 * std), torch.maximum(high, mean + 3 * std)
        slack = (high - low) + 1e-3
        beyond = ((x < low - slack) | (x > high + slack)).float().mean(0)
        return [
            f"number {k} goes from {float(x[:, k].min()):.4g} to {float(x[:, k].max()):.4g} in the data, from "
            f"{float(low[k]):.4g} to {float(high[k]):.4g} where the policy was trained"
            for k in (beyond > FEW).nonzero().flatten().tolist()[:3]
        ]


__all__ = ["NEEDED", "Norm"]
