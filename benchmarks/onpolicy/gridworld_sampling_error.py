"""Exact sampling error of a fixed uniform policy in a room of 5 x 5 cells: PROPS, ROS and ROS with the wrong sign.

python -m benchmarks.onpolicy.gridworld_sampling_error --jobs 2
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.onpolicy import small
from benchmarks.targets import every, ratio

SEEDS = tuple(range(50))
AT = (256, 1024, 4096)
UNIFORM = "[" + ",".join(["0"] * 4 * 25) + "]"
FIXED = (
    "learner=props", "preset=GridWorld", f"policy.init_weights={UNIFORM}", "learner.train_target=false",
    "learner.num_batches=1", "num_envs=1", "learner.target_steps=4096", "total_env_steps=4096",
)  # fmt: skip
ARMS: dict[str, Sequence[str]] = {
    "on_policy": (*FIXED, "learner.behaviour=on_policy", "schedule.rollout_steps=64"),
    "props": (*FIXED, "schedule.rollout_steps=16"),
    "props_16_envs": (*FIXED, "num_envs=16", "schedule.rollout_steps=1", "learner.target_steps=256"),
    "props_m1": (*FIXED, "schedule.rollout_steps=1"),
    "props_timid": (
        *FIXED, "schedule.rollout_steps=16", "learner.behaviour_learning_rate=1e-3", "learner.behaviour_max_kl=0.01",
    ),
    "ros": (*FIXED, "learner.behaviour=ros", "learner.behaviour_learning_rate=1e3", "schedule.rollout_steps=1"),
    "ros_short": (*FIXED, "learner.behaviour=ros", "learner.behaviour_learning_rate=10", "schedule.rollout_steps=1"),
    "ros_wrong_sign": (
        *FIXED, "learner.behaviour=ros_wrong_sign", "learner.behaviour_learning_rate=10", "schedule.rollout_steps=1",
    ),
}  # fmt: skip
EACH_STEP = ("props_m1", "ros", "ros_short", "ros_wrong_sign")
"""Arms that learn after every env step; they are measured up to 1,024."""
TARGET = every(
    [
        ratio("props/1024", "on_policy/1024", "<=", 0.35, statistic="mean", n=len(SEEDS)),
        ratio("props_16_envs/1024", "on_policy/1024", "<=", 0.35, statistic="mean", n=len(SEEDS)),
        ratio("ros/1024", "on_policy/1024", "<", 1.0, statistic="mean", n=len(SEEDS)),
        ratio("ros_wrong_sign/1024", "on_policy/1024", ">", 1.0, statistic="mean", n=len(SEEDS)),
    ]
)
NOTE = (
    "KL(pi_D || pi) in nats over the data so far, exact from counts; the target is uniform and never learns, so all "
    "data stay. on_policy: the target collects. props: m = 16 env steps, Adam 0.1, delta 0.03, 16 epochs of 4 "
    "minibatches; props_16_envs: the same m as one step in each of 16 envs; props_m1: m = 1; props_timid: Adam 0.001, "
    "delta 0.01. ros: one plain gradient step of length 1,000 from the target, m = 1; ros_short: of length 10; "
    "ros_wrong_sign: of length 10 the other way. On-policy error is about 69 / (2 x env steps): three free numbers in "
    "each of 23 states."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/gridworld_sampling_error"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file = command.result(claim, opts, TARGET, NOTE)
    seeds, most = (SEEDS[:2], 256) if opts.smoke else (SEEDS, AT[-1])
    limit = {arm: min(most, 1024) if arm in EACH_STEP else most for arm in ARMS}
    at = {arm: [n for n in AT if n <= limit[arm]] for arm in ARMS}
    small.sweep(
        ARMS, seeds, at, "tabular_error", jobs=opts.jobs,
        record=lambda arm, seed, rows: small.record_all(file, arm, seed, rows, "nats"),
        missing=lambda arm, seed: not all(file.has(f"{arm}/{n}", seed) for n in at[arm]),
    )  # fmt: skip
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
