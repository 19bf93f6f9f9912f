"""Recording: a policy acts through the one collector, and its finished episodes go into a data set.

Which episodes are recorded does not depend on which end first: as in an evaluation, attempts 0 .. n - 1 of a session
are all played to their end. Where only successes are kept, as many further attempts follow as are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotrl.collect import Collector
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter, Episode
from robotrl.types import Batch, EnvSpec, Extras, Obs, Policy, RobotRLError, State, recorded

CHUNK = 16
"""Steps of every env between two looks at what has ended."""


@dataclass(slots=True)
class Recorded:
    """What a recording came to."""

    saved: int = 0
    steps: int = 0
    attempts: int = 0
    successes: int | None = 0
    """Of all attempts; None where the env does not say."""
    returns: list[float] = field(default_factory=list)
    stopped: bool = False


class Acting:
    """A policy that explores or does not, whatever the collector asks for; of its extras those that are recorded."""

    def __init__(self, policy: Policy, *, explore: bool) -> None:
        self.policy, self.obs_groups, self._explore = policy, policy.obs_groups, explore

    def initial_state(self, num_envs: int) -> State:
        """The policy's."""
        return self.policy.initial_state(num_envs)

    def reset_state(self, state: State, done: Tensor) -> State:
        """The policy's."""
        return self.policy.reset_state(state, done)

    @torch.no_grad()
    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        """The policy's action, explored as was decided."""
        action, extras, state = self.policy.act(obs, state, explore=self._explore)
        return action, {name: extras[name] for name in recorded(self.policy)}, state


