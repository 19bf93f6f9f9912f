"""How often the scripted experts succeed: 200 episodes of every task, with noise and speed variation.

python -m benchmarks.tabletop.experts
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks import command, lib
from benchmarks.targets import every, value
from robotrl.envs import make_vec
from robotrl.envs.tabletop.experts import Expert
from robotrl.envs.tabletop.tasks import TASKS
from robotrl.functional.statistics import wilson_interval
from robotrl.runners.evaluate import evaluate

EPISODES = 200
TARGET = every([value(task, ">=", 0.95, statistic="mean", n=EPISODES) for task in TASKS])
NOTE = (
    "One value an episode, 1 where the goal was kept for half a second within the task's time limit; episode i starts "
    "from (0, i). The experts read ground truth and act as demonstrators: each episode at a speed of its own "
    "(70 to 130 % of the usual one), with noise on the motion that lasts some steps."
)


def measure(file: lib.ResultFile, task: str, episodes: int) -> None:
    """Play one task and record every episode."""
    env = make_vec(f"tabletop/{task}", num_envs=min(64, episodes))
    start = time.perf_counter()
    result = evaluate(Expert(None, env.env_spec), env, episodes=episodes, seed=0, explore=True)
    share = (time.perf_counter() - start) / episodes
    env.close()
    for i, (success, length) in enumerate(zip(result.successes or (), result.lengths, strict=True)):
        file.record(task, i, float(success), unit="success", wall_s=share, env_steps=length)
    command.say(f"{task}: {sum(result.successes or ())} of {episodes} in {share * episodes:.0f} s")


def appendix(data: dict[str, Any]) -> str:
    """Rates with their Wilson intervals, and how long a success takes."""
    lines = [
        "| task | successes | rate | 95 % Wilson interval | mean length of a success, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for task, arm in data["arms"].items():
        good, n = int(sum(arm["values"])), len(arm["values"])
        low, high = wilson_interval(good, n)
        steps = [length for length, value in zip(arm["env_steps"], arm["values"], strict=True) if value]
        seconds = f"{sum(steps) / len(steps) / 20:.1f}" if steps else ""
        lines.append(f"| {task} | {good} of {n} | {good / n:.3f} | [{low:.3f}, {high:.3f}] | {seconds} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("tabletop/experts", __doc__ or "", argv)
    file = command.result("tabletop/experts", opts, TARGET, NOTE)
    episodes = 2 if opts.smoke else EPISODES
    for task in TASKS:
        if not file.has(task, episodes - 1):
            file.forget(task)
            measure(file, task, episodes)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
