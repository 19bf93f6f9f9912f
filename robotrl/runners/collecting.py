"""One recording session: the env, the policy and the data set of `robotrl collect`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from robotrl.collect import Collector
from robotrl.configs.schema import require_at_least
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.envs.config import EnvConfig, build_env, for_evaluation
from robotrl.envs.tabletop.experts import ExpertConfig
from robotrl.functional.statistics import bootstrap_interval, mean, wilson_interval
from robotrl.policies.io import find_policy, load_policy
from robotrl.registry import policies
from robotrl.runners.record import Recorded, record, session_seed
from robotrl.runners.signals import StopRequest
from robotrl.seeding import seed_everything
from robotrl.types import EnvSpec, Policy, RobotRLError, recorded


@dataclass(slots=True)
class CollectConfig:
    """The keys of `robotrl collect`."""

    out: str = ""
    """Folder of the data set."""
    env: EnvConfig = field(default_factory=EnvConfig)
    policy_dir: str = ""
    """A policy directory, or a run's."""
    policy: str = ""
    """A registered kind that needs no training: `expert`, `random`."""
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    """How an expert of the tabletop suite behaves when it explores; others have no settings."""
    episodes: int = 10
    """How many the data set shall hold in the end."""
    success_only: bool = False
    attempts: int | None = None
    """With `success_only`: give up after so many; None: ten for each episode."""
    task: str | None = None
    """The task in words; None: the env's instructions, else its name."""
    explore: bool = False
    lossless: bool = False
    """Keep every pixel of images, for several times the bytes: for `dac` and `ailboost`, which would otherwise tell
    demonstrations from their own steps by what compression leaves in the pictures."""
    seed: int = 0
    num_envs: int = 8
    device: str = "cpu"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        require_at_least("", self, episodes=1, seed=0, num_envs=1)


def collect_episodes(
    config: CollectConfig, progress: Callable[[int, int], None] | None = None, stop: Callable[[], bool] | None = None
) -> str:
    """Record until the data set holds what is asked for; a few lines about what came of it.

    Args:
        config: all of it.
        progress: called with (episodes in the data set, episodes wanted).
        stop: asked now and then whether to stop; None: Ctrl-C stops.

    Raises:
        RobotRLError: the policy, the env and the data set do not fit together, or the disk is full.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        env: Any = build_env(
            for_evaluation(config.env),
            num_envs=_rows(config),
            seed=config.seed,
            num_threads=config.num_threads,
            copy=False,
        )
        stack.callback(env.close)
        policy, origin = _policy(config, env.env_spec)
        schema = Schema.from_env(env.env_spec, recorded(policy))
        writer = stack.enter_context(DatasetWriter(config.out, schema, env=env.env_spec, lossless=config.lossless))
        if writer.num_episodes >= config.episodes:
            return f"{config.out} holds {writer.num_episodes} episodes already; for more give a larger episodes=."
        seed = session_seed(config.seed, len(writer.sessions))
        writer.begin_session(seed=seed, env_config=asdict(config.env), explore=config.explore, **origin)
        seed_everything(seed)
        if stop is None:
            stop = stack.enter_context(StopRequest())
        done = record(
            policy,
            Collector(env, seed=seed, device=config.device, dump_dir=Path(config.out).absolute().parent),
            writer,
            episodes=config.episodes,
            seed=seed,
            task=config.task,
            explore=config.explore,
            only_success=config.success_only,
            max_attempts=config.attempts,
            progress=progress,
            stop=stop,
        )
        total = writer.num_episodes
    return _summary(config, done, total, time.perf_counter() - start)


def _rows(config: CollectConfig) -> int:
    return min(config.num_envs, config.episodes)


def _policy(config: CollectConfig, spec: EnvSpec) -> tuple[Policy, dict[str, Any]]:
    """What acts, and how the data set names it."""
    if config.policy_dir:
        where = find_policy(config.policy_dir)
        policy = load_policy(where).to(config.device)
        policy.check_env(spec)
        return policy, {"policy_dir": str(where)}
    kind = policies.get(config.policy)
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        raise RobotRLError(
            f"policy={config.policy} is a kind that has to be trained. Give the directory of a trained one with "
            "policy_dir=, or policy=expert or policy=random."
        )
    made: Policy = kind(config.expert if config.policy == "expert" else None, spec)
    settings = {"expert": asdict(config.expert)} if getattr(made, "config", None) is config.expert else {}
    return made, {"policy": config.policy, **settings}


def _summary(config: CollectConfig, done: Recorded, total: int, seconds: float) -> str:
    size = sum(path.stat().st_size for path in Path(config.out).rglob("*") if path.is_file())
    lines = [
        f"{done.saved} episodes ({done.steps:,} steps) recorded in {seconds:.0f} s; {config.out} holds {total} of "
        f"{config.episodes} in {size / 1e6:.1f} MB."
    ]
    n = done.attempts
    if n:
        text = f"Return of all {n} attempts: mean {np.mean(done.returns):.2f}"
        if n > 1:  # one return has no interval
            low, high = bootstrap_interval(np.array(done.returns), mean)
            text += f" [{low:.2f}, {high:.2f}]"
        if done.successes is not None:
            below, above = wilson_interval(done.successes, n)
            text += f"; success {done.successes}/{n} = {done.successes / n:.2f} [{below:.2f}, {above:.2f}]"
        lines.append(f"{text} (95 % intervals)." if "[" in text else f"{text}.")
    if done.stopped:
        lines.append("Stopped; every finished episode is saved. The same command goes on from here.")
    return "\n".join(lines)


__all__ = ["CollectConfig", "collect_episodes"]
