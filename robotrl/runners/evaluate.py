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
        played = _play(policy, env, device, episodes=episodes, seed=seed, explore=explore, progress=progress)
    return EvalResult(
        env_id=spec.id,
        seed=seed,
        returns=played.returns.tolist(),
        lengths=played.lengths.tolist(),
        successes=played.successes.tolist() if spec.success else None,
        explore=explore,
        wall_s=time.perf_counter() - start,
        labels=played.labels,
        outcomes={name: values.tolist() for name, values in played.outcomes.items()},
    )


class _Played:
    """What became of the episodes, each array `[episodes]`, by episode index."""

    def __init__(self, env: Any, episodes: int) -> None:
        self._env = env
        self.returns, self.lengths = np.zeros(episodes), np.zeros(episodes, dtype=np.int64)
        self.successes: NDArray[np.bool_] = np.zeros(episodes, dtype=bool)
        self.finished: NDArray[np.bool_] = np.zeros(episodes, dtype=bool)
        names = getattr(env, "outcomes", ())
        self.outcomes: dict[str, NDArray[np.bool_]] = {name: np.zeros(episodes, dtype=bool) for name in names}
        self._running: dict[str, list[str]] = getattr(env, "episode_labels", {})
        self.labels: dict[str, list[str]] = {kind: [""] * episodes for kind in self._running}

    def end(self, rows: NDArray[np.int64], ended: NDArray[np.int64], infos: dict[str, Any]) -> None:
        """The episodes `ended` have ended in `rows` of the env, which plays the next ones there already."""
        self.successes[ended] = _flags(infos, "success", rows)
        for name, values in self.outcomes.items():
            values[ended] = _flags(infos, name, rows)
        for kind, texts in self.labels.items():
            for row, episode in zip(rows.tolist(), ended.tolist(), strict=True):
                texts[episode] = self._running[kind][row]
        self.finished[ended] = True
        if self.labels:
            self._running = self._env.episode_labels


def _play(
    policy: Policy,
    env: Any,
    device: torch.device,
    *,
    episodes: int,
    seed: int,
    explore: bool,
    progress: Callable[[int, int], None] | None,
) -> _Played:
    """Play every episode to its end."""
    slots = env.num_envs
    index = np.arange(slots)  # the episode each slot is playing; beyond `episodes`: surplus, played and ignored
    running_return, running_length = np.zeros(slots), np.zeros(slots, dtype=np.int64)
    obs, _ = env.reset(seed=seed)
    played = _Played(env, episodes)
    state = policy.initial_state(slots)
    while not played.finished.all():
        action, _, state = policy.act(_to_tensors(obs, device), state, explore=explore)
        obs, reward, terminated, truncated, infos = env.step(action.cpu().numpy())
        running_return += reward
        running_length += 1
        done = terminated | truncated
        if done.any():
            rows = np.flatnonzero(done & (index < episodes))
            ended = index[rows]
            played.returns[ended], played.lengths[ended] = running_return[rows], running_length[rows]
            played.end(rows, ended, infos)
            index[done] += slots
            running_return[done], running_length[done] = 0.0, 0
            state = policy.reset_state(state, torch.as_tensor(done, device=device))
            if progress is not None and rows.size:
                progress(int(played.finished.sum()), episodes)
        elif running_length.max() >= MAX_EPISODE_STEPS:
            raise RobotRLError(
                f"An episode of {env.env_spec.id} has not ended after {MAX_EPISODE_STEPS} steps, so its return cannot "
                "be evaluated. Give the env a time limit: env.time_limit=1000."
            )
    return played


def _flags(infos: dict[str, Any], name: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    values = infos.get(name)
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
