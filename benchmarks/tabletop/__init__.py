"""Claims of the tabletop suite: its experts, its speed, and its data."""

CLAIMS = {
    "experts": "Success of the scripted experts, noise and speed variation on",
    "speed": "Speed of the suite against the simulator alone, pictures a second, memory",
    "loader_vs_lerobot": "Reading data sets with pictures against LeRobot's own loader, frames a second",
    "record": "Recording a hundred episodes of two cameras, and twenty recordings that are killed",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.tabletop.<claim>` measures each."""
