"""Native environments against Stable-Baselines3's two vector environments on Gymnasium's tasks, 64 environments.

python -m benchmarks.spine.env_vs_sb3
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import command
from benchmarks.spine import env_speed
from benchmarks.spine.tasks import TASKS
from benchmarks.targets import every, ratio

ARMS = ("robotrl", "sb3_dummy", "sb3_subproc", "raw")
TARGET = every(
    [
        ratio(f"robotrl/{task}", f"{peer}/{task}", ">=", 3.0, n=env_speed.SB3_REPEATS)
        for task in TASKS
        for peer in ("sb3_dummy", "sb3_subproc")
    ]
)
NOTE = (
    "Against both of SB3's vector environments, so also against the faster: DummyVecEnv (one thread, without the "
    "Monitor wrapper) and SubprocVecEnv (one process an environment). The native environments use 2 threads."
)


def appendix(data: dict[str, Any]) -> str:
    """How far the simulator alone is from the same peer, which is the most that a native environment could reach."""
    if not all(f"raw/{task}" in data["arms"] for task in TASKS):
        return "The simulator alone has not been measured yet."

    def rate(arm: str, task: str) -> float:
        return float(statistics.median(data["arms"][f"{arm}/{task}"]["values"]))

    says = (
        "raw is the simulator alone on as many threads, without observations, rewards and episodes (see env_vs_raw): "
        "what no environment that computes this physics can pass. Medians:"
    )
    lines = [says, ""]
    lines += [
        "| task | RobotRL / DummyVecEnv | simulator / DummyVecEnv | RobotRL / simulator |",
        "| --- | --- | --- | --- |",
    ]
    for task in TASKS:
        ours, theirs, bound = (rate(arm, task) for arm in ARMS if arm != "sb3_subproc")
        lines.append(f"| {task} | {ours / theirs:.2f} | {bound / theirs:.2f} | {ours / bound:.2f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/env_vs_sb3", __doc__ or "", argv)
    file = command.result("spine/env_vs_sb3", opts, TARGET, NOTE)
    env_speed.measure(file, ARMS, opts, env_speed.SB3_REPEATS)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
