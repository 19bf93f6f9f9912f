"""Claims of off-policy and imitation learning."""

CLAIMS = {
    "sac_vs_sb3_speed": "SAC against Stable-Baselines3's SAC at the same sizes, updates a second",
    "rlpd_critic_speed": "RLPD's ten critics, steps a second",
    "sac_reference": "SAC on four tasks of the DeepMind Control suite",
    "sac_bf16": "SAC's learning curves with matrix products in bfloat16 beside float32",
    "sample_efficient": "Narrow FlashSAC beside SAC on four MuJoCo tasks (extended)",
    "rlpd_sparse": "RLPD with ten demonstrations on a sparse reward",
    "rlpd_ablation": "RLPD without one of its parts (extended)",
    "ailboost_one_demo": "AILBoost, DAC and behaviour cloning from one demonstration",
    "ailboost_demos": "AILBoost and DAC from one and five demonstrations of a harder task (extended)",
    "sac_pixels": "SAC from pictures on one task (extended)",
    "ailboost_pixels": "AILBoost and DAC from pictures on one task (extended)",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.offpolicy.<claim>` measures each."""
