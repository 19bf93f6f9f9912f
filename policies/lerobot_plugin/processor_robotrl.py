"""LeRobot's processors around a RobotRL policy: batches and devices, no normalisation."""

from __future__ import annotations

from typing import Any

from lerobot.processor import make_default_pre_post_processors

from robotrl.policies.lerobot_plugin.configuration_robotrl import RobotRLConfig


def make_robotrl_pre_post_processors(
    config: RobotRLConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[Any, Any]:
    """What LeRobot's factory asks for by this name."""
    return make_default_pre_post_processors(config, dataset_stats)


__all__ = ["make_robotrl_pre_post_processors"]
