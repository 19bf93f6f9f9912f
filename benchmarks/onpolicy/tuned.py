"""The values that the authors of PROPS found best for each arm and task, and an arm's settings with any of them."""

from __future__ import annotations

from typing import Any, NamedTuple

ARMS = ("props", "ppo_buffer", "ppo")
ENVS = 8
"""Side by side, in every arm, as in the presets."""


class Values(NamedTuple):
    """What the authors tuned in every arm."""

    n: int
    """Env steps a target batch."""
    learning_rate: float
    """Of the target's PPO."""

    @property
    def label(self) -> str:
        """In names of arms and files."""
        return f"n{self.n}-lr{self.learning_rate:g}"

    def __str__(self) -> str:
        """In sentences and tables."""
        return f"n = {self.n:,}, learning rate {self.learning_rate:g}"


TUNED: dict[str, dict[str, Values]] = {
    "props": {
        "Swimmer": Values(2048, 1e-3), "Hopper": Values(2048, 1e-3), "HalfCheetah": Values(1024, 1e-4),
        "Walker2d": Values(2048, 1e-3), "Ant": Values(2048, 1e-4), "Humanoid": Values(8192, 1e-4),
    },
    "ppo": {
        "Swimmer": Values(4096, 1e-3), "Hopper": Values(2048, 1e-3), "HalfCheetah": Values(1024, 1e-4),
        "Walker2d": Values(4096, 1e-3), "Ant": Values(1024, 1e-4), "Humanoid": Values(8192, 1e-4),
    },
    "ppo_buffer": {
        "Swimmer": Values(2048, 1e-3), "Hopper": Values(1024, 1e-4), "HalfCheetah": Values(4096, 1e-3),
        "Walker2d": Values(4096, 1e-3), "Ant": Values(1024, 1e-4), "Humanoid": Values(8192, 1e-4),
    },
}  # fmt: skip
"""Arm and task to the authors' choice; all else is that of PROPS' preset for the task."""
USUAL = Values(2048, 3e-4)
"""What PPO is mostly run with, as in Schulman et al. 2017 (table 3)."""
BATCHES = {"ppo": 1, "ppo_buffer": 2}


def candidates(task: str) -> list[Values]:
    """`USUAL`, and what the authors found best on a task for any of the arms: the same choice for every arm."""
    return sorted({USUAL, *(TUNED[arm][task] for arm in ARMS)})


def settings(arm: str, task: str, values: Values | None = None) -> dict[str, Any]:
    """`key: value` of the command line for an arm on a task; None: with the authors' values for it."""
    n, learning_rate = values or TUNED[arm][task]
    own: dict[str, Any] = {
        "learner": "props", "env": f"{task}-v5", "checkpoint_every": 0, "num_threads": 1, "video": False,
        "learner.ppo.two_threads": False, "learner.target_steps": n // ENVS, "learner.ppo.learning_rate": learning_rate,
    }  # fmt: skip
    if arm == "props":
        return own
    return own | {
        "learner.behaviour": "on_policy", "learner.num_batches": BATCHES[arm], "schedule.rollout_steps": n // ENVS,
    }  # fmt: skip
