"""SAC's learning curves with matrix products in bfloat16 beside those in float32, two tasks, three seeds each.

python -m benchmarks.offpolicy.sac_bf16 --jobs 2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from benchmarks import command, lib
from benchmarks.offpolicy import dmc, sac_reference
from benchmarks.spine import training
from benchmarks.targets import every, value

REFERENCE = lib.RESULTS / "offpolicy" / "sac_reference.json"
SEEDS = sac_reference.SEEDS
TASKS = ("cartpole-swingup", "walker-walk")
TARGET = every([value(f"bf16_over_fp32/{task}", ">=", 0.95, statistic="mean", n=len(SEEDS)) for task in TASKS])
NOTE = (
    "Do the curves agree? Both arms are runs as those of sac_reference (fp32: what that claim recorded), but for "
    "learner.matmul_precision. `area`: the mean return of all evaluations of a run, of 10 deterministic episodes every "
    "5,000 env steps. bf16_over_fp32: the ratio of the areas, seed by seed; a run with other rounding is another "
    "run, so single ratios scatter as two seeds do. Runs may go side by side and be paused, so their times are no "
    "claim; sac_vs_sb3_speed has the speed."
)


def reference(task: str, seed: int) -> training.Curve:
    """The run in float32."""
    file = lib.ResultFile(REFERENCE, "", sac_reference.TARGET, sac_reference.NOTE)
    if not file.has(f"sac/{task}", seed):
        raise SystemExit(f"sac_reference has not recorded seed {seed} of {task} yet: run it first.")
    return training.recorded(file, "sac", task, seed)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "offpolicy/sac_bf16"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    tasks, seeds = (TASKS[:1], SEEDS[:1]) if opts.smoke else (TASKS, SEEDS)

    def run(arm: str, task: str, seed: int) -> None:
        if arm == "fp32" and not opts.smoke:
            curve = reference(task, seed)
        else:
            settings: dict[str, Any] = {"learner.matmul_precision": arm}
            env_steps = sac_reference.TASKS[task][0] // 2
            curve = dmc.train(work / arm / task / f"seed{seed}", task, seed, env_steps, settings, smoke=opts.smoke)
        dmc.record(file, arm, task, seed, curve)
        last = curve.points[-1]
        file.record(
            f"{arm}/{task}/area", seed, curve.area, unit="return", wall_s=last.train_s, env_steps=last.env_steps,
            commit=curve.commit,
        )  # fmt: skip

    runs: list[Callable[[], None]] = [
        partial(run, arm, task, seed)
        for arm, task, seed in product(("bf16", "fp32"), tasks, seeds)
        if not file.has(f"{arm}/{task}", seed)
    ]
    command.side_by_side(runs, opts.jobs)
    for task, seed in product(tasks, seeds):
        bf16, fp32 = (file.arms[f"{arm}/{task}/area"].value_of(seed) for arm in ("bf16", "fp32"))
        file.record(f"bf16_over_fp32/{task}", seed, bf16 / fp32, unit="ratio", replace=True)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
