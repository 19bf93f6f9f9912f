"""Returns at a million env steps: PROPS, PPO with a buffer of old data, and PPO, each with its own tuned values.

python -m benchmarks.onpolicy.returns --jobs 2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

from benchmarks import command, lib
from benchmarks.onpolicy.tuned import ARMS, settings
from benchmarks.spine import training
from benchmarks.targets import every, verdict, verdict_of
from robotrl.functional.statistics import iqm, mean, student_interval

SEEDS = tuple(range(10))
LEAST = 5
TASKS = ("Hopper", "HalfCheetah")
STEPS, EVAL_EVERY = 1_000_000, 40_000
BASELINES = ("ppo", "ppo_buffer")
KINDS = ("auc", "final")
PAIRS = [f"props_minus_{other}/{task}/{kind}" for task, other, kind in product(TASKS, BASELINES, KINDS)]
TARGET = every([verdict(pair, n=LEAST) for pair in PAIRS])
NOTE = (
    "Deterministic evaluations of 10 episodes every 40,000 env steps, always the same episodes. auc: the mean of all "
    "evaluations; final: the last. Every arm has the values that the authors found best for it (HalfCheetah: over 2M "
    "steps, here 1M) and is not tuned anew, though trials with PPO-Buffer's values suggest that PROPS' own are not its "
    "best here (docs/learners/props.md); the target's learner is the same, learner=ppo. Differences are by seed. Any "
    "verdict meets the claim: supported (Student's 95 % interval of the mean lies above zero), refuted (below), or "
    "undecided. Ten seeds where the time allows, five at least. Runs may go side by side, so their times are no claim."
)


def appendix(data: dict[str, Any]) -> str:
    """Paired differences with their intervals and what follows from them, for the report."""
    lines = ["| PROPS minus | n | mean difference, Student's 95 % interval | IQM | seeds above zero | verdict |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for pair in PAIRS:
        if pair not in data["arms"]:
            continue
        if len(values := data["arms"][pair]["values"]) < 2:
            continue
        low, high = student_interval(values)
        wins = sum(v > 0 for v in values)
        lines.append(
            f"| {pair.removeprefix('props_minus_')} | {len(values)} | {mean(values):,.0f} [{low:,.0f}, {high:,.0f}] | "
            f"{iqm(values):,.0f} | {wins} | {verdict_of(values) if len(values) >= LEAST else 'too few seeds'} |"
        )
    return "\n".join(lines)


def record(file: lib.ResultFile, arm: str, task: str, seed: int, curve: training.Curve) -> None:
    """Area under the curve, final evaluation, and the curve."""
    file.add_curve(curve.rows(arm, task, seed))
    last = curve.points[-1]
    values = {"auc": curve.area, "final": last.mean}
    for kind, found in values.items():
        file.record(
            f"{arm}/{task}/{kind}", seed, found, unit="return", wall_s=last.train_s, env_steps=last.env_steps,
            commit=curve.commit,
        )  # fmt: skip
    command.say(
        f"{arm}/{task} seed {seed}: auc {values['auc']:.0f}, final {last.mean:.0f}, {last.train_s / 60:.1f} min"
    )


def record_differences(file: lib.ResultFile) -> None:
    """By seed, where both runs are there."""
    for task, other, kind in product(TASKS, BASELINES, KINDS):
        ours, theirs = (file.arms.get(f"{arm}/{task}/{kind}") for arm in ("props", other))
        if ours is None or theirs is None:
            continue
        for seed in sorted({*ours.seeds} & {*theirs.seeds}):
            difference = ours.value_of(seed) - theirs.value_of(seed)
            file.record(f"props_minus_{other}/{task}/{kind}", seed, difference, unit="return", replace=True)


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/returns"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    steps, every_ = (8192, 4096) if opts.smoke else (STEPS, EVAL_EVERY)

    def run(arm: str, task: str, seed: int) -> None:
        common = {"seed": seed, "total_env_steps": steps, "eval_every": every_, "eval_episodes": 10}
        curve = training.robotrl(work / arm / task / f"seed{seed}", settings(arm, task) | common, threads=1)
        record(file, arm, task, seed, curve)
        record_differences(file)

    wanted = product(SEEDS[:2] if opts.smoke else SEEDS, TASKS, ARMS)
    runs = [partial(run, a, task, seed) for seed, task, a in wanted if not file.has(f"{a}/{task}/final", seed)]
    command.side_by_side(runs, opts.jobs)
    record_differences(file)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
