"""What the claims about combination locks share: offline data, runs, and when a lock counts as solved.

Every seed has a lock of its own (`instance`), offline data of its own and a run of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, lib
from benchmarks.spine import training

EPISODES = 50_000
"""Of the offline data."""
BLOCK, WINDOW = 1_000, 50
"""A lock is solved when the share of episodes that open it, in the last 50 blocks of 1,000 env steps, is above 1/2."""
CURVE = "share of training episodes that open"
"""What the curves of these claims show."""
DATA_SEED = 500_000
STAGES = 6
"""A run is made in so many parts, after each of which it is asked whether the lock is solved."""
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "hnpg": ("hnpg", {}),
    "trpo": ("hnpg", {"learner.arm": "online"}),
    "offline": ("hnpg", {"learner.arm": "offline"}),
    "rlpd": ("sac", {}),
}
"""Arm to learner and settings. TRPO is HNPG's code without the recorded episodes: a policy for each step, as its
authors compare it."""


@dataclass(frozen=True, slots=True)
class Block:
    """At least 1,000 env steps of training."""

    env_steps: int
    success: float
    """Share of its episodes that opened the lock."""
    episodes: float
    train_s: float


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock: what `env=` and its options are."""

    env: str
    horizon: int
    instance: int
    features: Path | None = None

    @property
    def task(self) -> str:
        """For the tables."""
        return f"H{self.horizon}"

    def settings(self) -> dict[str, Any]:
        """Words of the command line."""
        options = {"horizon": self.horizon, "instance": self.instance}
        more = {} if self.features is None else {"env.options.features": str(self.features)}
        return {"env": self.env, **{f"env.options.{k}": v for k, v in options.items()}, **more}


def offline(folder: Path, lock: Lock, *, smoke: bool) -> Path:
    """The offline data of a lock, recorded once: its expert, who errs once an episode on average."""
    episodes = 60 if smoke else EPISODES
    out = folder / f"{lock.env.replace('/', '-')}-{lock.task}-{lock.instance}-{episodes}"
    if not (out / "meta" / "info.json").is_file() or not out.with_suffix(".done").exists():
        words = [f"{key}={value}" for key, value in lock.settings().items()]
        words += ["policy=expert", "explore=true", f"out={out}", f"episodes={episodes}", "num_threads=1"]
        words += [f"seed={DATA_SEED + lock.instance}", f"num_envs={min(500, episodes)}"]
        command.execute([*command.ROBOTRL, "collect", *words], log=out.with_name(out.name + ".log"))
        out.with_suffix(".done").touch()
    return out


def train(run: Path, arm: str, lock: Lock, seed: int, env_steps: int, data: Path | None, *, smoke: bool) -> str | None:
    """Train until the lock is solved, in stages, unless the run is there; the commit of the code that made it.

    Args:
        run: directory of the run.
        arm: key of `LEARNERS`.
        lock: what to open.
        seed: of the run.
        env_steps: at most; what is solved earlier ends with its stage.
        data: the offline data; None: the arm needs none.
        smoke: tiny sizes instead.
    """
    learner, settings = LEARNERS[arm]
    own: dict[str, Any] = {
        "learner": learner, **lock.settings(), "preset": lock.env, "seed": seed, "eval_every": 0,
        "eval_episodes": 100, "checkpoint_every": 0, "num_threads": 1, "video": False, **settings,
    }  # fmt: skip
    if learner == "hnpg":  # about 1,000 env steps an iteration, as the authors
        own |= {"num_envs": -(-BLOCK // lock.horizon), "schedule.rollout_steps": lock.horizon}
    if data is not None:
        own["replay.demos"] = str(data)
    if smoke:
        env_steps, own["eval_episodes"] = 3 * BLOCK, 4
    stages = [-(-env_steps * k // STAGES) for k in range(1, STAGES + 1)]
    commit = training.robotrl(run, own | {"total_env_steps": stages[0]}, threads=1).commit
    for total in stages[1:]:
        found = blocks(run)
        if solved(found):
            break
        if training.metrics(run)[-1]["env_steps"] < total:
            words = [f"resume={run}", f"total_env_steps={total}"]
            command.execute([*command.ROBOTRL, "train", *words], log=run.with_name(f"{run.name}-{total}.log"))
    return commit


def blocks(run: Path) -> list[Block]:
    """The run's training episodes, iterations joined until they make up 1,000 env steps."""
    found: list[Block] = []
    episodes = successes = 0.0
    begun = 0
    for row in training.metrics(run):
        count = float(row.get("train/episodes", 0.0))
        episodes, successes = episodes + count, successes + count * float(row.get("train/success", 0.0))
        if row["env_steps"] - begun >= BLOCK and episodes:
            seconds = float(row["time/elapsed"] - row["time/evaluation"])
            found.append(Block(int(row["env_steps"]), successes / episodes, episodes, seconds))
            begun, episodes, successes = int(row["env_steps"]), 0.0, 0.0
    return found


def solved(found: Sequence[Block]) -> Block | None:
    """The block at which the moving average first exceeds 1/2; None: never."""
    for end in range(WINDOW, len(found) + 1):
        if moving_average(found[:end]) > 0.5:
            return found[end - 1]
    return None


def moving_average(found: Sequence[Block]) -> float:
    """The share of the episodes in the last 50 blocks that opened the lock."""
    last = found[-WINDOW:]
    return sum(b.success * b.episodes for b in last) / sum(b.episodes for b in last)


def record(file: lib.ResultFile, arm: str, lock: Lock, seed: int, run: Path, commit: str | None) -> None:
    """`<arm>/<task>/...`: solved_at (the run's length where it never was), solved (1 or 0), success; and the curve."""
    found = blocks(run)
    when, last = solved(found), found[-1]
    at = when or last
    values: Mapping[str, tuple[float, str]] = {
        "solved_at": (at.env_steps, "env steps"),
        "solved": (float(when is not None), "1 where solved"),
        "success": (moving_average(found), "share of the last 50 blocks' episodes"),
        "minutes": (last.train_s / 60.0, "min"),
    }
    for name, (value, unit) in values.items():
        file.record(
            f"{arm}/{lock.task}/{name}", seed, value, unit=unit, wall_s=at.train_s, env_steps=last.env_steps,
            commit=commit, replace=True,
        )  # fmt: skip
    file.add_curve([
        {
            "arm": arm, "task": lock.task, "seed": seed, "env_steps": block.env_steps, "episode": 0,
            "return": block.success, "train_s": block.train_s,
        }
        for block in found
    ])  # fmt: skip
    said = f"solved at {at.env_steps:,} env steps, {at.train_s:.0f} s" if when else "never solved"
    command.say(f"{arm}/{lock.task} seed {seed}: {said}; success at the end {values['success'][0]:.3f}")
