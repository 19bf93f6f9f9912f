"""Claims of off-policy and imitation learning."""

CLAIMS = {
    "sac_reference": "SAC on four tasks of the DeepMind Control suite",
    "ailboost_one_demo": "AILBoost, DAC and behaviour cloning from one demonstration",
    "ailboost_demos": "AILBoost and DAC from one and five demonstrations of a harder task (extended)",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.offpolicy.<claim>` measures each."""
