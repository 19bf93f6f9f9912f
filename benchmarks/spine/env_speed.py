"""Environment steps a second, arms side by side: what `env_vs_envpool`, `env_vs_sb3` and `env_vs_raw` share.

64 environments, 2 threads, random actions, resets included; agent steps (each several physics steps). Every repeat is
a process of its own, and the arms take turns (A B A B ...), so that drift of the machine meets all of them alike.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from benchmarks import command, lib
from benchmarks.spine.tasks import TASKS

REPEATS = 5
SB3_REPEATS = 5
VECTOR_STEPS = {"robotrl": 1000, "envpool": 1000, "raw": 1000, "sb3_dummy": 100, "sb3_subproc": 100}
"""Timed steps of 64 environments. SB3's are slow and far from the bound: theirs are too few for most resets, which
favours them."""


def measure(
    file: lib.ResultFile, arms: tuple[str, ...], opts: Namespace, repeats: int = REPEATS
) -> list[dict[str, Any]]:
    """Record what is missing of every arm, task and repeat; returns what the workers reported, for the note."""
    facts = []
    num_envs, repeats = (8, 2) if opts.smoke else (64, repeats)
    for task in TASKS:
        for repeat in range(repeats):
            for arm in arms:
                name = f"{arm}/{task}"
                if file.has(name, repeat):
                    continue
                steps = 20 if opts.smoke else VECTOR_STEPS[arm]
                record = command.worker(
                    "benchmarks.spine.env_worker", "--arm", arm, "--task", task, "--num-envs", str(num_envs),
                    "--steps", str(steps), "--seed", str(repeat),
                )  # fmt: skip
                rate = record["env_steps"] / record["wall_s"]
                file.record(
                    name, repeat, rate, unit="env steps/s", wall_s=record["wall_s"], env_steps=record["env_steps"]
                )  # fmt: skip
                command.say(f"{name} repeat {repeat}: {rate:,.0f} env steps/s")
                facts.append(record | {"arm": arm, "task": task})
    return facts
