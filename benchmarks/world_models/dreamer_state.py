"""Dreamer within an hour of one core: reacher-easy and ball_in_cup-catch from states, 150,000 frames.

python -m benchmarks.world_models.dreamer_state --jobs 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import command
from benchmarks.offpolicy import dmc
from benchmarks.spine import training
from benchmarks.targets import every, value

TASKS = {"reacher-easy": (600.0, 3), "ball_in_cup-catch": (700.0, 2)}
"""Task to the return to reach and the number of seeds."""
FRAMES, REPEAT = 150_000, 2
LIMIT_MIN = 60.0
TARGET = every(
    [
        condition
        for task, (reach, seeds) in TASKS.items()
        for condition in (
            value(f"dreamer/{task}", ">=", reach, statistic="mean", n=seeds),
            value(f"dreamer/{task}/minutes", "<=", LIMIT_MIN, statistic="max", n=seeds),
        )
    ]
)
NOTE = (
    "preset=cpu: size1m, batches of 16 sequences of 16 steps, imagination from a quarter of their states, one update "
    "for every two env steps; every action is executed twice, so 75,000 env steps are 150,000 frames. The value is the "
    "mean return of 10 episodes at the end of training, without exploration. minutes: wall time of training without "
    "evaluations, on one core; two runs may go side by side. exploring: the mean return of the training episodes in "
    "the last 5,000 env steps, whose actions are sampled, as are those of published scores."
)
SMOKE = {
    "policy.world_model": "tiny", "learner.batch_size": 2, "learner.batch_length": 8, "total_env_steps": 400,
    "schedule.warmup_env_steps": 300, "eval_every": 200, "eval_episodes": 1, "env.time_limit": 50,
}  # fmt: skip


def settings(env: str, seed: int, env_steps: int) -> dict[str, Any]:
    """`key: value` of the command line for a run with preset=cpu."""
    return {
        "learner": "dreamer", "preset": "cpu", "env": env, "env.action_repeat": REPEAT, "seed": seed,
        "total_env_steps": env_steps, "eval_every": 5_000, "eval_episodes": 10, "checkpoint_every": 15_000,
        "num_threads": 1, "video": False,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    claim = "world_models/dreamer_state"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)

    def run(task: str, seed: int) -> None:
        own = settings(f"dmc/{task}", seed, FRAMES // REPEAT) | (SMOKE if opts.smoke else {})
        run_dir = work / task / f"seed{seed}"
        curve = training.robotrl(run_dir, own, threads=1)
        explored = training.training_points(run_dir, int(own["eval_every"]))
        dmc.record(file, "exploring", task, seed, training.Curve(explored, curve.commit))
        minutes = curve.points[-1].train_s / 60
        file.record(f"dreamer/{task}/minutes", seed, minutes, unit="min", wall_s=60 * minutes, commit=curve.commit)
        dmc.record(file, "dreamer", task, seed, curve)

    tasks = dict(list(TASKS.items())[:1]) if opts.smoke else TASKS
    runs: list[Callable[[], None]] = [
        partial(run, task, seed)
        for task, (_, seeds) in tasks.items()
        for seed in range(1 if opts.smoke else seeds)
        if not file.has(f"dreamer/{task}", seed)
    ]
    command.side_by_side(runs, opts.jobs)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
