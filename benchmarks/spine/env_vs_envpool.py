"""Native environments against EnvPool on the same tasks: 64 environments, 2 threads.

python -m benchmarks.spine.env_vs_envpool
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.spine import env_speed
from benchmarks.targets import every, ratio

BOUNDS = {"HalfCheetah": 1.2, "Walker2d": 1.2, "Hopper": 1.0, "Ant": 0.95, "Humanoid": 0.95}
TARGET = every(
    [ratio(f"robotrl/{task}", f"envpool/{task}", ">=", b, n=env_speed.REPEATS) for task, b in BOUNDS.items()]
)
NOTE = (
    "EnvPool 1.2.7 in synchronous mode (num_envs = batch_size = 64), ids -v5 of both, equal frame skips. EnvPool "
    "spends the call after an episode's end on the reset; those rows are not counted as steps. Its Ant and Humanoid "
    "observations carry contact forces that differ from zero (the command checks it in every repeat), and so do "
    "ours."
)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/env_vs_envpool", __doc__ or "", argv)
    file = command.result("spine/env_vs_envpool", opts, TARGET, NOTE)
    for fact in env_speed.measure(file, ("robotrl", "envpool"), opts):
        if fact["arm"] == "envpool" and fact["contact_forces"] is False:
            raise RuntimeError(
                f"EnvPool's {fact['task']} has zero contact forces here: the note of this claim is wrong."
            )
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
