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
    "Raw: `mujoco.batch.Batch` with controls in and frame_skip substeps, no observation, no reward, no episode "
    "logic; rows are set to the native environment's new episodes when it starts them under the same actions, so "
    "both simulate the same trajectories (checked). For Ant and Humanoid raw includes the pass that computes contact "
    "forces, done on the batch's threads as the native environment does it: the public way (get_data and "
    "mj_rnePostConstraint, row by row) is slower and would make raw the easier mark."
)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/env_vs_raw", __doc__ or "", argv)
    file = command.result("spine/env_vs_raw", opts, TARGET, NOTE)
    env_speed.measure(file, ("robotrl", "raw"), opts)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
