"""The published model sizes: one name sets every width."""

from __future__ import annotations

from dataclasses import dataclass

from robotrl.registry import nearest
from robotrl.types import RobotRLError


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Widths of a recurrent state-space model and its heads.

    Source: the reference implementation of DreamerV3, whose paper (Hafner et al. 2025) names sizes by parameters.
    `tiny` is ours, for tests and for tasks of a few numbers.
    """

    deter: int
    """Units of the deterministic state."""
    hidden: int
    """Units of the layers inside the recurrent model."""
    classes: int
    """Classes of each categorical latent."""
    units: int
    """Units of the layers of encoders, decoders and heads."""
    depth: int
    """Channels that the convolutions' widths are multiples of."""
    latents: int = 32
    """Categorical latents."""
    blocks: int = 8
    """Blocks of the recurrent matrix."""

    @property
    def stoch(self) -> int:
        """Numbers in a flattened stochastic state."""
        return self.latents * self.classes

    @property
    def features(self) -> int:
        """Numbers that the heads see: deterministic and stochastic state."""
        return self.deter + self.stoch


SIZES = {
    "tiny": ModelSize(64, 16, 4, 32, 2, latents=8, blocks=4),
    "size1m": ModelSize(512, 64, 4, 64, 4),
    "size12m": ModelSize(2048, 256, 16, 256, 16),
    "size25m": ModelSize(3072, 384, 24, 384, 24),
    "size50m": ModelSize(4096, 512, 32, 512, 32),
    "size100m": ModelSize(6144, 768, 48, 768, 48),
    "size200m": ModelSize(8192, 1024, 64, 1024, 64),
}


def model_size(name: str) -> ModelSize:
    """The size of this name.

    Raises:
        RobotRLError: there is none; the message names the nearest.
    """
    if name not in SIZES:
        raise RobotRLError(
            f"There is no world model size '{name}'.{nearest(name, list(SIZES))} Known: {', '.join(SIZES)}."
        )
    return SIZES[name]


__all__ = ["SIZES", "ModelSize", "model_size"]
