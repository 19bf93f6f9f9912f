"""What the claims of the suite share: demonstrations of four tasks, training on them, and evaluation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, lib
from benchmarks.manipulation.demos import TASKS
from robotrl.analysis.runs import load_run
from robotrl.envs.config import EnvConfig, PixelsConfig
from robotrl.policies.io import load_policy
from robotrl.runners.eval_result import EvalResult
from robotrl.runners.tasks import evaluate_tasks, swapped

NAMED = ("pick", "place", "press")
"""Those whose instruction names one of several things in the scene."""
EPISODES = 50
EVAL_SEED = 20_000
CAMERAS = ["front", "wrist"]
NOTE = (
    "robotrl collect records 100 successful episodes of the scripted expert (with noise of a fifth of its motion, each "
    "at a speed of its own; what is imitated is what it meant to do) of each of the tasks pick, place, open_drawer and "
    "press, from two cameras of 64x64 pixels, without the colours that a task holds out; distractors stand beside what "
    "is named. One policy is trained on all of them from pictures, proprioception and words with learner=bc, and then "
    "plays 50 new episodes of each task. "
)


def env(*, split: str = "train") -> EnvConfig:
    """What the policies act in, whichever the task."""
    return EnvConfig(
        "tabletop/pick",
        options={"split": split},
        groups=["state", "instruction", *(f"image/{camera}" for camera in CAMERAS)],
        pixels=PixelsConfig(64, 64, list(CAMERAS), replace_state=False),
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """A policy and what it took."""

    run: Path
    minutes: float
    """Of training, on the wall, without evaluation."""
    updates: int


def train(run: Path, settings: Mapping[str, Any], *, threads: int = 2) -> Trained:
    """Train in the folder `run` on so many threads; a run that was stopped goes on, a finished one stays as it is."""
    if not (run / "policy" / "final").is_dir():
        if (run / "config.yaml").is_file():
            words = [f"resume={run}"]
        else:
            words = [f"{key}={value}" for key, value in settings.items()]
            words = [
                "learner=bc",
                "learner.label=expert_action",
                *words,
                f"num_threads={threads}",
                "eval_episodes=1",
                "video=false",
                f"run_dir={run}",
            ]
        command.execute(
            [sys.executable, "-m", "robotrl.cli", "train", *words], threads=threads, log=run.parent / "log.txt"
        )
    metrics = load_run(run).metrics
    seconds = float((metrics["time/update"] + metrics["time/collect"]).sum())
    return Trained(run, seconds / 60.0, int(metrics["updates"].iloc[-1]))


def play(
    trained: Trained, tasks: Sequence[str] = TASKS, *, episodes: int, split: str = "train", swap: bool = False
) -> EvalResult:
    """Its final policy's episodes, 16 side by side."""
    policy = load_policy(trained.run)
    where = env(split=split)
    return evaluate_tasks(
        policy, swapped(where) if swap else where, tasks, episodes=episodes, seed=EVAL_SEED, num_envs=16
    )


def rates(result: EvalResult) -> dict[str, float]:
    """Share of successes by task."""
    return {share.name.rpartition("/")[2]: share.rate for share in result.by("task")}


def record(file: lib.ResultFile, arm: str, seed: int, trained: Trained, *, episodes: int) -> float:
    """Success on the four tasks, together and each, and the minutes of training."""
    found = rates(play(trained, episodes=episodes))
    mean = sum(found.values()) / len(found)
    values = {"success": mean, **found, "minutes": trained.minutes}
    for name, value in values.items():
        unit = "min" if name == "minutes" else "share of episodes"
        file.record(
            f"{arm}/{name}", seed, value, unit=unit, wall_s=60.0 * trained.minutes, env_steps=trained.updates,
            replace=True,
        )  # fmt: skip
    command.say(f"{arm} seed {seed}: {mean:.2f} {found}, {trained.updates} updates in {trained.minutes:.1f} min")
    return mean


def sizes(*, smoke: bool, updates: int) -> dict[str, Any]:
    """Settings of every run: how many updates, and where they are saved."""
    tiny = {"policy.vla.size": "micro", "learner.batch_size": 8, "env.time_limit": 20, "schedule.rollout_steps": 4,
            "schedule.updates": 4, "policy.wam.autoencoder_steps": 2}  # fmt: skip
    return {"total_env_steps": 8 if smoke else updates, "checkpoint_every": 4 if smoke else 500} | (
        tiny if smoke else {}
    )
