"""Evaluation: a fixed set of episodes, the same whatever the number of envs, and a result that states its certainty.

Env slot j of m plays the episodes j, j + m, j + 2m, ... and episode i starts from `(seed, i)` (the seeding rule of
every env), so `num_envs` changes the speed and nothing else. The first n episodes to *finish* are never used: they
favour short ones. Random numbers come from a fork of torch's generator, seeded with `seed`; a training run that
evaluates goes on as if nothing had been.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robotrl.runners.eval_result import EvalResult
from robotrl.types import Obs, Policy, RobotRLError

MAX_EPISODE_STEPS = 100_000
"""An episode that has not ended after so many decisions never will, as far as an evaluation can tell."""


def evaluate(
    policy: Policy,
    env: Any,
    *,
    episodes: int = 10,
    seed: int = 0,
    explore: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Play the episodes 0 .. `episodes` - 1 of `seed` and report returns, lengths and successes with intervals.

    Args:
        policy: what acts; put into evaluation mode for the time being.
        env: a `robotrl.envs` vector env. It is reset, so it must not be one that a training run is stepping.
        episodes: how many episodes in total, over all env slots.
        seed: of the episodes' starts and, with `explore`, of the policy's samples.
        explore: act as in training instead of with the policy's best action.
        progress: called with (finished, episodes) whenever episodes finish.

    Returns:
        One row an episode, in episode order.

    Raises:
        RobotRLError: the policy reads observations the env does not have, or an episode never ends.
    """
    if episodes < 1:
        raise RobotRLError(f"episodes must be at least 1, got {episodes}.")
    spec = env.env_spec
    check_env = getattr(policy, "check_env", None)
    if check_env is not None:
        check_env(spec)
    start = time.perf_counter()
    device = _device(policy)
    with _undisturbed(policy, device), torch.no_grad():
        torch.manual_seed(seed)
        returns, lengths, successes = _play(
            policy, env, device, episodes=episodes, seed=seed, explore=explore, progress=progress
        )
    return EvalResult(
        env_id=spec.id,
        seed=seed,
        returns=returns.tolist(),
        lengths=lengths.tolist(),
        successes=successes.astype(bool).tolist() if spec.success else None,
        explore=explore,
        wall_s=time.perf_counter() - start,
    )


def _play(
    policy: Policy,
    env: Any,
    device: torch.device,
    *,
    episodes: int,
    seed: int,
    explore: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Returns, lengths and successes `[episodes]`, by episode index."""
    slots = env.num_envs
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=np.int64)
    successes, finished = np.zeros(episodes, dtype=bool), np.zeros(episodes, dtype=bool)
    index = np.arange(slots)  # the episode each slot is playing; beyond `episodes`: surplus, played and ignored
    running_return, running_length = np.zeros(slots), np.zeros(slots, dtype=np.int64)
    obs, _ = env.reset(seed=seed)
    state = policy.initial_state(slots)
    while not finished.all():
        action, _, state = policy.act(_to_tensors(obs, device), state, explore=explore)
        obs, reward, terminated, truncated, infos = env.step(action.cpu().numpy())
        running_return += reward
        running_length += 1
        done = terminated | truncated
        if done.any():
            rows = np.flatnonzero(done & (index < episodes))
            ended = index[rows]
            returns[ended], lengths[ended] = running_return[rows], running_length[rows]
            successes[ended] = _successes(infos, rows)
            finished[ended] = True
            index[done] += slots
            running_return[done], running_length[done] = 0.0, 0
            state = policy.reset_state(state, torch.as_tensor(done, device=device))
            if progress is not None and rows.size:
                progress(int(finished.sum()), episodes)
        elif running_length.max() >= MAX_EPISODE_STEPS:
            raise RobotRLError(
                f"An episode of {env.env_spec.id} has not ended after {MAX_EPISODE_STEPS} steps, so its return cannot "
                "be evaluated. Give the env a time limit: env.time_limit=1000."
            )
    return returns, lengths, successes


def _successes(infos: dict[str, Any], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    values = infos.get("success")
    return np.zeros(rows.size, dtype=bool) if values is None else np.asarray(values, dtype=bool)[rows]


def _to_tensors(obs: dict[str, NDArray[Any]], device: torch.device) -> Obs:
    """Copies, since envs may reuse their arrays and a policy may keep what it was given; types as in training."""
    dtypes = {"f": torch.float32, "i": torch.int64}
    return {k: torch.tensor(v, dtype=dtypes.get(v.dtype.kind), device=device) for k, v in obs.items()}


def _device(policy: Policy) -> torch.device:
    if isinstance(policy, nn.Module):
        tensors: Iterator[Tensor] = policy.parameters()
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


@contextmanager
def _undisturbed(policy: Policy, device: torch.device) -> Iterator[None]:
    """Evaluation mode, with the global generators and the modules' training flags put back afterwards."""
    modules = list(policy.modules()) if isinstance(policy, nn.Module) else []
    training = [module.training for module in modules]
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the global one is exactly what is kept
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for module in modules[:1]:
            module.eval()
        try:
            yield
        finally:
            for module, flag in zip(modules, training, strict=True):
                module.training = flag
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