class Cutter:
    """Cuts rollouts `[T, N, ...]` into episodes, which may span several of them; of stacked images the newest."""

    def __init__(self, num_envs: int, schema: Schema) -> None:
        self._fields, self._schema = list(schema.features), schema
        self._parts: list[list[dict[str, NDArray[Any]]]] = [[] for _ in range(num_envs)]

    def add(self, rollout: Batch) -> list[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
        """Episodes that ended, in the order in which they did: steps and final observation."""
        arrays = {key: self._schema.single(key, rollout[key].cpu().numpy()) for key in self._fields}
        done = (rollout["terminated"] | rollout["truncated"]).cpu().numpy()
        begun = np.zeros(done.shape[1], np.int64)
        ended = []
        for step, row in np.argwhere(done):
            self._parts[row].append({k: v[begun[row] : step + 1, row].copy() for k, v in arrays.items()})
            begun[row] = step + 1
            parts, self._parts[row] = self._parts[row], []
            steps = {key: np.concatenate([part[key] for part in parts]) for key in self._fields}
            finals = {k: rollout[f"next_{k}"][step, row] for k in self._fields if k.startswith("obs/")}
            final = {key: self._schema.single(key, value.cpu().numpy()) for key, value in finals.items()}
            ended.append((steps, final))
        for row, start in enumerate(begun):
            if start < len(done):
                self._parts[row].append({k: v[start:, row].copy() for k, v in arrays.items()})
        return ended


def record(
    policy: Policy,
    collector: Collector,
    writer: DatasetWriter,
    *,
    episodes: int,
    seed: int,
    task: str | None = None,
    explore: bool = False,
    only_success: bool = False,
    keep: Callable[[Episode], bool] | None = None,
    max_attempts: int | None = None,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Recorded:
    """Record until the data set holds `episodes` episodes, or `stop` says so; what has finished by then is saved.

    Args:
        policy: what acts.
        collector: of a fresh env; `seed` is the one it was made with.
        writer: of the data set.
        episodes: how many it shall hold in the end.
        seed: noted with every episode: number i started from `(seed, i)`.
        task: the task in words; None: what the env's `instructions` say, else the env's name.
        explore: act as in training.
        only_success: keep only episodes that succeeded.
        keep: asked about every attempt, in the order of their numbers, whether to keep it; None: all.
        max_attempts: give up after so many; None: ten for each episode that is wanted.
        chunk: steps of every env between two looks at what has ended; 1 where instructions are asked for.
        progress: called with (episodes in the data set, episodes wanted).
        stop: asked between chunks of steps.

    Raises:
        RobotRLError: the policy does not fit the env, nothing is wanted, or too few attempts succeed.
    """
    done, wanted = Recorded(), episodes - writer.num_episodes
    _check(policy, collector.spec, episodes=episodes, only_success=only_success)
    quota, limit = wanted, max_attempts or 10 * max(wanted, 1)
    stream = _ended(Acting(policy, explore=explore), collector, writer.schema, task, chunk)
    if only_success:
        keep = _succeeded
    waiting: list[Episode] = []
    while done.saved < wanted:
        if stop():
            done.stopped = True
            break
        waiting += next(stream)
        due = sorted((episode for episode in waiting if _number(episode) < quota), key=_number)
        # later attempts wait: only when earlier ones have failed it shows that they are wanted
        waiting = [episode for episode in waiting if _number(episode) >= quota] if keep else []
        kept = [episode for episode in due if keep is None or keep(episode)]
        for episode in kept:
            episode.seed = seed
        writer.save_all(kept)
        _count(due, kept, done)
        if progress is not None and due:
            progress(writer.num_episodes, episodes)
        if done.attempts == quota and done.saved < wanted:
            quota += wanted - done.saved
            if quota > limit:
                raise RobotRLError(
                    f"Of {done.attempts} attempts {done.saved} succeeded, so {wanted} successful episodes would take "
                    "too long. What succeeded is saved. Use a better policy, or allow more with attempts=."
                )
    return done


def _succeeded(episode: Episode) -> bool:
    return bool(episode.success)


def _ended(
    policy: Policy, collector: Collector, schema: Schema, task: str | None, chunk: int
) -> Iterator[list[Episode]]:
    """The episodes that end in each chunk of steps, for ever."""
    cutter, words = Cutter(collector.num_envs, schema), dict[int, str]()
    collector.begin(policy)
    env: Any = collector.env.unwrapped
    speaks = task is None and hasattr(env, "instructions")
    while True:
        if speaks:  # what a row is told changes with its episode, so it is asked at every step
            words.update(zip(collector.playing.tolist(), env.instructions, strict=True))
        rollout = collector.collect(policy, 1 if speaks else chunk)
        yield [
            Episode(
                steps,
                task or words.pop(outcome.episode, collector.spec.id),
                final,
                outcome.success,
                None,
                outcome.episode,
            )
            for outcome, (steps, final) in zip(collector.finished(), cutter.add(rollout), strict=True)
        ]


def _number(episode: Episode) -> int:
    return -1 if episode.number is None else episode.number


def _count(due: list[Episode], kept: list[Episode], done: Recorded) -> None:
    done.attempts += len(due)
    done.saved += len(kept)
    done.steps += sum(map(len, kept))
    for episode in due:
        done.returns.append(float(episode.steps["reward"].sum(dtype=np.float64)))
        known = episode.success is not None and done.successes is not None
        done.successes = (done.successes or 0) + bool(episode.success) if known else None


def _check(policy: Policy, spec: EnvSpec, *, episodes: int, only_success: bool) -> None:
    if episodes < 1:
        raise RobotRLError(f"episodes is {episodes}; a data set needs at least 1.")
    if only_success and not spec.success:
        raise RobotRLError(
            f"{spec.id} does not say whether an episode succeeded, so only_success=true would keep none. Leave it out."
        )
    check_env = getattr(policy, "check_env", None)
    if check_env is not None:
        check_env(spec)


def session_seed(seed: int, session: int) -> int:
    """The seed of the k-th session of a recording, so that none plays the episodes of another."""
    if session == 0:
        return seed
    return int(np.random.SeedSequence((seed, session)).generate_state(1, np.uint64)[0] >> 2)


__all__ = ["Acting", "Cutter", "Recorded", "record", "session_seed"]
