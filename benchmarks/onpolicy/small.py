"""Many seeds of a short run in one process: the same parts and the same loop as `robotrl train`, without its files.

Called as a program it measures the seeds of one arm and prints one JSON object:
`{"<seed>": [[env_steps, value, seconds], ...]}`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import command, lib
from robotrl.collect import Collector
from robotrl.configs.compose import compose
from robotrl.envs.config import build_env
from robotrl.functional.sampling_error import counts, tabular_sampling_error
from robotrl.policies import build_policy
from robotrl.policies.sampling_error import sampling_error
from robotrl.registry import learners
from robotrl.replay.build import build_replay
from robotrl.runners.loop import Schedule, train
from robotrl.seeding import seed_everything
from robotrl.types import Batch, Progress, check_schedule, group


@dataclass(slots=True)
class Small:
    """The parts of a run."""

    env: Any
    learner: Any
    replay: Any
    collector: Collector
    schedule: Schedule
    progress: Progress

    def until(self, env_steps: int) -> None:
        """Train until so many env steps are made."""
        train(
            self.learner, self.replay, self.collector, self.schedule, self.progress,
            stop=lambda: self.progress.env_steps >= env_steps,
        )  # fmt: skip

    def data(self) -> Batch:
        """What the learner would learn from now, as rows."""
        rollout = next(self.replay.batches(self.learner.batch_spec, 1))["online"]
        return {k: v.flatten(0, 1) for k, v in rollout.items() if not k.startswith("state/")}


def assemble(words: Sequence[str]) -> Small:
    """A run as `robotrl train <words>` builds it."""
    config = compose(["learner.ppo.two_threads=false", *words, "num_threads=1"])
    seed_everything(config.seed)
    env: Any = build_env(config.env, num_envs=config.num_envs, seed=config.seed, num_threads=1, copy=False)
    learner_class = learners.get(config.learner_name)
    policy = build_policy(replace(config.policy, kind=learner_class.policy_kind), env.env_spec)
    learner = learner_class(policy, env.env_spec, config.learner, num_envs=config.num_envs)
    check_schedule(learner, config.schedule.rollout_steps, config.schedule.updates)
    replay = build_replay(
        learner_class.replay_class, learner.batch_spec, config.replay, env.env_spec, num_envs=config.num_envs,
        seed=config.seed, device="cpu", env_steps=config.total_env_steps,
    )  # fmt: skip
    seed_everything(1_000_000 + config.seed)
    schedule = Schedule(config.schedule.rollout_steps, config.schedule.updates)
    progress = Progress(config.total_env_steps)
    return Small(env, learner, replay, Collector(env, seed=config.seed), schedule, progress)


def two_step_value(run: Small) -> float:
    """The target policy's expected return on TwoStep, from its probabilities."""
    chance = _table(run).tolist()
    left = chance[1][0] * 2.0 + chance[1][1] * 0.5
    return float(chance[0][0] * left + chance[0][1] * 1.0)


def tabular_error(run: Small) -> float:
    """Exact sampling error of the data, states being one-hot."""
    data, policy = run.data(), _table(run)
    return tabular_sampling_error(counts(data["obs/state"].argmax(-1), data["raw_action"], *policy.shape), policy)


def network_error(run: Small) -> float:
    """Sampling error of the data by the best fit of the last layer and the deviation."""
    data = run.data()
    return sampling_error(run.learner.policy, group(data, "obs"), data["raw_action"], draws=1).data


@torch.no_grad()
def _table(run: Small) -> Any:
    """Probabilities `[S, A]` of the target policy in every state."""
    policy = run.learner.policy
    logits = policy.net.head(policy.inputs({"state": torch.eye(policy.inputs.dim)})["vector"])
    return torch.softmax(logits.double(), -1).numpy()


MEASURES: dict[str, Callable[[Small], float]] = {
    "two_step_value": two_step_value, "tabular_error": tabular_error, "network_error": network_error,
}  # fmt: skip

Found = dict[int, list[tuple[int, float, float]]]
"""Seed -> (env steps, value, seconds) of each measurement."""


def measure(arm: Sequence[str], seeds: Sequence[int], at: Sequence[int], what: str) -> Found:
    """Run `arm` once a seed in a process of its own, and measure whenever it has made the env steps `at`."""
    options = [f"--seeds={json.dumps(list(seeds))}", f"--at={json.dumps(list(at))}", f"--measure={what}"]
    found = command.worker("benchmarks.onpolicy.small", *options, f"--words={json.dumps(list(arm))}")
    return {int(seed): [(int(n), float(v), float(s)) for n, v, s in rows] for seed, rows in found.items()}


def sweep(
    arms: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    at: Mapping[str, Sequence[int]],
    what: str,
    *,
    jobs: int,
    missing: Callable[[str, int], bool],
    record: Callable[[str, int, list[tuple[int, float, float]]], None],
    chunk: int = 10,
) -> None:
    """Measure every arm for the seeds that are missing, `chunk` seeds a process, `jobs` processes at once."""

    def run(arm: str, some: list[int]) -> None:
        found = measure(arms[arm], some, at[arm], what)
        for seed, rows in found.items():
            record(arm, seed, rows)
        last = [rows[-1] for rows in found.values()]
        seconds = sum(row[2] for row in last)
        command.say(
            f"{arm} seeds {some[0]} to {some[-1]}: {np.mean([row[1] for row in last]):.4f} at {last[0][0]:,} env "
            f"steps, {seconds:.0f} s"
        )

    tasks = []
    for arm in arms:
        wanted = [seed for seed in seeds if missing(arm, seed)]
        tasks += [partial(run, arm, wanted[i : i + chunk]) for i in range(0, len(wanted), chunk)]
    command.side_by_side(tasks, jobs)


def record_all(file: lib.ResultFile, arm: str, seed: int, rows: list[tuple[int, float, float]], unit: str) -> None:
    """Every measurement of a run as `<arm>/<env steps>`."""
    for env_steps, value, seconds in rows:
        file.record(
            f"{arm}/{env_steps}", seed, value, unit=unit, wall_s=seconds, env_steps=env_steps, replace=True
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.onpolicy.{Path(__file__).stem}")
    for name in ("seeds", "at", "measure", "words"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = {}
    for seed in json.loads(options.seeds):
        start, rows = time.perf_counter(), []
        run = assemble([*json.loads(options.words), f"seed={seed}"])
        for env_steps in json.loads(options.at):
            run.until(env_steps)
            seconds = time.perf_counter() - start
            rows.append([run.progress.env_steps, MEASURES[options.measure](run), seconds])
        run.env.close()
        found[seed] = rows
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
