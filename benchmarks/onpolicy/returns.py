"""Returns at a million env steps: PROPS, PPO with a buffer of old data, and PPO, tuned alike and as their authors did.

python -m benchmarks.onpolicy.returns --jobs 2
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

from benchmarks import command, lib
from benchmarks.onpolicy.tuned import ARMS, TUNED, Values, candidates, settings
from benchmarks.spine import training
from benchmarks.targets import every, verdict, verdict_of
from robotrl.functional.statistics import iqm, mean, student_interval

SEEDS = tuple(range(10))
LEAST = 5
TASKS = ("Hopper", "HalfCheetah")
STEPS, EVAL_EVERY = 1_000_000, 40_000
BASELINES = ("ppo", "ppo_buffer")
KINDS = ("auc", "final")
CHOICES = ("tuned", "authors")
COMPARED = [*product(TASKS, CHOICES, BASELINES, KINDS)]
PAIRS = [f"props_minus_{other}/{task}-{choice}/{kind}" for task, choice, other, kind in COMPARED]
TARGET = every([verdict(pair, n=LEAST) for pair in PAIRS])
NOTE = (
    "Deterministic evaluations of 10 episodes every 40,000 env steps, always the same episodes. auc: the mean of all "
    "evaluations; final: the last. Every arm runs with the same pairs of n (env steps a target batch) and learning "
    "rate: those that the authors found best on the task for any arm (HalfCheetah: over 2M steps, here 1M), and 2,048 "
    "and 3e-4, which is usual for PPO; what PROPS alone has is the authors'. tuned: for each seed the pair whose mean "
    "auc over the other seeds is highest, so that no arm is judged on runs by which its values were chosen. authors: "
    "the pair that the authors found best for this arm. The target's learner is the same, learner=ppo. Differences "
    "are by seed; those of tuned share the runs that chose, so their intervals are approximate. Any verdict meets the "
    "claim: supported (Student's 95 % interval of the mean lies above zero), refuted (below), or undecided. Ten seeds "
    "where the time allows, five at least. Runs may go side by side, so their times are no claim."
)


def cell(task: str, values: Values) -> str:
    """A task with values, as the curves and the names of arms have it."""
    return f"{task}-{values.label}"


def record(file: lib.ResultFile, arm: str, at: str, seed: int, curve: training.Curve) -> None:
    """Area under the curve, final evaluation, and the curve; `at` is a `cell`."""
    file.add_curve(curve.rows(arm, at, seed))
    last = curve.points[-1]
    values = {"auc": curve.area, "final": last.mean}
    for kind, found in values.items():
        file.record(
            f"{arm}/{at}/{kind}", seed, found, unit="return", wall_s=last.train_s, env_steps=last.env_steps,
            commit=curve.commit,
        )  # fmt: skip
    command.say(f"{arm}/{at} seed {seed}: auc {values['auc']:.0f}, final {last.mean:.0f}, {last.train_s / 60:.1f} min")


def chosen(arms: dict[str, lib.Arm], arm: str, task: str) -> dict[int, Values]:
    """By seed, the values that are best on the other seeds; of seeds that every pair of values has, if two or more."""
    found = {values: arms.get(f"{arm}/{cell(task, values)}/auc", lib.Arm("")) for values in candidates(task)}
    seeds = set.intersection(*({*each.seeds} for each in found.values()))

    def best_without(seed: int) -> Values:
        return max(found, key=lambda values: mean([found[values].value_of(other) for other in seeds - {seed}]))

    return {seed: best_without(seed) for seed in sorted(seeds)} if len(seeds) > 1 else {}


def record_derived(file: lib.ResultFile) -> None:
    """What follows from the runs there are: each arm tuned, and the differences."""
    for task, arm in product(TASKS, ARMS):
        for seed, values in chosen(file.arms, arm, task).items():
            for kind in KINDS:
                found = file.arms[f"{arm}/{cell(task, values)}/{kind}"].value_of(seed)
                file.record(f"{arm}/{task}-tuned/{kind}", seed, found, unit="return", replace=True)
    for (task, choice, other, kind), pair in zip(COMPARED, PAIRS, strict=True):
        for seed, difference in differences(file.arms, task, choice, other, kind).items():
            file.record(pair, seed, difference, unit="return", replace=True)


def differences(arms: dict[str, lib.Arm], task: str, choice: str | Values, other: str, kind: str) -> dict[int, float]:
    """PROPS minus another arm by seed, where both runs are there."""
    ours, theirs = (arms.get(f"{arm}/{_at(arm, task, choice)}/{kind}", lib.Arm("")) for arm in ("props", other))
    return {seed: ours.value_of(seed) - theirs.value_of(seed) for seed in ours.seeds if seed in theirs.seeds}


def _at(arm: str, task: str, choice: str | Values) -> str:
    if choice == "tuned":
        return f"{task}-tuned"
    return cell(task, choice if isinstance(choice, Values) else TUNED[arm][task])


def appendix(data: dict[str, Any]) -> str:
    """Every arm with every pair of values, what was chosen, and paired differences with what follows from them."""
    arms = {name: lib.Arm(**arm) for name, arm in data["arms"].items()}
    return "\n".join([*_means(arms), "", *_verdicts(arms)])


def _means(arms: dict[str, lib.Arm]) -> list[str]:
    lines = ["| task | values | kind | " + " | ".join(ARMS) + " |", "| --- " * (3 + len(ARMS)) + "|"]

    def measured(arm: str, at: str, kind: str) -> str:
        entry = arms.get(f"{arm}/{at}/{kind}")
        return f"{mean(entry.values):,.0f} (n = {len(entry.values)})" if entry else ""

    for task in TASKS:
        picks = [chosen(arms, arm, task) for arm in ARMS]
        for values in candidates(task):
            own = [" *" if TUNED[arm][task] == values else "" for arm in ARMS]
            for kind in KINDS:
                cells = [measured(arm, cell(task, values), kind) + mark for arm, mark in zip(ARMS, own, strict=True)]
                lines.append(f"| {task} | {values} | {kind} | " + " | ".join(cells) + " |")
            counts = [f"for {sum(v == values for v in p.values())} of {len(p)} seeds" if p else "" for p in picks]
            lines.append(f"| {task} | {values} | chosen | " + " | ".join(counts) + " |")
    return [*lines, "", "*: the authors' values for this arm and task."]


def _verdicts(arms: dict[str, lib.Arm]) -> list[str]:
    head = "| task | values | PROPS minus | n | mean difference, Student's 95 % interval | IQM | seeds > 0 | verdict |"
    lines = [head, "| --- " * 8 + "|"]
    named = {"tuned": "tuned", "authors": "the authors' of each arm"}
    for task in TASKS:
        choices: list[str | Values] = [*CHOICES, *candidates(task)]
        for choice, other, kind in product(choices, BASELINES, KINDS):
            found = [*differences(arms, task, choice, other, kind).values()]
            if len(found) < 2:
                continue
            low, high = student_interval(found)
            words = str(choice) if isinstance(choice, Values) else named[choice]
            lines.append(
                f"| {task} | {words} | {other}, {kind} | {len(found)} | {mean(found):,.0f} [{low:,.0f}, {high:,.0f}] | "
                f"{iqm(found):,.0f} | {sum(v > 0 for v in found)} | "
                f"{verdict_of(found) if len(found) >= LEAST else 'too few seeds'} |"
            )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    claim = "onpolicy/returns"
    opts = command.options(claim, __doc__ or "", argv, jobs=True)
    file, work = command.result(claim, opts, TARGET, NOTE), command.work(claim, opts)
    steps, every_ = (8192, 4096) if opts.smoke else (STEPS, EVAL_EVERY)
    recording = threading.Lock()

    def run(arm: str, task: str, values: Values, seed: int) -> None:
        common = {"seed": seed, "total_env_steps": steps, "eval_every": every_, "eval_episodes": 10}
        at = cell(task, values)
        curve = training.robotrl(work / arm / at / f"seed{seed}", settings(arm, task, values) | common, threads=1)
        with recording:
            record(file, arm, at, seed, curve)
            record_derived(file)

    wanted = [
        (arm, task, values, seed)
        for seed, task, arm in product(SEEDS[:2] if opts.smoke else SEEDS, TASKS, ARMS)
        for values in candidates(task)
        if not file.has(f"{arm}/{cell(task, values)}/final", seed)
    ]
    command.side_by_side([partial(run, *each) for each in wanted], opts.jobs)
    record_derived(file)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
