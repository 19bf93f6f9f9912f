"""The tasks of the spine's tables, and published returns of PPO on them."""

from __future__ import annotations

TASKS = ("HalfCheetah", "Walker2d", "Hopper", "Ant", "Humanoid")
"""Families; the ids carry `-v5`."""

TIANSHOU_1M = {"HalfCheetah": 5784.0, "Walker2d": 3589.0, "Hopper": 2609.0, "Ant": 3258.0, "Humanoid": 787.0}
"""Tianshou's PPO, 1M env steps, 10 seeds, Gym -v3 tasks: the highest point of the curve of the mean over seeds.

Source: thu-ml/tianshou, examples/mujoco/README.md; that it is the maximum of the mean curve, and not the mean of each
seed's maximum, follows from its analysis.py.
"""

RL_ZOO_1M = {"HalfCheetah": 5819.0, "Walker2d": 3479.0, "Hopper": 2410.0, "Ant": 1327.0}
"""rl-baselines3-zoo's PPO, one run each, 1M env steps, deterministic policy at the end, -v3 tasks.

Source: DLR-RM/rl-baselines3-zoo, benchmark.md. It has no Humanoid for PPO.
"""

CLEANRL_8M = {"HalfCheetah": 2637.0, "Walker2d": 2873.0, "Hopper": 2741.0, "Ant": 1824.0, "Humanoid": 583.0}
"""CleanRL's PPO, 3 seeds or more, **8M** env steps, returns of the exploring policy in training, -v4 tasks.

Source: vwxyzjn/cleanrl, docs/rl-algorithms/ppo.md.
"""
