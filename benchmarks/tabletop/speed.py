"""How fast the tabletop suite runs: against the simulator alone, with pictures, and in how much memory.

python -m benchmarks.tabletop.speed
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import command
from benchmarks.targets import every, ratio, value

TASKS = ("pick", "press", "store")
"""Three blocks; the cheapest model, in which the env's own work weighs most; drawer and blocks."""
REPEATS = 5
REAL_TIME = 75 * 20
"""Control steps a second that are 75 times real time at 20 Hz."""
TARGET = every(
    [
        *[ratio(f"robotrl/{task}", f"raw/{task}", ">=", 0.85, n=REPEATS) for task in TASKS],
        *[value(f"robotrl/{task}", ">=", REAL_TIME, n=REPEATS) for task in TASKS],
        value("pictures/pick", ">=", 600, n=REPEATS),
        value("memory/pick", "<=", 2.0, statistic="max", n=REPEATS),
    ]
)
NOTE = (
    "64 environments, 2 threads, random actions, resets included, control steps a second; every repeat is a process of "
    "its own and the arms take turns. `raw` is `mujoco.batch.Batch` of the same model with the same controls and "
    "simulation steps in the same calls, set to the environment's new episodes where those start: both simulate the "
    "same trajectories (checked), but `raw` solves no kinematics, observes and rewards nothing. `pictures`: 64x64 "
    "pictures a second of both cameras, the steps between them included. `memory`: the largest resident set of the "
    "process of `pictures`, in 10^9 bytes."
)


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("tabletop/speed", __doc__ or "", argv)
    file = command.result("tabletop/speed", opts, TARGET, NOTE)
    num_envs, repeats = (4, 2) if opts.smoke else (64, REPEATS)
    jobs = [(arm, task, 10 if opts.smoke else 150) for task in TASKS for arm in ("robotrl", "raw")]
    jobs.append(("pictures", "pick", 3 if opts.smoke else 40))
    for repeat in range(repeats):
        for arm, task, steps in jobs:
            if file.has(f"{arm}/{task}", repeat):
                continue
            record = command.worker(
                "benchmarks.tabletop.speed_worker", "--arm", arm, "--task", task, "--num-envs", str(num_envs),
                "--steps", str(steps), "--seed", str(repeat),
            )  # fmt: skip
            made, wall_s = record["made"], record["wall_s"]
            unit = "pictures/s" if arm == "pictures" else "control steps/s"
            file.record(f"{arm}/{task}", repeat, made / wall_s, unit=unit, wall_s=wall_s, env_steps=record["env_steps"])
            if arm == "pictures":
                file.record(f"memory/{task}", repeat, record["peak_gb"], unit="GB")
            command.say(f"{arm}/{task} repeat {repeat}: {made / wall_s:,.0f} {unit}")
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
