"""Evaluating one policy on several tasks of a family, and whether it listens to its instruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from robotrl.envs.config import EnvConfig, build_env, for_evaluation
from robotrl.runners.eval_result import EvalResult, pool
from robotrl.runners.evaluate import evaluate
from robotrl.types import Policy, RobotRLError


def evaluate_tasks(
    policy: Policy,
    env: EnvConfig,
    tasks: Sequence[str],
    *,
    episodes: int = 50,
    seed: int = 0,
    num_envs: int = 16,
    explore: bool = False,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Play every task and pool the episodes; `by("task")` of the result tells them apart.

    Args:
        policy: what acts.
        env: of one of the tasks, or of another one of their family; its options and wrappers are used for all.
        tasks: names without the family's, as in `["pick", "press"]`; none: the task of `env` alone.
        episodes: of each task.
        seed: episode i of every task starts from `(seed, i)`.
        num_envs: envs side by side; results do not depend on it.
        explore: act as in training.
        num_threads: that simulate; None: all cores.
        progress: called with (finished, episodes), of all tasks.

    Raises:
        RobotRLError: an unknown task, one named twice, or one in which the policy cannot act.
    """
    if len(set(tasks)) < len(tasks):
        raise RobotRLError(f"tasks={list(tasks)} names a task twice. Name each once.")
    configs = [in_task(for_evaluation(env), task) for task in tasks] or [for_evaluation(env)]
    results = []
    for k, config in enumerate(configs):
        rows = min(num_envs, episodes)
        vector_env = build_env(config, num_envs=rows, seed=seed, num_threads=num_threads, copy=False)
        told = None if progress is None else _offset(progress, k * episodes, len(configs) * episodes)
        try:
            results.append(evaluate(policy, vector_env, episodes=episodes, seed=seed, explore=explore, progress=told))
        finally:
            vector_env.close()
    return results[0] if len(results) == 1 else pool(results)


def in_task(env: EnvConfig, task: str) -> EnvConfig:
    """The env of another task of the same family, with the same options and wrappers.

    Raises:
        RobotRLError: the env is of no family.
    """
    family, slash, _ = env.id.rpartition("/")
    if not slash or ":" in env.id:
        raise RobotRLError(
            f"{env.id} has no other tasks: tasks= names those of a family, as tabletop/pick and tabletop/press are. "
            "Leave tasks= out."
        )
    return replace(env, id=f"{family}/{task.rpartition('/')[2]}")


def swapped(env: EnvConfig) -> EnvConfig:
    """The env in which every instruction is about another object of the scene than the one that was drawn.

    `success` of an episode is then that of the instruction given, and the outcome `original_success` says whether the
    policy did what had been drawn instead.
    """
    return replace(env, options={**env.options, "swap": True})


def _offset(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    return lambda finished, _: progress(before + finished, total)


__all__ = ["evaluate_tasks", "in_task", "swapped"]
