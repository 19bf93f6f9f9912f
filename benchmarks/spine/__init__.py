"""Claims of the spine: the native environments, PPO, the demo, memory and import time."""

CLAIMS = {
    "env_vs_envpool": "Native environments against EnvPool, env steps a second",
    "env_vs_sb3": "Native environments against Stable-Baselines3's vector environments, env steps a second",
    "env_vs_raw": "Native environments against the simulator alone, env steps a second",
    "ppo_vs_sb3_speed": "PPO against Stable-Baselines3's PPO at the same sizes, env steps a second",
    "ppo_vs_sb3_time_to_3000": "Training time to a return of 3,000 on HalfCheetah-v5",
    "ppo_return_1m": "PPO's return at one million env steps",
    "demo": "`make demo`: wall time and return",
    "memory": "Memory of a training run of 64 environments",
    "import_time": "Time of `import robotrl` beyond torch",
}
"""Claim to title, in the order of the tables; `python -m benchmarks.spine.<claim>` measures each."""
