"""Training time until an evaluation of HalfCheetah-v5 returns 3,000: PPO against Stable-Baselines3 with tuned settings.

python -m benchmarks.spine.ppo_vs_sb3_time_to_3000
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command, lib
from benchmarks.spine import training
from benchmarks.targets import ratio

SEEDS = (0, 1, 2)
THRESHOLD, NEVER_S, EVAL_EVERY = 3000.0, 900.0, 25_000
TARGET = ratio("sb3_zoo", "robotrl", ">=", 5.0, statistic="mean", n=len(SEEDS))
NOTE = (
    "Seconds of training until the first 10-episode deterministic evaluation with a mean of at least 3,000; the time "
    "of the evaluations is excluded for both, a run that never gets there counts 900 s. Both are evaluated every "
    "25,000 env steps (RobotRL at the end of the iteration in which they are reached). SB3 has rl-zoo's tuned "
    "settings and as many torch threads, one or two, as make it faster (arms sb3_speed_*). RobotRL runs its demo "
    "preset, on both cores."
)


def sb3_threads(file: lib.ResultFile, work: Path, opts: Namespace) -> int:
    """Torch threads with which Stable-Baselines3 trains faster, measured in a short run of each."""
    steps = 1024 if opts.smoke else 8192
    for threads in (1, 2):
        arm = f"sb3_speed_{threads}_thread{'s' * (threads > 1)}"
        if not file.has(arm, 0):
            out = work / arm / "seed0.jsonl"
            out.unlink(missing_ok=True)
            training.sb3_zoo(out, "HalfCheetah", 0, "--steps", str(steps), threads=threads)
            seconds = training.sb3_zoo_seconds(out)
            file.record(arm, 0, steps / seconds, unit="env steps/s", wall_s=seconds, env_steps=steps)
            command.say(f"{arm}: {steps / seconds:.0f} env steps/s")
    return 1 if file.arms["sb3_speed_1_thread"].median() >= file.arms["sb3_speed_2_threads"].median() else 2


def record(file: lib.ResultFile, arm: str, seed: int, curve: training.Curve) -> None:
    """The time of the first evaluation at or above the threshold, and the curve."""
    point = curve.first_at(THRESHOLD)
    seconds = min(point.train_s, NEVER_S) if point else NEVER_S
    env_steps = point.env_steps if point else max((p.env_steps for p in curve.points), default=0)
    file.add_curve(curve.rows(arm, "HalfCheetah", seed))
    file.record(arm, seed, seconds, unit="s", wall_s=seconds, env_steps=env_steps, commit=curve.commit)
    command.say(f"{arm} seed {seed}: {'reached' if point else 'NOT reached'}, {seconds:.1f} s, {env_steps:,} env steps")


def main(argv: Sequence[str] | None = None) -> int:
    opts = command.options("spine/ppo_vs_sb3_time_to_3000", __doc__ or "", argv)
    file = command.result("spine/ppo_vs_sb3_time_to_3000", opts, TARGET, NOTE)
    work = command.work("spine/ppo_vs_sb3_time_to_3000", opts)
    every, limit = (1000, 30.0) if opts.smoke else (EVAL_EVERY, NEVER_S)
    threads = sb3_threads(file, work, opts)
    for seed in SEEDS:
        if not file.has("robotrl", seed):
            settings = {"preset": "demo", "seed": seed, "eval_every": every, "eval_episodes": 10, "video": False}
            if opts.smoke:
                settings |= {"total_env_steps": 4096}
            record(file, "robotrl", seed, training.robotrl(work / "robotrl" / f"seed{seed}", settings, threads=None))
        if not file.has("sb3_zoo", seed):
            options = ("--eval-every", str(every), "--stop-at", str(THRESHOLD), "--limit-s", str(limit))
            curve = training.sb3_zoo(
                work / "sb3_zoo" / f"seed{seed}.jsonl", "HalfCheetah", seed, *options, threads=threads
            )
            record(file, "sb3_zoo", seed, curve)
    return command.conclude(file)


if __name__ == "__main__":
    raise SystemExit(main())
