"""The authors' tuned values for the baselines of PROPS; PROPS' own are its presets."""

from __future__ import annotations

from typing import Any

ARMS = ("props", "ppo_buffer", "ppo")
ENVS = 8
"""Side by side, in every arm, as in the presets."""
TUNED: dict[str, dict[str, tuple[int, float]]] = {
    "ppo": {
        "Swimmer": (4096, 1e-3), "Hopper": (2048, 1e-3), "HalfCheetah": (1024, 1e-4), "Walker2d": (4096, 1e-3),
        "Ant": (1024, 1e-4), "Humanoid": (8192, 1e-4),
    },
    "ppo_buffer": {
        "Swimmer": (2048, 1e-3), "Hopper": (1024, 1e-4), "HalfCheetah": (4096, 1e-3), "Walker2d": (4096, 1e-3),
        "Ant": (1024, 1e-4), "Humanoid": (8192, 1e-4),
    },
}  # fmt: skip
"""Arm and task to n (env steps a target batch) and learning rate; all else is that of PROPS' preset."""
BATCHES = {"ppo": 1, "ppo_buffer": 2}


def settings(arm: str, task: str) -> dict[str, Any]:
    """`key: value` of the command line for an arm on a task."""
    own: dict[str, Any] = {
        "learner": "props", "env": f"{task}-v5", "checkpoint_every": 0, "num_threads": 1, "video": False,
        "learner.ppo.two_threads": False,
    }  # fmt: skip
    if arm == "props":
        return own
    n, learning_rate = TUNED[arm][task]
    return own | {
        "learner.behaviour": "on_policy", "learner.num_batches": BATCHES[arm], "learner.target_steps": n // ENVS,
        "schedule.rollout_steps": n // ENVS, "learner.ppo.learning_rate": learning_rate,
    }  # fmt: skip
