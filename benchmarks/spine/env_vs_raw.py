"""Native environments against the simulator alone (`mujoco.batch.Batch`): what observations, rewards and seeding cost.

python -m benchmarks.spine.env_vs_raw
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.spine import env_speed
from benchmarks.spine.tasks import TASKS
from benchmarks.targets import every, ratio

TARGET = every([ratio(f"robotrl/{task}", f"raw/{task}", ">=", 0.85, n=env_speed.REPEATS) for task in TASKS])
NOTE = (
    "Raw: controls in, frame_skip substeps, no observation and no reward; rows are reset when the native environment "
    "finishes them under the same actions. For Ant and Humanoid raw includes the pass that computes contact forces "
    "(a persistent batch, get_data and mj_rnePostConstraint for every row)."
)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/env_vs_raw", __doc__ or "", argv)
    file = command.result("spine/env_vs_raw", opts, TARGET, NOTE)
    env_speed.measure(file, ("robotrl", "raw"), opts)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
