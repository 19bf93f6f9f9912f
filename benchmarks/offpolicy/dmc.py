"""What the claims about SAC on the DeepMind Control suite share: a run, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import command, lib
from benchmarks.spine import training

SMOKE = {
    "total_env_steps": 320, "eval_every": 160, "eval_episodes": 1, "policy.hidden": [16], "env.time_limit": 50,
    "schedule.warmup_env_steps": 100, "learner.batch_size": 16, "learner.random_env_steps": 100,
}  # fmt: skip
"""What makes a run of `--smoke`."""

BF16 = {"learner.matmul_precision": "bf16"}
"""Matrix products in bfloat16: what claims about returns use, since `sac_bf16` found learning curves no worse so."""
EXPERT_STEPS, DEMO_SEED = 50_000, 500_000


def train(
    run_dir: Path, task: str, seed: int, env_steps: int, settings: Mapping[str, Any], *, smoke: bool
) -> training.Curve:
    """SAC on `dmc/<task>`, single-threaded, for `env_steps` env steps, unless it is there already; its evaluations.

    Args:
        run_dir: of the run.
        task: `<domain>-<task>`.
        seed: of the run.
        env_steps: how many; an action repeat of two makes twice as many frames.
        settings: what differs from the task's preset, or `preset` itself.
        smoke: tiny sizes instead.
    """
    own = {
        "learner": "sac", "env": f"dmc/{task}", "preset": "auto", "seed": seed, "total_env_steps": env_steps,
        "eval_every": 5_000, "eval_episodes": 10, "checkpoint_every": 0, "num_threads": 1, "video": False,
    }  # fmt: skip
    return training.robotrl(run_dir, own | dict(settings) | (SMOKE if smoke else {}), threads=1)


def demos(folder: Path, expert: str, task: str, seed: int, episodes: int, *, smoke: bool) -> Path:
    """`episodes` of `task` that SAC's policy for `expert`, a task of the same robot, plays; made once.

    Args:
        folder: where the expert's run and the data sets are kept.
        expert: the task it was trained on.
        task: the task it plays, whose rewards are recorded.
        seed: of the episodes.
        episodes: how many.
        smoke: tiny sizes instead.
    """
    run, out = folder / expert, folder / f"{task}-demos" / f"seed{seed}-{episodes}"
    train(run, expert, 0, EXPERT_STEPS, BF16, smoke=smoke)
    if not (out / "meta" / "info.json").is_file():
        words = [f"policy_dir={run / 'policy' / 'best'}", f"env=dmc/{task}", "env.action_repeat=2", f"out={out}"]
        words += [f"episodes={episodes}", f"seed={DEMO_SEED + seed}", "num_envs=1", "num_threads=1"]
        words += ["env.time_limit=50"] if smoke else []
        command.execute([*command.ROBOTRL, "collect", *words], log=out.with_name(out.name + ".log"))
    return out


def record(file: lib.ResultFile, arm: str, task: str, seed: int, curve: training.Curve) -> None:
    """The last evaluation as `<arm>/<task>`, and the curve."""
    last = curve.points[-1]
    file.add_curve(curve.rows(arm, task, seed))
    file.record(
        f"{arm}/{task}", seed, last.mean, unit="return", wall_s=last.train_s, env_steps=last.env_steps,
        commit=curve.commit,
    )  # fmt: skip
    command.say(
        f"{arm}/{task} seed {seed}: {last.mean:.0f} at {last.env_steps:,} env steps, {last.train_s / 60:.1f} min"
    )
