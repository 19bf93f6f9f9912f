"""Claims of the tabletop suite: its experts and its speed."""

CLAIMS = {
    "experts": "Success of the scripted experts, noise and speed variation on",
    "speed": "Speed of the suite against the simulator alone, pictures a second, memory",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.tabletop.<claim>` measures each."""
