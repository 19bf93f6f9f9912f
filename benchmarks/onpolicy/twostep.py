"""PROPS and on-policy PPO on the two-step task: how many of 100 seeds find the best return within 40,000 env steps.

python -m benchmarks.onpolicy.twostep --jobs 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import command
from benchmarks.onpolicy import small
from benchmarks.targets import every, value
from robotrl.functional.statistics import wilson_interval

SEEDS = tuple(range(100))
FEWER = SEEDS[:50]
"""Of the arm with five envs."""
STEPS, EVERY = 40_000, 2_000
OPTIMAL = 1.9
PRESET = ("learner=props", "preset=TwoStep")
ON_POLICY = (
    *PRESET,
    "learner.behaviour=on_policy",
    "num_envs=100",
    "schedule.rollout_steps=2",
    "learner.target_steps=2",
)
ARMS: dict[str, Sequence[str]] = {
    "props": PRESET,
    "props_5_envs": (*PRESET, "num_envs=5", "schedule.rollout_steps=1", "learner.target_steps=40"),
    "on_policy": ON_POLICY,
}
TARGET = every(
    [
        value("props", ">=", 0.98, statistic="mean", n=len(SEEDS)),
        value("props_5_envs", ">=", 0.98, statistic="mean", n=len(FEWER)),
        value("on_policy", "<=", 0.80, statistic="mean", n=len(SEEDS)),
    ]
)
NOTE = (
    "A value is 1 where the target policy's expected return, computed from its probabilities, is at least 1.9 of 2 "
    "after 40,000 env steps, else 0: who does not find 2 settles for 1. All arms have the same target learner: 200 "
    "env steps (100 episodes) an update, one gradient step. props: m = 5 env steps of one env between behaviour "
    "updates. props_5_envs: the same m as one step in each of 5 envs. on_policy: the target collects, 100 envs x 2 "
    "steps, which is 100 episodes either way. The authors' figure shows 1.00 and 0.71 of 100 seeds. Curves: expected "
    "return."
)


def appendix(data: dict[str, Any]) -> str:
    """Shares with Wilson's intervals, for the report."""
    lines = ["| arm | optimal | share | 95 % Wilson interval |", "| --- | --- | --- | --- |"]
    for name, arm in data["arms"].items():
        found, n = int(sum(arm["values"])), len(arm["values"])
        low, high = wilson_interval(found, n)
        lines.append(f"| {name} | {found} of {n} | {found / n:.2f} | [{low:.2f}, {high:.2f}] |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/twostep"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file = command.result(claim, opts, TARGET, NOTE)
    seeds, steps, each = (SEEDS[:2], 2_000, 1_000) if opts.smoke else (SEEDS, STEPS, EVERY)
    at = dict.fromkeys(ARMS, tuple(range(each, steps + 1, each)))

    def record(arm: str, seed: int, rows: list[tuple[int, float, float]]) -> None:
        file.add_curve([
            {"arm": arm, "task": "TwoStep", "seed": seed, "env_steps": n, "episode": 0, "return": v, "train_s": s}
            for n, v, s in rows
        ])  # fmt: skip
        env_steps, last, seconds = rows[-1]
        optimal = float(last >= OPTIMAL)
        file.record(arm, seed, optimal, unit="optimal", wall_s=seconds, env_steps=env_steps)

    def missing(arm: str, seed: int) -> bool:
        return not file.has(arm, seed) and (arm != "props_5_envs" or seed in FEWER)

    small.sweep(ARMS, seeds, at, "two_step_value", jobs=opts.jobs, record=record, missing=missing)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
