"""SAC's return on four tasks of the DeepMind Control suite after 100,000 or 200,000 frames, three seeds each.

python -m benchmarks.offpolicy.sac_reference --jobs 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from benchmarks import command
from benchmarks.offpolicy import dmc
from benchmarks.targets import every, value

SEEDS = (0, 1, 2)
TASKS = {
    "cartpole-swingup": (100_000, 800.0),
    "walker-walk": (200_000, 850.0),
    "ball_in_cup-catch": (100_000, 930.0),
    "cheetah-run": (200_000, 500.0),
}
"""Task to frames and the return to reach."""
TARGET = every(
    [
        value(f"sac/{task}", ">=", reach, statistic="mean", n=len(SEEDS))
        for task, (_, reach) in TASKS.items()
    ]
)  # fmt: skip
NOTE = (
    "Observations of states, normalised, nets of 2x256 units, every action executed twice (an env step is two "
    "frames), one update of critics and actor for each env step, the preset of the task. The value is the mean return "
    "of 10 deterministic episodes at the end of training. Published SAC, of other sizes and settings: 835, 923, 958 on "
    "the first three (TD-MPC2's repository) and between 178 and 586 on cheetah-run from 100,000 to 500,000 frames "
    "(SimbaV2's). Runs are single-threaded and may go side by side, so their times are no claim."
)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "offpolicy/sac_reference"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    tasks, seeds = (list(TASKS)[:1], SEEDS[:1]) if opts.smoke else (list(TASKS), SEEDS)

    def run(task: str, seed: int) -> None:
        curve = dmc.train(work / task / f"seed{seed}", task, seed, TASKS[task][0] // 2, {}, smoke=opts.smoke)
        dmc.record(file, "sac", task, seed, curve)

    runs: list[Callable[[], None]] = [
        partial(run, task, seed) for seed, task in product(seeds, tasks) if not file.has(f"sac/{task}", seed)
    ]
    command.side_by_side(runs, opts.jobs)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
