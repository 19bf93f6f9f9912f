"""PPO's env steps a second against Stable-Baselines3's at the same sizes, and against what the machine allows.

python -m benchmarks.spine.ppo_vs_sb3_speed
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import command
from benchmarks.targets import every, ratio

REPEATS = 5
ARMS = {
    "robotrl": ("robotrl", None, 60),
    "sb3_dummy": ("sb3_dummy", 1, 15),
    "sb3_dummy_2_threads": ("sb3_dummy", 2, 15),
    "sb3_native": ("sb3_native", 1, 15),
    "simulation": ("simulation", None, 100),
    "matrix": ("matrix", 1, 60),
}
"""Arm: (worker's arm, torch threads or None for what the arm chooses, timed iterations)."""

TARGET = every([ratio("robotrl", peer, ">=", 2.0, n=REPEATS) for peer in ("sb3_dummy", "sb3_dummy_2_threads")])
NOTE = (
    "HalfCheetah-v5, 64 environments x 32 steps, 10 epochs, minibatch 512, two 64-64 networks, CPU. SB3 without "
    "VecNormalize and without the Monitor wrapper, with one torch thread and with two; sb3_native is SB3's PPO on "
    "the native environments. robotrl runs as from the command line: normalisers, logging and checkpoints included. "
    "simulation: the native environments alone. matrix: the matrix products of acting and updating alone, each as "
    "torch.mm on one thread. bound = 1 / (1/simulation + 1/matrix), of the same repeat: simulation and arithmetic "
    "one after the other, nothing else. robotrl may use two cores for its update, the bound's matrix part uses one."
)


def appendix(data: dict[str, Any]) -> str:
    """The ratio to what the machine allows, for the report."""
    median = {name: statistics.median(arm["values"]) for name, arm in data["arms"].items()}
    if not {"robotrl", "bound"} <= set(median):
        return ""
    share = median["robotrl"] / median["bound"]
    return (
        f"An env step of robotrl takes {1e6 / median['robotrl']:.1f} us, simulation and matrix products one after the "
        f"other {1e6 / median['bound']:.1f} us ({1e6 / median['simulation']:.1f} + {1e6 / median['matrix']:.1f}): "
        f"robotrl runs at {share:.2f} of that bound."
    )


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/ppo_vs_sb3_speed", __doc__ or "", argv)
    file = command.result("spine/ppo_vs_sb3_speed", opts, TARGET, NOTE)
    work = command.work("spine/ppo_vs_sb3_speed", opts)
    unit = "env steps/s"
    for repeat in range(1 if opts.smoke else REPEATS):
        for name, (arm, threads, iterations) in ARMS.items():
            if file.has(name, repeat):
                continue
            count = ["--torch-threads", str(threads)] if threads else []
            record = command.worker(
                "benchmarks.spine.ppo_speed_worker", "--arm", arm, "--iterations", str(2 if opts.smoke else iterations),
                "--work", str(command.empty(work / f"{name}-{repeat}")), *count, threads=threads,
            )  # fmt: skip
            rate = record["env_steps"] / record["wall_s"]
            file.record(name, repeat, rate, unit=unit, wall_s=record["wall_s"], env_steps=record["env_steps"])
            command.say(f"{name} repeat {repeat}: {rate:,.0f} env steps/s")
        simulation, matrix = (file.arms[name].value_of(repeat) for name in ("simulation", "matrix"))
        file.record("bound", repeat, 1 / (1 / simulation + 1 / matrix), unit=unit, replace=True)
    status = command.conclude(file)
    print(appendix({"arms": {name: asdict(arm) for name, arm in file.arms.items()}}))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
