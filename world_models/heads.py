"""What is predicted from the model's features: rewards and values as distributions over bins, and going on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robotrl.functional.twohot import symexp_bins, two_hot_loss, two_hot_mean
from robotrl.nets.normed import CHUNK, NormedMLP


class TwoHotHead(nn.Module):
    """A number of any size, as a distribution over 255 symexp-spaced bins; predicts exactly zero at first.

    Source: Hafner et al. 2025 (DreamerV3), eq. 10. At first every prediction is zero, so that early returns do not
    blow up their scale.

    Args:
        in_dim: features.
        hidden: widths of the hidden layers.
    """

    bins: Tensor

    def __init__(self, in_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        bins = symexp_bins()
        self.net = NormedMLP(in_dim, hidden, len(bins), out_scale=0.0)
        self.register_buffer("bins", bins, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits `[..., 255]` of features `[..., F]`."""
        logits: Tensor = self.net(features).float()
        return logits

    def mean(self, features: Tensor) -> Tensor:
        """The predicted number `[...]`; only some rows' logits are there at a time."""
        parts = features.flatten(0, -2).split(CHUNK)
        return torch.cat([self.mean_of(self(rows)) for rows in parts]).view(features.shape[:-1])

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy `[...]` with the two-hot `target [...]`."""
        return self.loss_of(self(features), target)

    def mean_of(self, logits: Tensor) -> Tensor:
        """The number `[...]` that `logits [..., 255]` predict."""
        return two_hot_mean(logits, self.bins)

    def loss_of(self, logits: Tensor, *targets: Tensor) -> Tensor:
        """Cross-entropies `[...]` of `logits [..., 255]` with two-hot `targets [...]`, added up."""
        return two_hot_loss(logits, torch.stack(targets, -1), self.bins)


class ContinueHead(nn.Module):
    """The discount of the next step: the probability that the episode goes on, times gamma.

    Args:
        in_dim: features.
        hidden: widths of the hidden layers.
        gamma: discount that the targets hold, so that imagination needs no other.
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], gamma: float) -> None:
        super().__init__()
        self.net = NormedMLP(in_dim, hidden, 1)
        self.gamma = gamma

    def forward(self, features: Tensor) -> Tensor:
        """Logits `[...]` of features `[..., F]`."""
        logits: Tensor = self.net(features).squeeze(-1).float()
        return logits

    def discount(self, features: Tensor) -> Tensor:
        """The probability of going on times gamma, `[...]`."""
        return torch.sigmoid(self(features))

    def loss(self, features: Tensor, terminal: Tensor) -> Tensor:
        """Cross-entropy `[...]`; `terminal [...]` (bool) marks observations after which nothing comes."""
        target = (~terminal).float() * self.gamma
        return nn.functional.binary_cross_entropy_with_logits(self(features), target, reduction="none")


__all__ = ["ContinueHead", "TwoHotHead"]
