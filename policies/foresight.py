"""What a policy foretells of its own proprioception while it learns, to see sooner what it is to look for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robotrl.nets.transformer import Seen, Transformer
from robotrl.policies.chunks import Error


class Foresight(nn.Module):
    """Two predictions of the proprioception at some steps from now; acting does without.

    `ahead` is made by the trunk. `named` is made from the body and what the sentence names alone: by this short way a
    word is told where it should have looked before the trunk makes any use of what it finds.

    Args:
        dim: numbers of a token.
        width: of the proprioception.
        steps: how many steps are foretold.
        named: tokens of the body and of what is named; 0: there is no sentence, and only `ahead` is foretold.
    """

    def __init__(self, dim: int, width: int, steps: int, named: int) -> None:
        super().__init__()
        self.losses = ("ahead", "named") if named else ("ahead",)
        self.wait = nn.Parameter(torch.randn(steps, dim) * 0.2)
        self.by_trunk = nn.Linear(dim, width)
        if named:
            self.by_name = nn.Sequential(nn.Linear(named * dim, dim), nn.GELU(), nn.Linear(dim, steps * width))

    def forward(self, trunk: Transformer, seen: Seen, named: Sequence[Tensor], target: Tensor) -> dict[str, Error]:
        """Squared errors `[K, B]` by the names in `losses`.

        Args:
            trunk: computes what is foretold from the prefix.
            seen: the prefix of `B` observations.
            named: tokens of the body and of what is named, `[B, n, dim]` each.
            target: the proprioception to come, `[K, B, width]`.
        """
        steps, rows, width = target.shape
        found = {"ahead": self.by_trunk(trunk(self.wait.expand(rows, -1, -1), [seen])[0]).transpose(0, 1)}
        if "named" in self.losses:
            guessed = self.by_name(torch.cat([*named], 1).flatten(1))
            found["named"] = guessed.view(rows, steps, width).transpose(0, 1)
        errors = {name: (value.float() - target).square().mean(-1) for name, value in found.items()}
        return {name: Error(error, torch.ones_like(error, dtype=torch.bool)) for name, error in errors.items()}


__all__ = ["Foresight"]
