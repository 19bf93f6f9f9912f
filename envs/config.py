"""An environment as configuration: which one, its options, and the wrappers around it.

The fields of `EnvConfig` are the keys under `env.` on the command line: `env=HalfCheetah-v5 env.action_repeat=2`.
`build_env` makes the vector env they describe; the order of the wrappers is the one of `robotrl.envs.wrappers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gymnasium.vector import VectorEnv

from robotrl.types import RobotRLError


@dataclass(slots=True)
class PixelsConfig:
    """Rendered images as observation groups `image/<camera>`, uint8 `[N, 3, height, width]`.

    Images follow the rendering rule (`robotrl.envs.rendering`): no shadows, no reflections, no anti-aliasing.
    """

    height: int = 64
    width: int = 64
    cameras: list[str] = field(default_factory=list)
    """Names (or numbers) of the model's cameras. Empty: the env's default view, as group `image/pixels`."""
    replace_state: bool = True
    """Drop the env's own groups (all but `privileged`); otherwise add the images beside them."""


@dataclass(slots=True)
class EnvConfig:
    """What `build_env` builds. Steps are agent decisions, after action repeat."""

    id: str = "HalfCheetah-v5"
    """`HalfCheetah-v5` (native), `gym/<id>`, `dmc/<domain>-<task>`, or a name an installed package registered."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the task itself: `env.options.healthy_z_range=[0.7,2.0]`."""
    action_repeat: int = 1
    """Execute each action this many times; rewards are summed, the repeat stops where the episode ends."""
    time_limit: int | None = None
    """Truncate episodes after this many steps, in place of the env's own limit. None: keep the env's; 0: no limit."""
    reward_scale: float = 1.0
    """Multiply rewards; returns reported in training are scaled too. See `for_evaluation`."""
    action_delay: int = 0
    """Execute the action chosen this many steps ago; an episode starts with actions of zero (within the bounds)."""
    obs_delay: int = 0
    """Show the observation of this many steps ago; an episode's first one is shown until then."""
    groups: Any = None
    """Observation groups to keep: a list of names, or a mapping of new names to one old name or a list of old names
    that are concatenated. None: all."""
    frame_stack: int = 1
    """Concatenate the last images of every group `image/...` along the channels, oldest first."""
    history: int = 1
    """Concatenate the last observations of every vector group but `privileged` along the last axis, oldest first."""
    pixels: PixelsConfig | None = None
    randomise: Any = None
    """Per-simulation model randomisation, see `robotrl.envs.randomise`."""

    def check(self) -> None:
        """Raise RobotRLError for a value no env can have; names are checked when the env is built."""
        for name, least in (
            ("action_repeat", 1),
            ("frame_stack", 1),
            ("history", 1),
            ("action_delay", 0),
            ("obs_delay", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise RobotRLError(f"env.{name}={value!r} makes no sense: give a whole number of at least {least}.")
        if self.time_limit is not None and self.time_limit < 0:
            raise RobotRLError(
                f"env.time_limit={self.time_limit} makes no sense: give a number of steps, or 0 for none."
            )
        if self.groups is not None and (isinstance(self.groups, str) or not self.groups):
            raise RobotRLError(
                f"env.groups={self.groups!r} makes no sense: list group names, as in env.groups=[state]."
            )


def for_evaluation(config: EnvConfig) -> EnvConfig:
    """The same env as it is evaluated: rewards in the env's own units."""
    return replace(config, reward_scale=1.0)


def build_env(
    config: EnvConfig, *, num_envs: int = 1, seed: int = 0, num_threads: int | None = None, copy: bool = True
) -> VectorEnv:
    """The vector env that `config` describes.

    Args:
        config: id, options and wrappers.
        num_envs: rows of every array.
        seed: with it, episode k of slot j starts from `(seed, j + k * num_envs)`.
        num_threads: threads or processes that step; None: the env's own choice.
        copy: whether returned observations are the caller's to keep; with False they may change at the next step.

    Raises:
        RobotRLError: an unknown id, option, group or camera (the nearest names are suggested), or a missing package.
    """
    from robotrl.envs import make_vec
    from robotrl.envs.wrappers import needs_wrappers, wrap_env

    config.check()
    wrapped = needs_wrappers(config)
    options = dict(config.options)
    if config.randomise is not None:
        options["randomise"] = config.randomise
    if config.time_limit is not None:
        if "max_episode_steps" in options:
            raise RobotRLError("env.time_limit and env.options.max_episode_steps both set the time limit. Give one.")
        # the option counts the env's own steps, and None is no limit
        options["max_episode_steps"] = config.time_limit * config.action_repeat or None
    env = make_vec(
        config.id,
        num_envs=num_envs,
        seed=seed,
        num_threads=num_threads,
        copy=copy and not wrapped,
        **options,
    )
    if not wrapped:
        return env
    try:
        return wrap_env(env, config, copy=copy)
    except BaseException:
        env.close()
        raise


__all__ = ["EnvConfig", "PixelsConfig", "build_env", "for_evaluation"]
