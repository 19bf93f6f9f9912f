"""Native environments against Stable-Baselines3's two vector environments on Gymnasium's tasks, 64 environments.

python -m benchmarks.spine.env_vs_sb3
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import command, lib
from benchmarks.spine import env_speed
from benchmarks.spine.tasks import TASKS
from benchmarks.targets import every, ratio

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
    bound_file = lib.RESULTS / "spine" / "env_vs_raw.json"
    if not bound_file.exists():
        return ""
    bound = json.loads(bound_file.read_text(encoding="utf-8"))

    def rate(source: dict[str, Any], arm: str, task: str) -> float:
        return float(statistics.median(source["arms"][f"{arm}/{task}"]["values"]))

    says = (
        "Why not more: the simulator alone on as many threads, with contact forces where the task needs them, and "
        "without observations, rewards and episodes, is what no environment that computes this physics can pass. Its "
        "speed and our share of it are those of [`env_vs_raw`](#env_vs_raw), measured in another run on the same "
        "machine. Medians:"
    )
    lines = [
        says, "",
        "| task | RobotRL / DummyVecEnv | simulator alone / DummyVecEnv | RobotRL / simulator alone |",
        "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for task in TASKS:
        theirs, most = rate(data, "sb3_dummy", task), rate(bound, "raw", task)
        share = rate(bound, "robotrl", task) / most
        lines.append(f"| {task} | {rate(data, 'robotrl', task) / theirs:.2f} | {most / theirs:.2f} | {share:.2f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/env_vs_sb3", __doc__ or "", argv)
    file = command.result("spine/env_vs_sb3", opts, TARGET, NOTE)
    env_speed.measure(file, ("robotrl", "sb3_dummy", "sb3_subproc"), opts, env_speed.SB3_REPEATS)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
