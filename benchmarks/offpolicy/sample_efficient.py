"""Narrow FlashSAC and SAC on four tasks at 250,000 env steps, two seeds each (extended; HalfCheetah's start is core).

python -m benchmarks.offpolicy.sample_efficient --core --jobs 2   # HalfCheetah at 100,000 env steps
python -m benchmarks.offpolicy.sample_efficient --jobs 2          # all of it
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from benchmarks import command
from benchmarks.offpolicy import dmc
from benchmarks.spine import training
from benchmarks.targets import every, ratio, value

SEEDS = (0, 1)
TD3 = {"HalfCheetah": (-289.0, 10574.0), "Hopper": (19.0, 3226.0), "Walker2d": (3.0, 3946.0), "Ant": (-70.0, 3942.0)}
"""Task to the returns of a random policy and of TD3 at one million steps, by which published scores are normalised
(SimbaV2's repository, on Gymnasium's -v4 tasks)."""
STEPS, EARLY = 250_000, 100_000
ARMS: dict[str, dict[str, Any]] = {
    "flashsac_narrow": {"learner": "flashsac", "preset": "narrow"},
    "sac": {"learner": "sac", "preset": "auto"},
}
N = len(SEEDS) * len(TD3)
TARGET = every(
    [
        value("flashsac_narrow/normalised", ">=", 1.0, statistic="mean", n=N),
        ratio("flashsac_narrow/seconds", "sac/seconds", "<=", 1.5, statistic="mean", n=N),
    ]
)
NOTE = (
    "Mean return of 10 deterministic episodes after 250,000 env steps, normalised by task: 0 is a random policy, 1 "
    "is TD3 after a million steps; the statistic is the mean over tasks and seeds. Published on these four (-v4): SAC "
    "0.69, CrossQ 1.05, FlashSAC at its full size 1.24. `at_100k` is the return of HalfCheetah after 100,000 env steps "
    "(published: SAC 6,156, CrossQ 8,112, FlashSAC 9,815). `seconds` is the training time of a run, evaluations "
    "excluded; runs are single-threaded, and the ratio means something where both arms went side by side."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "offpolicy/sample_efficient"
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--core", action="store_true")
    own, rest = parser.parse_known_args(argv)
    opts = command.options(claim, __doc__ or "", rest, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    tasks = ["HalfCheetah"] if own.core or opts.smoke else list(TD3)
    steps = EARLY if own.core else STEPS

    def run(arm: str, task: str, seed: int) -> None:
        settings = {
            "env": f"{task}-v5", "seed": seed, "total_env_steps": steps, "eval_every": 25_000, "eval_episodes": 10,
            "checkpoint_every": 0, "num_threads": 1, "video": False, **ARMS[arm],
        }  # fmt: skip
        small = dmc.SMOKE | ({"learner.critic_hidden": [16]} if arm == "flashsac_narrow" else {})
        folder = work / f"{arm}-{steps // 1000}k" / task / f"seed{seed}"
        curve = training.robotrl(folder, settings | (small if opts.smoke else {}), threads=1)
        file.add_curve(curve.rows(arm, task, seed))
        name, last = f"{arm}/{task}", curve.points[-1]
        facts: dict[str, Any] = {"wall_s": last.train_s, "commit": curve.commit, "replace": True}
        if task == "HalfCheetah" and not opts.smoke:
            early = next(point for point in curve.points if point.env_steps >= EARLY)
            file.record(f"{name}/at_100k", seed, early.mean, unit="return", env_steps=early.env_steps, **facts)
        if not own.core:
            place = list(TD3).index(task) * len(SEEDS) + seed
            low, high = TD3[task]
            score = (last.mean - low) / (high - low)
            file.record(name, seed, last.mean, unit="return", env_steps=last.env_steps, **facts)
            file.record(f"{arm}/normalised", place, score, unit="TD3", env_steps=last.env_steps, **facts)
            file.record(f"{arm}/seconds", place, last.train_s, unit="s", env_steps=last.env_steps, **facts)
        command.say(f"{name} seed {seed}: {last.mean:.0f} at {last.env_steps:,} env steps, {last.train_s / 60:.1f} min")

    done = "/at_100k" if own.core else ""
    runs: list[Callable[[], None]] = [
        partial(run, arm, task, seed)
        for task, seed, arm in product(tasks, SEEDS[:1] if opts.smoke else SEEDS, ARMS)
        if not file.has(f"{arm}/{task}{done}", seed)
    ]
    command.side_by_side(runs, opts.jobs)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
