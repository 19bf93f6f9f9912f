"""Native environments against Stable-Baselines3's two vector environments on Gymnasium's tasks, 64 environments.

python -m benchmarks.spine.env_vs_sb3
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
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


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/env_vs_sb3", __doc__ or "", argv)
    file = command.result("spine/env_vs_sb3", opts, TARGET, NOTE)
    env_speed.measure(file, ("robotrl", "sb3_dummy", "sb3_subproc"), opts, env_speed.SB3_REPEATS)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
