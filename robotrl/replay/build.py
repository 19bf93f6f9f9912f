"""The replay of a run: one store, or one for each source that its learner asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from robotrl.replay.config import ReplayConfig
from robotrl.replay.mixed import MixedReplay
from robotrl.types import BatchSpec, EnvSpec, Replay, RobotRLError

HOLD = 1 << 31
"""Bytes of decoded pictures of demonstrations that are held in memory; of larger data sets each batch is decoded."""
ONLINE = "online"
"""The source that collected rollouts go to. A learner that asks for it collects; one that does not learns offline."""


class ReplayClass(Protocol):
    """A store for collected data that a learner names as its `replay_class`."""

    def from_config(
        self,
        config: ReplayConfig,
        spec: EnvSpec,
        parts: BatchSpec,
        *,
        num_envs: int,
        seed: int,
        device: str,
        env_steps: int,
    ) -> Replay:
        """Make it for a run of `env_steps` env steps in `num_envs` envs like `spec`, to answer `parts`."""
        ...


def build_replay(
    replay_class: ReplayClass,
    parts: BatchSpec,
    config: ReplayConfig,
    spec: EnvSpec,
    *,
    num_envs: int,
    seed: int,
    device: str,
    env_steps: int,
    offline: Mapping[str, Replay] | None = None,
) -> Replay:
    """What answers a learner's `parts`.

    Args:
        replay_class: of the store of collected data.
        parts: the learner's batch specification; it names the sources.
        config: of the store of collected data.
        spec: of the env.
        num_envs: envs side by side.
        seed: of the store's sampling.
        device: where samples are delivered.
        env_steps: length of the run.
        offline: the other sources there are, by name.

    Raises:
        RobotRLError: there is no source of a name the learner asks for, or the store does not fit into memory.
    """
    made, offline = {}, dict(offline or {})
    for source in dict.fromkeys(part.source for part in parts.values()):
        if source == ONLINE:
            asked = {name: part for name, part in parts.items() if part.source == source}
            made[source] = replay_class.from_config(
                config, spec, asked, num_envs=num_envs, seed=seed, device=device, env_steps=env_steps
            )
        elif source in offline:
            made[source] = offline[source]
        else:
            raise RobotRLError(f"The learner learns from '{source}', but this run has no such data.")
    return made[ONLINE] if made.keys() == {ONLINE} else MixedReplay(made)


def offline_sources(
    parts: BatchSpec, config: ReplayConfig, spec: EnvSpec, *, groups: Sequence[str], seed: int, device: str
) -> dict[str, Replay]:
    """The data that a learner's `parts` ask for and that is not collected: `demos`.

    Args:
        parts: the learner's batch specification.
        config: names the data set.
        spec: of the env; the data must fit it.
        groups: observation groups to read.
        seed: of the sampling.
        device: where samples are delivered.

    Raises:
        RobotRLError: no data set is named, or it is empty, damaged, not finite, or of another env.
    """
    if "demos" not in {part.source for part in parts.values()}:
        return {}
    if config.demos is None:
        raise RobotRLError(
            "The learner learns from demonstrations, but there are none: name a data set with replay.demos=<folder>. "
            "robotrl collect records one from a policy."
        )
    from robotrl.replay.joined import open_demos  # what reads data sets is needed by few

    demos = open_demos(
        config.demos, weights=config.demo_weights, groups=list(groups), env=spec, episodes=config.demo_episodes,
        seed=seed, device=device, hold=HOLD,
    )  # fmt: skip
    demos.check({name: part for name, part in parts.items() if part.source == "demos"})
    return {"demos": demos}


def collects(parts: BatchSpec) -> bool:
    """Whether a learner with these parts collects its own data."""
    return any(part.source == ONLINE for part in parts.values())
