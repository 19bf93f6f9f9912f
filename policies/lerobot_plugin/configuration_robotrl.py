"""LeRobot's view of a RobotRL policy's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("robotrl")
@dataclass
class RobotRLConfig(PreTrainedConfig):
    """What the policy is, as RobotRL's `policy.json` says it; nothing of it is for users to set."""

    description: str = ""
    """JSON: the policy's configuration and the env it was made for."""
    chunk_size: int = 1
    n_action_steps: int = 1
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.IDENTITY)
    )
    """RobotRL's policies carry their own normalisation."""
    optimizer_lr: float = 3e-4
    optimizer_weight_decay: float = 0.0

    @property
    def observation_delta_indices(self) -> None:
        """The present step alone."""
        return

    @property
    def action_delta_indices(self) -> list[int]:
        """The steps of a chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not read."""
        return

    def get_optimizer_preset(self) -> Any:
        """AdamW."""
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> None:
        """None."""
        return

    def validate_features(self) -> None:
        """Features follow from the description."""


__all__ = ["RobotRLConfig"]
