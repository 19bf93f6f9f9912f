"""Claims of policies that see, read and act."""

CLAIMS = {
    "vla_flow_bc": "One policy for four tasks by flow matching, and whether it listens",
    "vla_discrete_bc": "The same with bins in place of a flow",
    "vs_lerobot_policies": "LeRobot's ACT and Diffusion beside our VLA: same demonstrations, same training time",
    "wam_gain": "What predicting the future is worth at a tenth of the demonstrations",
    "wam_gain_all": "What predicting the future is worth with all demonstrations (extended)",
    "wam_latency": "What the future costs where only actions are wanted",
    "flow_latency": "Milliseconds of a chunk of the flow, LeRobot's ACT beside it",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.manipulation.<claim>` measures each."""
