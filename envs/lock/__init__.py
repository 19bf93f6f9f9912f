"""Combination locks: chains of hidden states in which one wrong action in H loses everything.

`lock/combination` is the continuous combination lock of Zhou et al. (2023, arXiv:2311.08384): actions are logits of ten
hidden actions, observations a Hadamard code of state and step. `lock/images` is the same chain seen through pictures of
written characters. See docs/lock.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from robotrl.registry import nearest
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    from robotrl.envs.lock.vector_env import LockVectorEnv

PREFIX = "lock/"
MAX_HORIZON = 500
"""Longer locks than anything opens; an episode draws the noise of all its observations at once."""


@dataclass(slots=True)
class Options:
    """The options of `lock/combination`: `env.options.horizon=10` on the command line."""

    horizon: int = 5
    """Steps of an episode: every one of them needs the right action."""
    instance: int = 0
    """Which lock: its combination is drawn from this number."""
    temperature: float = 0.1
    """Of the softmax that turns an action into probabilities of the hidden actions."""
    anti_reward: str = "code"
    """Who fails may be paid 0.1, with probability 1/2. `code`: at the last step, in whatever state, as in the authors'
    code; `paper`: at the step that leaves the good states, as they describe it."""
    action_bound: float | None = 1.0
    """Actions lie within plus and minus this; None: all real numbers, as in the paper."""
    obs_dim: int | None = None
    """Length of the code, a power of two of at least horizon + 4; None: the least."""


@dataclass(slots=True)
class ImagesOptions:
    """The options of `lock/images`."""

    horizon: int = 5
    instance: int = 0
    temperature: float = 0.1
    anti_reward: str = "code"
    action_bound: float | None = 1.0
    features: str = ""
    """The folder with the pictures' features, which `python -m robotrl.envs.lock.build <folder>` makes."""
    split: str = "train"
    """Pictures that are shown: `train` or `test`; none is in both."""


def make(
    id: str,
    *,
    num_envs: int = 1,
    num_threads: int | None = None,
    copy: bool = True,
    randomise: Any = None,
    max_episode_steps: int | None = -1,
    **options: Any,
) -> LockVectorEnv:
    """The factory behind `robotrl.make_vec("lock/combination")` and `"lock/images"`.

    Args:
        id: the name.
        num_envs: locks side by side, all of the same combination.
        num_threads: not used: the arithmetic is too small to share.
        copy: return fresh arrays; without, they are overwritten by the next step.
        randomise: must be None: there are no physics.
        max_episode_steps: steps after which an episode is truncated, if the lock has not ended it before; None or -1:
            the horizon alone.
        options: see `Options` and `ImagesOptions`.

    Raises:
        RobotRLError: an unknown option or value, or a horizon that the observation cannot encode.
    """
    from robotrl.envs.lock.observations import Glyphs, Hadamard
    from robotrl.envs.lock.vector_env import LockVectorEnv

    if randomise is not None:
        raise RobotRLError(f"{id} has no physics, so env.randomise has nothing to change. Leave it out.")
    if max_episode_steps is not None and max_episode_steps != -1 and max_episode_steps < 1:
        raise RobotRLError(f"The time limit of {id} is {max_episode_steps}, but it must be at least 1, or None.")
    limit = None if max_episode_steps in (None, -1) else max_episode_steps
    common: dict[str, Any] = {"num_envs": num_envs, "copy": copy, "limit": limit}
    if id == PREFIX + "images":
        images = _checked(id, ImagesOptions, options)
        return LockVectorEnv(id, images, Glyphs(images, num_envs), **common)
    chosen = _checked(id, Options, options)
    return LockVectorEnv(id, chosen, Hadamard(chosen, num_envs), **common)


def _checked[T](id: str, kind: type[T], options: dict[str, Any]) -> T:
    """The options over their defaults, each in its range."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # both are dataclasses
    for name in options:
        if name not in known:
            raise RobotRLError(
                f"{id} has no option '{name}'.{nearest(name, [*known, 'max_episode_steps'])} "
                f"Its options are: {', '.join([*known, 'max_episode_steps'])}."
            )
    chosen: Any = kind(**options)
    for name, least, most in (("horizon", 1, MAX_HORIZON), ("instance", 0, 2**63)):
        value = getattr(chosen, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise RobotRLError(
                f"The option '{name}' of {id} is {value!r}; it must be a whole number from {least} on"
                f"{f' up to {most}' if name == 'horizon' else ''}."
            )
    for name in ("temperature", "action_bound"):
        value = getattr(chosen, name)
        if (value is None and name == "action_bound") or (_is_number(value) and 0 < value < math.inf):
            continue
        raise RobotRLError(f"The option '{name}' of {id} is {value!r}; it must be a number above zero.")
    _choice(id, chosen, "anti_reward", ("code", "paper"))
    if isinstance(chosen, ImagesOptions):
        _choice(id, chosen, "split", ("train", "test"))
    result: T = chosen
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choice(id: str, options: Any, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(options, name)
    if value not in choices:
        raise RobotRLError(
            f"The option '{name}' of {id} is {value!r}.{nearest(str(value), list(choices))} "
            f"It must be one of: {', '.join(choices)}."
        )


__all__ = ["PREFIX", "ImagesOptions", "Options", "make"]
