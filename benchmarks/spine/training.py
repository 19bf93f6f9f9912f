"""Training runs of the PPO claims: start one from the command line, and read its evaluations with the training time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, lib, provenance


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation on a learning curve."""

    env_steps: int
    returns: list[float]
    train_s: float
    """Wall seconds of training up to here, evaluations excluded."""

    @property
    def mean(self) -> float:
        """Mean return of the episodes."""
        return sum(self.returns) / len(self.returns)


@dataclass(frozen=True, slots=True)
class Curve:
    """The evaluations of one run in order, and the commit of the code that made it."""

    points: list[Point]
    commit: str | None = None

    @property
    def best(self) -> Point:
        """The evaluation with the highest mean."""
        return max(self.points, key=lambda point: point.mean)

    @property
    def area(self) -> float:
        """Area under the curve: the mean of all evaluations."""
        return sum(point.mean for point in self.points) / len(self.points)

    def first_at(self, threshold: float) -> Point | None:
        """The first evaluation whose mean is at least `threshold`."""
        return next((point for point in self.points if point.mean >= threshold), None)

    def rows(self, arm: str, task: str, seed: int) -> list[dict[str, Any]]:
        """One row an evaluation episode, for the Parquet file."""
        return [
            {
                "arm": arm, "task": task, "seed": seed, "env_steps": p.env_steps, "episode": i, "return": r,
                "train_s": p.train_s,
            }
            for p in self.points
            for i, r in enumerate(p.returns)
        ]  # fmt: skip


def robotrl(run_dir: Path, settings: Mapping[str, Any], *, threads: int | None) -> Curve:
    """Train with `robotrl train` unless `run_dir` holds the finished run already; returns its curve.

    Args:
        run_dir: under `benchmarks/work`. A run that was stopped there with a checkpoint goes on, if the code and the
            settings are the same; whatever else an interrupted run left is removed.
        settings: `key: value` of the command line.
        threads: BLAS and OpenMP threads of the process, None: its own choice. Also pass `num_threads` to limit RobotRL.
    """
    done = run_dir.with_name(run_dir.name + ".done")
    if not done.exists():
        overrides = [f"{key}={json.dumps(v) if isinstance(v, bool) else v}" for key, v in settings.items()]
        started, begun = run_dir.with_name(run_dir.name + ".started"), "\n".join([provenance.commit(), *overrides])
        same = started.exists() and started.read_text(encoding="utf-8") == begun
        if same and _finished(run_dir):  # only the mark is missing: the benchmark was stopped, its run was not
            words = []
        elif same and any((run_dir / "checkpoints").glob("*")):
            words = [f"resume={run_dir}"]
        else:
            words = [*overrides, f"run_dir={command.empty(run_dir)}"]
            started.parent.mkdir(parents=True, exist_ok=True)
            started.write_text(begun, encoding="utf-8")
        if words:
            log = run_dir.with_name(run_dir.name + ".log")
            command.execute([*command.ROBOTRL, "train", *words], threads=threads, log=log)
        done.write_text(provenance.commit() + "\n", encoding="utf-8")
    return Curve(robotrl_points(run_dir), commit_of(run_dir))


def _finished(run_dir: Path) -> bool:
    """Whether a run of `robotrl` reached its goal and wrote everything."""
    meta = run_dir / "meta.json"
    return meta.exists() and "finished_env_steps" in json.loads(meta.read_text(encoding="utf-8"))


def recorded(file: lib.ResultFile, arm: str, task: str, seed: int) -> Curve:
    """The curve of a run that a claim has recorded, with the commits of all that it recorded."""
    returns: dict[int, list[float]] = {}
    clock: dict[int, float] = {}
    for row in lib.read_curves(file.curves):
        if (row["arm"], row["task"], row["seed"]) == (arm, task, seed):
            returns.setdefault(row["env_steps"], []).append(row["return"])
            clock[row["env_steps"]] = row["train_s"]
    return Curve([Point(steps, returns[steps], clock[steps]) for steps in sorted(returns)], file.commit)


def commit_of(run_dir: Path) -> str:
    """The commit of the code that made a run of `robotrl`."""
    return run_dir.with_name(run_dir.name + ".done").read_text(encoding="utf-8").strip()


def robotrl_points(run_dir: Path, policy: str = "") -> list[Point]:
    """The evaluations of a run directory; the clock is elapsed time without evaluations.

    Args:
        run_dir: of the run.
        policy: one of the learner's other policies, by name; empty: its policy.
    """
    clock = {row["env_steps"]: row["time/elapsed"] - row["time/evaluation"] for row in metrics(run_dir)}
    points = []
    for path in (run_dir / "eval" / policy).glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        steps = int(data["meta"]["env_steps"])
        points.append(Point(steps, [float(r) for r in data["returns"]], float(clock[steps])))
    return sorted(points, key=lambda point: point.env_steps)


def training_points(run_dir: Path, every: int) -> list[Point]:
    """The returns of the training episodes, exploration included, `every` env steps at a time.

    Args:
        run_dir: of the run.
        every: env steps that a point stands at the end of; one without a finished episode is left out. A return is the
            mean of the episodes that finished in an iteration.
    """
    found: dict[int, list[tuple[float, float]]] = {}
    for row in metrics(run_dir):
        if "train/return" in row:
            clock = row["time/elapsed"] - row["time/evaluation"]
            found.setdefault(-(-row["env_steps"] // every) * every, []).append((row["train/return"], clock))
    return [Point(steps, [r for r, _ in rows], rows[-1][1]) for steps, rows in sorted(found.items())]


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, one an iteration."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def sb3_zoo(out: Path, task: str, seed: int, *options: str, threads: int = 1, clock: str = "train_s") -> Curve:
    """Train the Stable-Baselines3 arm unless `out` is complete; returns its curve.

    Args:
        out: the curve's file.
        task: `HalfCheetah` and so on; `-v5` is added.
        seed: of the run.
        options: further ones of `benchmarks.spine.sb3_zoo`.
        threads: torch threads.
        clock: `train_s`, or `train_cpu_s` where the machine had other work.
    """
    from benchmarks.spine import sb3_zoo as arm

    if not arm.finished(out):
        arguments = ["--env", f"{task}-v5", "--seed", str(seed), "--out", str(out), "--torch-threads", str(threads)]
        module = [sys.executable, "-m", "benchmarks.spine.sb3_zoo"]
        command.execute([*module, *arguments, *options], threads=threads, log=out.with_suffix(".log"))
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    points = [Point(p["env_steps"], p["returns"], p[clock]) for p in lines if "returns" in p]
    return Curve(points, lines[0]["commit"])


def sb3_zoo_seconds(out: Path) -> float:
    """Training seconds of the whole run that `sb3_zoo` wrote to `out`."""
    return float(json.loads(out.read_text(encoding="utf-8").splitlines()[-1])["train_s"])
