"""Claims of on-policy learning that wastes less."""

CLAIMS = {
    "twostep": "PROPS on the two-step task: how many of 100 seeds find the best return",
    "gridworld_sampling_error": "Sampling error of a fixed policy in a room of 25 cells",
    "fixed_policy_sampling_error": "Sampling error of a fixed random policy on MuJoCo tasks",
    "returns": "Returns of PROPS, PPO with a buffer of old data, and PPO",
    "props_cost": "What PROPS costs: Hopper, a million env steps with 4,000 behaviour updates",
    "comblock": "HNPG, TRPO and RLPD on the combination lock",
    "comblock_images": "HNPG, TRPO and RLPD on a lock seen through pictures",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.onpolicy.<claim>` measures each."""
