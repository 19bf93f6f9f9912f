"""Claims of learning through models of the world."""

CLAIMS = {
    "pets_mbpo": "PETS on cartpole-swingup and MBPO on InvertedPendulum, beside SAC at as many steps",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.world_models.<claim>` measures each."""
