"""Wrappers of whole vector envs, chosen by configuration and always applied in the same order.

From the env outwards (`wrap_env`):

1. `ActionRepeat`   simulate each action several times, sum the rewards
2. `Pixels`         render images as observation groups
3. `AutoReset`      start the next episode in rows that ended (only if 1 or 2 is there, see below)
4. `ActionDelay`    execute the action chosen some steps ago
5. `RewardScale`
6. `ObsDelay`       show the observation of some steps ago
7. `Groups`         select, rename and concatenate observation groups
8. `Stack`          concatenate past images (`frame_stack`) and past vectors (`history`)

So delays, stacks and time limits count agent decisions, a delayed observation is stacked as the policy would have seen
it, and `groups` may name the images of 2. (`time_limit` is no wrapper: it is the env's own option
`max_episode_steps`.) Every wrapper keeps `final_obs`: it is what the policy would have seen had the episode gone on,
with the old episode's stack and delay, while the returned row already starts the next episode with fresh ones.

Wrappers that must see the last state before it is reset (1 and 2) need the env not to reset by itself. They ask for
that with `disable_autoreset()`: from then on a finished row waits, what `step` returns for it means nothing, and
`reset(options={"reset_mask": bool [N]})` starts the next episode in the rows named, as Gymnasium's DISABLED mode does.
Because a start depends only on the seed and the episode's number, steps a finished row makes while it waits change
nothing. An env without that method works with all the other wrappers.
"""

from __future__ import annotations

from robotrl.envs.base import VectorEnv
from robotrl.envs.config import EnvConfig
from robotrl.envs.wrappers.base import EnvWrapper, turn_autoreset_off
from robotrl.envs.wrappers.observations import Groups, ObsDelay, Pixels, Stack, is_image
from robotrl.envs.wrappers.stepping import ActionDelay, ActionRepeat, AutoReset, Copies, RewardScale


def needs_wrappers(config: EnvConfig) -> bool:
    """Whether `config` asks for any wrapper."""
    return (
        (config.action_repeat, config.frame_stack, config.history) != (1, 1, 1)
        or (config.action_delay, config.obs_delay) != (0, 0)
        or config.reward_scale != 1.0
        or config.groups is not None
        or config.pixels is not None
    )


def wrap_env(env: VectorEnv, config: EnvConfig, *, copy: bool = True) -> VectorEnv:
    """`env` within the wrappers that `config` asks for, in the order of this module's description.

    Args:
        env: made with `copy=False`, since only what leaves the outermost wrapper needs to be the caller's own.
        config: its id, options and randomisation are not read: they made `env`.
        copy: whether returned arrays are the caller's to keep.
    """
    if config.action_repeat > 1 or config.pixels is not None:
        turn_autoreset_off(env)
        if config.action_repeat > 1:
            env = ActionRepeat(env, config.action_repeat)
        if config.pixels is not None:
            env = Pixels(env, config.pixels)
        env = AutoReset(env)
    if config.action_delay:
        env = ActionDelay(env, config.action_delay)
    if config.reward_scale != 1.0:
        env = RewardScale(env, config.reward_scale)
    if config.obs_delay:
        env = ObsDelay(env, config.obs_delay)
    if config.groups is not None:
        env = Groups(env, config.groups)
    if config.frame_stack > 1 or config.history > 1:
        env = Stack(env, frame_stack=config.frame_stack, history=config.history)
    return Copies(env) if copy else env


__all__ = [
    "ActionDelay", "ActionRepeat", "AutoReset", "Copies", "EnvWrapper", "Groups", "ObsDelay", "Pixels", "RewardScale",
    "Stack", "is_image", "needs_wrappers", "wrap_env",
]  # fmt: skip
