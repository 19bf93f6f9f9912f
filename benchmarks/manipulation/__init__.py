"""Claims of policies that see, read and act."""

CLAIMS = {
    "vs_lerobot_policies": "LeRobot's ACT and Diffusion beside our VLA: same demonstrations, same training time",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.manipulation.<claim>` measures each."""
