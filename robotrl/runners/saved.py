"""Evaluating a saved policy on the env it was trained on, without anything else of the training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from robotrl.configs.compose import from_saved
from robotrl.envs.config import EnvConfig, for_evaluation
from robotrl.policies.io import find_policy, load_policy, policy_meta
from robotrl.runners.eval_result import EvalResult
from robotrl.runners.tasks import evaluate_tasks
from robotrl.types import RobotRLError

MAX_ENVS = 64
"""Envs side by side unless told otherwise: more are no faster on a workstation."""


def trained_env(policy_dir: str | Path) -> EnvConfig:
    """The env a saved policy was trained on, wrappers included, from what was saved with the policy.

    Raises:
        RobotRLError: no policy there, or its env is a class of some package, which only the user may name.
    """
    saved = policy_meta(policy_dir).get("env_config")
    source = str(find_policy(policy_dir) / "policy.json")
    config = EnvConfig(id=load_policy(policy_dir).spec.id) if saved is None else from_saved(EnvConfig, saved, source)
    if ":" in config.id:
        raise RobotRLError(f"{source} was trained on '{config.id}'. To import that, name it yourself: env={config.id}")
    return config


def evaluate_saved(
    policy_dir: str | Path,
    env: EnvConfig,
    *,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int | None = None,
    explore: bool = False,
    device: str = "cpu",
    num_threads: int | None = None,
    tasks: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Load the policy in `policy_dir`, build `env`, and evaluate; `meta` of the result says how to do it again.

    Args:
        policy_dir: a policy directory, or a run's.
        env: usually `trained_env(policy_dir)`; rewards are reported in the env's own units.
        episodes: how many, of each task.
        seed: episode i starts from `(seed, i)`.
        num_envs: envs side by side; None: as many as episodes, up to `MAX_ENVS`. Results do not depend on it.
        explore: act as in training.
        device: of the policy.
        num_threads: that simulate; None: all cores.
        tasks: of the env's family, to be played in its place; see `evaluate_tasks`.
        progress: called with (finished, episodes).
    """
    if episodes < 1 or (num_envs is not None and num_envs < 1):
        raise RobotRLError(f"episodes and num_envs must be at least 1, got {episodes} and {num_envs}.")
    where = find_policy(policy_dir)
    policy = load_policy(where).to(device)
    result = evaluate_tasks(
        policy, env, tasks, episodes=episodes, seed=seed, num_envs=MAX_ENVS if num_envs is None else num_envs,
        explore=explore, num_threads=num_threads, progress=progress,
    )  # fmt: skip
    result.meta |= {
        "policy_dir": str(where.absolute()),
        "env_config": asdict(for_evaluation(env)),
        "tasks": list(tasks),
        "training": policy_meta(where),
    }
    return result
