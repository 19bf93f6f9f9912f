"""PPO's return at 1M env steps on five tasks, with one shared preset and with tuned ones, five seeds each.

python -m benchmarks.spine.ppo_return_1m --jobs 2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

from benchmarks import command, lib, plots
from benchmarks.spine import training
from benchmarks.spine.tasks import CLEANRL_8M, RL_ZOO_1M, TASKS, TIANSHOU_1M
from benchmarks.targets import at_least, value
from robotrl.configs.compose import presets

SEEDS = (0, 1, 2, 3, 4)
PRESETS = {"robotrl_shared": "shared", "robotrl_tuned": "auto"}
BASELINES = lib.WORK / "baselines" / "sb3_zoo"
"""Curves of Stable-Baselines3, which take hours and do not depend on this repository: `--fresh` keeps them."""
STEPS, EVAL_EVERY = 1_000_000, 50_000
TARGET = at_least(
    3,
    [value(f"robotrl_tuned/{t}/peak", ">=", TIANSHOU_1M[t], statistic="mean", n=len(SEEDS)) for t in TASKS],
)
NOTE = (
    "Deterministic evaluations of 10 episodes every 50,000 env steps, always the same episodes. peak: the evaluation "
    "at which the mean over seeds is highest, which is what Tianshou publishes (10 seeds, Gym -v3 tasks, an "
    "evaluation every 30,000 steps); best: each seed's own best evaluation; final: the one at 1M steps. "
    "robotrl_tuned takes the preset of the task where there is one, robotrl_shared one preset for all. sb3_zoo is "
    "one seed of Stable-Baselines3's PPO with rl-zoo's settings on the same -v5 tasks. Runs are single-threaded and "
    "may go side by side, so their times are no claim; those of sb3_zoo are processor time."
)


def record(file: lib.ResultFile, arm: str, task: str, seed: int, curve: training.Curve) -> None:
    """The final and the best evaluation of one run, and its curve."""
    file.add_curve(curve.rows(arm, task, seed))
    last = curve.points[-1]
    for what, point in (("best", curve.best), ("final", last)):
        name, seconds = f"{arm}/{task}/{what}", point.train_s
        file.record(
            name, seed, point.mean, unit="return", wall_s=seconds, env_steps=point.env_steps, commit=curve.commit,
            replace=True,
        )  # fmt: skip
    best = curve.best
    command.say(f"{arm}/{task} seed {seed}: final {last.mean:.0f}, best {best.mean:.0f} at {best.env_steps:,}")


def record_peak(file: lib.ResultFile, arm: str, task: str, seeds: Sequence[int]) -> None:
    """Every seed's value at the evaluation where the mean over seeds is highest."""
    rows = [row for row in lib.read_curves(file.curves) if (row["arm"], row["task"]) == (arm, task)]
    clock = {(row["env_steps"], row["seed"]): row["train_s"] for row in rows}
    complete = {step: means for step, means in plots.points(rows).items() if set(means) == set(seeds)}
    peak = max(complete, key=lambda step: sum(complete[step].values()))
    for seed, mean in complete[peak].items():
        file.record(
            f"{arm}/{task}/peak", seed, mean, unit="return", wall_s=clock[peak, seed], env_steps=peak, replace=True
        )  # fmt: skip


def appendix(data: dict[str, Any]) -> str:
    """Published PPO results beside ours, for the report."""

    def measured(arm: str, task: str, what: str) -> str:
        entry = data["arms"].get(f"{arm}/{task}/{what}")
        return f"{sum(entry['values']) / len(entry['values']):,.0f} (n = {len(entry['values'])})" if entry else ""

    def published(table: dict[str, float], task: str) -> str:
        return f"{table[task]:,.0f}" if task in table else ""

    columns = [("robotrl_tuned", "peak"), ("robotrl_shared", "peak"), ("robotrl_tuned", "final")]
    columns += [("robotrl_shared", "final"), ("sb3_zoo", "best"), ("sb3_zoo", "final")]
    heads = ["task", *(f"{arm}, {what}" for arm, what in columns)]
    heads += ["Tianshou, peak", "rl-zoo, final", "CleanRL, 8M steps"]
    lines = ["Means over seeds beside published ones, which are on older versions of the tasks."]
    lines += ["An empty cell was not measured.", ""]
    lines += ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for task in TASKS:
        cells = [task, *(measured(arm, task, what) for arm, what in columns)]
        cells += [published(table, task) for table in (TIANSHOU_1M, RL_ZOO_1M, CLEANRL_8M)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/ppo_return_1m", __doc__ or "", argv, jobs=True)
    file, work = command.result("spine/ppo_return_1m", opts, TARGET, NOTE), command.work("spine/ppo_return_1m", opts)
    steps, every = (8192, 4096) if opts.smoke else (STEPS, EVAL_EVERY)
    seeds = SEEDS[:2] if opts.smoke else SEEDS

    def ours(source: str, task: str, seed: int) -> None:
        settings = {
            "env": f"{task}-v5", "preset": PRESETS[source], "seed": seed, "total_env_steps": steps,
            "eval_every": every, "eval_episodes": 10, "checkpoint_every": 0, "num_threads": 1,
            "learner.two_threads": False, "video": False,
        }  # fmt: skip
        curve = training.robotrl(work / source / task / f"seed{seed}", settings, threads=1)
        for arm in missing[source, task, seed]:
            record(file, arm, task, seed, curve)

    def theirs(task: str) -> None:
        scale = 4 if opts.smoke else 1
        out = (work if opts.smoke else BASELINES) / f"{task}-v5" / "seed0.jsonl"
        options = ("--keep", "--steps", str(steps // scale), "--eval-every", str(every // scale))
        record(file, "sb3_zoo", task, 0, training.sb3_zoo(out, task, 0, *options, clock="train_cpu_s"))

    # Where a task has no values of its own, preset=auto is preset=shared: one run is the result of both arms.
    missing: dict[tuple[str, str, int], list[str]] = {}
    for seed, task, arm in product(seeds, TASKS, PRESETS):
        if not file.has(f"{arm}/{task}/final", seed):
            source = arm if f"{task}-v5" in presets("ppo") else "robotrl_shared"
            missing.setdefault((source, task, seed), []).append(arm)
    command.side_by_side([partial(ours, *run) for run in missing], opts.jobs)
    for arm, task in product(PRESETS, TASKS):
        record_peak(file, arm, task, seeds)
    command.conclude(file)  # what the target needs; the other library's curves take hours more
    command.side_by_side([partial(theirs, t) for t in TASKS if not file.has(f"sb3_zoo/{t}/final", 0)], opts.jobs)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
