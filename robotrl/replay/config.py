"""What a replay keeps, as configuration, and whether it fits into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from robotrl.types import EnvSpec, RobotRLError

_ITEM_BYTES = {"uint8": 1, "bool": 1, "int64": 8, "int32": 8}
"""Bytes an element takes in a replay; all other types are kept as float32."""
_BESIDE = 4 + 3 + 8 + 8 + 8
"""Bytes of a step beside observation and action: reward, three flags, episode, step, pointer to the next one."""


@dataclass(slots=True)
class ReplayConfig:
    """What learners that keep old data keep of it."""

    capacity: int = 1_000_000
    """Env steps kept, over all envs; the oldest go. Memory is taken as they come."""
    omit: list[str] = field(default_factory=lambda: ["log_prob", "raw_action"])
    """Fields that are not kept."""
    demos: str | None = None
    """Demonstrations, for learners that ask for them: the folder of a LeRobotDataset, or one that holds several."""
    demo_episodes: int | None = None
    """Use the first so many episodes of `demos` (of each data set in it); None: all."""
    demo_weights: dict[str, float] = field(default_factory=dict)
    """Shares of several data sets in a batch, by the names of their folders; those not named count 1. Empty: in
    proportion to their steps."""

    def __post_init__(self) -> None:
        if self.demo_episodes is not None and self.demo_episodes < 1:
            raise RobotRLError(f"replay.demo_episodes is {self.demo_episodes}; it must be at least 1.")
        if self.capacity < 1:
            raise RobotRLError(f"replay.capacity is {self.capacity}; it must be at least 1.")


def bytes_per_step(spec: EnvSpec) -> int:
    """Memory that one env step takes in a replay. Of stacked pictures it keeps the newest, and how far back they go."""
    obs = sum(math.prod(s.shape) // s.frames * _ITEM_BYTES.get(s.dtype, 4) for s in spec.obs.values())
    obs += 8 * sum(s.frames > 1 for s in spec.obs.values())
    action = 8 if spec.action.kind == "discrete" else 4 * math.prod(spec.action.shape)
    return obs + action + _BESIDE


def check_memory(capacity: int, spec: EnvSpec, *, most: int | None = None) -> None:
    """Refuse a replay that cannot fit, before anything is allocated.

    Args:
        capacity: steps it may keep.
        spec: of the env.
        most: env steps the run will make: no more will ever be kept; None: unknown.

    Raises:
        RobotRLError: with the memory it would take, what there is, and the capacity that would fit.
    """
    each, there = bytes_per_step(spec), memory_bytes()
    steps = capacity if most is None else min(capacity, most)
    if there is not None and each * steps > there:
        raise RobotRLError(
            f"A replay of {steps:,} steps of {spec.id} takes {each * steps / 2**30:,.1f} GiB ({each:,} bytes a step), "
            f"but this machine has {there / 2**30:,.1f} GiB of memory. Set replay.capacity to at most "
            f"{int(0.8 * there / each):,}, or make observations smaller."
        )


def memory_bytes() -> int | None:
    """Memory of this machine, or what a container may use of it; None where the system does not tell."""
    found = []
    for path, key in (("/proc/meminfo", "MemTotal:"), ("/sys/fs/cgroup/memory.max", "")):
        try:
            text = Path(path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            continue
        words = text[text.find(key) + len(key) :].split()
        if words and words[0].isdigit():
            found.append(int(words[0]) * (1024 if key else 1))
    return min(found, default=None)
