"""The configuration of policies that LeRobot defines: `policy=lerobot`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from robotrl.registry import nearest
from robotrl.types import RobotRLError

TYPES = ("act", "diffusion", "smolvla", "pi0", "pi05")
"""Those that are carried out. Others of LeRobot's load code that their settings name, or act in ways of their own."""


@dataclass(slots=True)
class LeRobotConfig:
    """Where the policy comes from: a checkpoint, or a type to make anew."""

    path: str | None = None
    """The local folder of a LeRobot checkpoint; no code of it is run. None: a new policy of `type`."""
    type: str = "act"
    """Of a new policy: `act`, `diffusion`, `smolvla`, `pi0` or `pi05`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings in LeRobot's names, of a new policy or on top of a checkpoint's:
    `policy.lerobot.settings.dim_model=128`, `policy.lerobot.settings.n_action_steps=8`."""
    rename: dict[str, str] = field(default_factory=dict)
    """Observation group to LeRobot's feature, where the names differ: `{image/front: observation.images.camera1}`."""
    vlm: str | None = None
    """A local folder with the configuration and the tokenizer of the language model, for those that have one; None: the
    one that the checkpoint names, if that is a local folder."""
    instruction: str = "instruction"
    """The observation group of word tokens that becomes LeRobot's `task`."""
    words: list[str] = field(default_factory=list)
    """The words behind those tokens, from token 2 on; empty: those of the tabletop suite."""
    tell_task: bool = False
    """Of a new ACT or Diffusion policy, which read no words: give it the instruction as a bag of words, as LeRobot's
    feature `observation.environment_state`."""
    statistics: str = "checkpoint"
    """What numbers are normalised by when a checkpoint is trained further: those it came with (`checkpoint`), to which
    the data have to be alike, or those of the `data`."""
    saved: dict[str, Any] = field(default_factory=dict)
    """Filled in: what a checkpoint said, or what a new policy was made with; saved with the policy."""

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise RobotRLError(
                f"policy.lerobot.type is '{self.type}'.{nearest(self.type, list(TYPES))} It must be one of: "
                f"{', '.join(TYPES)}."
            )
        if self.statistics not in ("checkpoint", "data"):
            raise RobotRLError(f"policy.lerobot.statistics is '{self.statistics}'; it must be checkpoint or data.")


__all__ = ["TYPES", "LeRobotConfig"]
