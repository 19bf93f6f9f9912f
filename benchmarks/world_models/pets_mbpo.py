"""PETS on cartpole-swingup and MBPO on InvertedPendulum within 10,000 steps, SAC beside them, three seeds each.

python -m benchmarks.world_models.pets_mbpo --jobs 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from benchmarks import command
from benchmarks.offpolicy import dmc
from benchmarks.spine import training
from benchmarks.targets import every, value

SEEDS = (0, 1, 2)
ARMS: dict[str, dict[str, Any]] = {
    "pets/cartpole-swingup": {
        "learner": "pets", "env": "dmc/cartpole-swingup", "preset": "auto", "total_env_steps": 2_500, "eval_every": 500,
    },
    "sac/cartpole-swingup": {
        "learner": "sac", "env": "dmc/cartpole-swingup", "preset": "auto", "total_env_steps": 2_500,
        "env.action_repeat": 4, "eval_every": 500, "learner.random_env_steps": 250, "schedule.warmup_env_steps": 250,
    },
    "mbpo/InvertedPendulum": {
        "learner": "mbpo", "env": "InvertedPendulum-v5", "preset": "auto", "total_env_steps": 10_000,
        "eval_every": 1_000,
    },
    "sac/InvertedPendulum": {
        "learner": "sac", "env": "InvertedPendulum-v5", "preset": "shared", "total_env_steps": 10_000,
        "eval_every": 1_000, "learner.random_env_steps": 1_000, "schedule.warmup_env_steps": 1_000,
    },
}  # fmt: skip
TARGET = every(
    [
        value("pets/cartpole-swingup", ">=", 800.0, statistic="mean", n=len(SEEDS)),
        value("mbpo/InvertedPendulum", ">=", 950.0, statistic="mean", n=len(SEEDS)),
    ]
)
NOTE = (
    "The value is the mean return of 5 (cartpole) or 10 episodes after the last step, without exploration. On "
    "cartpole-swingup every action is executed four times: 2,500 env steps are 10,000 frames, and both learners act at "
    "random for the first 250; on InvertedPendulum 10,000 env steps are as many frames, the first 1,000 at random. SAC "
    "has its own preset otherwise and makes one update for each env step. Runs are single-threaded and may go side by "
    "side, so their times are no claim."
)
SMOKE = {"total_env_steps": 300, "eval_every": 150, "eval_episodes": 1, "env.time_limit": 20}


def main(argv: Sequence[str] | None = None) -> int:
    claim = "world_models/pets_mbpo"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)

    def run(arm: str, seed: int) -> None:
        own = {"seed": seed, "checkpoint_every": 0, "num_threads": 1, "video": False, "eval_episodes": 10}
        if arm.startswith("pets"):
            own["eval_episodes"] = 5
        settings = own | ARMS[arm] | (SMOKE if opts.smoke else {})
        curve = training.robotrl(work / arm / f"seed{seed}", settings, threads=1)
        learner, _, task = arm.partition("/")
        dmc.record(file, learner, task, seed, curve)

    seeds = SEEDS[:1] if opts.smoke else SEEDS
    runs: list[Callable[[], None]] = [
        partial(run, arm, seed) for seed, arm in product(seeds, ARMS) if not file.has(arm, seed)
    ]
    command.side_by_side(runs, opts.jobs)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
