"""Sampling error of a fixed random policy on three MuJoCo tasks, 16,384 env steps, five seeds.

python -m benchmarks.onpolicy.fixed_policy_sampling_error --jobs 2
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from benchmarks import command
from benchmarks.onpolicy import small
from benchmarks.targets import every, ratio

SEEDS = (0, 1, 2, 3, 4)
TASKS = ("HalfCheetah", "Hopper", "Walker2d")
AT = (1024, 4096, 16_384)
FIXED = (
    "learner=props", "preset=none", "learner.train_target=false", "learner.num_batches=1", "num_envs=1",
    "schedule.rollout_steps=256", f"learner.target_steps={AT[-1]}", f"total_env_steps={AT[-1]}",
    "learner.behaviour_learning_rate=1e-3", "learner.behaviour_minibatches=32", "learner.behaviour_max_kl=0.05",
    "learner.behaviour_kl_coef=0.1", "learner.behaviour_clip=0.3",
)  # fmt: skip
METHODS: dict[str, Sequence[str]] = {
    "on_policy": ("learner.behaviour=on_policy",),
    "props": (),
    "props_16_envs": ("num_envs=16", "schedule.rollout_steps=16", f"learner.target_steps={AT[-1] // 16}"),
    "props_no_clip": ("learner.behaviour_clip=1.0",),
    "props_no_kl": ("learner.behaviour_kl_coef=0.0",),
    "ros": ("learner.behaviour=ros", "learner.behaviour_learning_rate=0.1"),
}
ARMS = {
    f"{method}/{task}": (*FIXED, f"env={task}-v5", *words) for task, (method, words) in product(TASKS, METHODS.items())
}
TARGET = every(
    [
        ratio(f"{method}/{task}/{AT[-1]}", f"on_policy/{task}/{AT[-1]}", "<=", 0.85, statistic="mean", n=len(SEEDS))
        for method, task in product(("props", "props_16_envs"), TASKS)
    ]
)
NOTE = (
    "The target is a Gaussian policy with two layers of 64 units as it was initialised, the same for all arms of a "
    "seed, and never learns; all data stay. A value is the mean over the data of log pi_fit - log pi in nats, pi_fit "
    "being the policy with the last layer and deviations that fit the data best. m = 256 env steps; props_16_envs: 16 "
    "steps in each of 16 envs. props_no_clip: no row is left alone; props_no_kl: no penalty; ros: one plain step of "
    "length 0.1. The authors' data (their fit moves biases too) give 0.74 to 0.76 for props / on_policy on these "
    "tasks."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/fixed_policy_sampling_error"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file = command.result(claim, opts, TARGET, NOTE)
    at = [1024] if opts.smoke else list(AT)
    small.sweep(
        ARMS, SEEDS[:1] if opts.smoke else SEEDS, dict.fromkeys(ARMS, at), "network_error", jobs=opts.jobs,
        record=lambda arm, seed, rows: small.record_all(file, arm, seed, rows, "nats"),
        missing=lambda arm, seed: not all(file.has(f"{arm}/{n}", seed) for n in at),
    )  # fmt: skip
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
