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

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv, array_spec
from robotrl.envs.config import EnvConfig, PixelsConfig
from robotrl.registry import nearest
from robotrl.types import RobotRLError, StateDict


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
        _disable_autoreset(env)
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


def _disable_autoreset(env: VectorEnv) -> None:
    disable = getattr(env, "disable_autoreset", None)
    if disable is None:
        raise RobotRLError(
            f"The env '{env.env_spec.id}' resets by itself, so action_repeat and pixels cannot wrap it. "
            "Give it a method disable_autoreset() (see robotrl.envs.wrappers), or leave both out."
        )
    disable()


class EnvWrapper(VectorEnv):
    """A vector env around another one; by itself it changes nothing."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.env_spec = env.env_spec
        self.metadata = env.metadata  # type: ignore[misc]
        self.single_observation_space = env.single_observation_space
        self.observation_space = env.observation_space
        self.single_action_space = env.single_action_space
        self.action_space = env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """See the env."""
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """See the env."""
        return self.env.step(actions)

    def state_dict(self) -> StateDict:
        """The wrapped env's state and the wrapper's own."""
        return {"env": self.env.state_dict(), "wrapper": self._own_state()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken, as exactly as the wrapped env can."""
        self.env.load_state_dict(state["env"])
        self._load_own_state(state["wrapper"])

    def _own_state(self) -> StateDict:
        return {}

    def _load_own_state(self, state: StateDict) -> None:
        pass

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """See the env."""
        return self.env.render_rows(rows, height=height, width=width, camera=camera)

    def disable_autoreset(self) -> None:
        """See the env."""
        _disable_autoreset(self.env)
        self.metadata = self.env.metadata  # type: ignore[misc]

    def close_extras(self, **kwargs: Any) -> None:
        """Close the wrapped env."""
        self.env.close(**kwargs)

    @property
    def unwrapped(self) -> Any:
        """The env inside all wrappers."""
        return self.env.unwrapped

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r})"

    def _set_groups(self, groups: Mapping[str, Space[Any]], units: Mapping[str, str]) -> None:
        """Declare the observation groups this wrapper returns: spaces of one env, and their units."""
        # sort_keys would reorder what the config has ordered
        self.single_observation_space = spaces.Dict(dict(groups), sort_keys=False)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        obs = {name: array_spec(space, units.get(name, "")) for name, space in groups.items()}
        self.env_spec = replace(self.env_spec, obs=obs)

    def _groups(self) -> dict[str, Any]:
        return dict(self.env.single_observation_space.spaces)  # type: ignore[attr-defined]

    def _units(self) -> dict[str, str]:
        return {name: spec.unit for name, spec in self.env.env_spec.obs.items()}


class ActionRepeat(EnvWrapper):
    """Executes each action `repeat` times, or until the episode ends, and returns the sum of the rewards.

    Observations and infos are those of the last step a row simulated. The env's autoreset is off: a row that ends
    within the repeat keeps what it returned there, whatever it does until the repeat is over.
    """

    def __init__(self, env: VectorEnv, repeat: int) -> None:
        super().__init__(env)
        self._repeat = repeat
        self.on_early_end: Callable[[NDArray[np.intp]], None] | None = None
        """Called with rows that end before the repeat is over, while they still are in their last state."""
        spec = env.env_spec
        self.env_spec = replace(
            spec,
            control_hz=spec.control_hz / repeat,
            time_limit=None if spec.time_limit is None else math.ceil(spec.time_limit / repeat),
            action_repeat=spec.action_repeat * repeat,
        )

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step every row up to `repeat` times."""
        total = np.zeros(self.num_envs)
        running = np.ones(self.num_envs, np.bool_)
        kept: list[tuple[NDArray[np.intp], ObsDict, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]] = []
        for i in range(self._repeat):
            obs, reward, terminated, truncated, infos = self.env.step(actions)
            np.add(total, reward, out=total, where=running)
            ended = (terminated | truncated) & running
            running &= ~ended
            if i == self._repeat - 1 or not running.any():
                break
            if ended.any():
                rows = np.flatnonzero(ended)
                if self.on_early_end is not None:
                    self.on_early_end(rows)
                saved = {name: value[rows] for name, value in obs.items()}
                kept.append((rows, saved, terminated[rows], truncated[rows], _take(infos, rows)))
        if kept:
            obs = {name: value.copy() for name, value in obs.items()}
            terminated, truncated = terminated.copy(), truncated.copy()
            for rows, saved, kept_terminated, kept_truncated, kept_infos in kept:
                for name, value in saved.items():
                    obs[name][rows] = value
                terminated[rows], truncated[rows] = kept_terminated, kept_truncated
                infos = _put(infos, rows, kept_infos, self.num_envs)
        return obs, total, terminated, truncated, infos


def _take(infos: dict[str, Any], rows: NDArray[np.intp]) -> dict[str, Any]:
    return {name: value[rows] for name, value in infos.items() if isinstance(value, np.ndarray) and value.ndim}


def _put(infos: dict[str, Any], rows: NDArray[np.intp], values: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """`infos` with `values` in `rows`; what is not mentioned there, such as a later step's `_success`, is cleared."""
    result = dict(infos)
    for name, value in infos.items():
        if isinstance(value, np.ndarray) and value.ndim and name.startswith("_") and name not in values:
            result[name] = value.copy()
            result[name][rows] = False
    for name, value in values.items():
        old = infos.get(name)
        array = np.zeros((num_envs, *value.shape[1:]), value.dtype) if old is None else old.copy()
        array[rows] = value
        result[name] = array
    return result


class Pixels(EnvWrapper):
    """Adds rendered images `image/<camera>` uint8 `[N, 3, height, width]`, or puts them in place of the env's groups.

    With `replace_state` the groups `privileged` and `privileged/...` stay: they are for critics and teachers.
    The env's autoreset is off, so the image of a last state is rendered before the reset.
    """

    def __init__(self, env: VectorEnv, config: PixelsConfig) -> None:
        super().__init__(env)
        self._height, self._width = config.height, config.width
        self._cameras: dict[str, str | None] = {f"image/{name}": name for name in config.cameras}
        if not config.cameras:
            self._cameras = {"image/pixels": None}
        own = self._groups()
        self._kept = [name for name in own if not config.replace_state or _kind(name) == "privileged"]
        image = spaces.Box(0, 255, (3, config.height, config.width), np.uint8)
        taken = [name for name in self._cameras if name in self._kept]
        if taken:
            raise RobotRLError(
                f"The env has a group '{taken[0]}' already. Set env.pixels.replace_state=true, or no pixels."
            )
        self._set_groups({name: own[name] for name in self._kept} | dict.fromkeys(self._cameras, image), self._units())
        shape = (self.num_envs, 3, config.height, config.width)
        self._images = {name: np.zeros(shape, np.uint8) for name in self._cameras}
        self._rendered = np.zeros(self.num_envs, np.bool_)  # rows that this step has rendered already
        if isinstance(env, ActionRepeat):
            env.on_early_end = self._render

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Reset, and render the rows that were reset."""
        obs, infos = self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask")
        self._render(np.arange(self.num_envs) if mask is None else np.flatnonzero(mask))
        self._rendered[:] = False
        return self._with_images(obs), infos

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and render every row."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        self._render(np.flatnonzero(~self._rendered))
        self._rendered[:] = False
        return self._with_images(obs), reward, terminated, truncated, infos

    def _render(self, rows: NDArray[np.intp]) -> None:
        for name, camera in self._cameras.items():
            images = self.env.render_rows(rows.tolist(), height=self._height, width=self._width, camera=camera)
            self._images[name][rows] = images.transpose(0, 3, 1, 2)
        self._rendered[rows] = True

    def _with_images(self, obs: ObsDict) -> ObsDict:
        return {name: obs[name] for name in self._kept} | self._images


class AutoReset(EnvWrapper):
    """SAME_STEP autoreset around an env whose own is off."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and start the next episode in rows that ended."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        if done.any():
            # the env may write the new episode into the arrays it has just returned
            reward, terminated, truncated = reward.copy(), terminated.copy(), truncated.copy()
            infos["final_obs"] = {name: value.copy() for name, value in obs.items()}
            infos["_final_obs"] = done
            obs, _ = self.env.reset(options={"reset_mask": done})
        return obs, reward, terminated, truncated, infos


class ActionDelay(EnvWrapper):
    """Executes the action chosen `delay` steps ago; until then zero, brought within the bounds (discrete: action 0).

    `infos["executed_action"]` is what the env got.
    """

    def __init__(self, env: VectorEnv, delay: int) -> None:
        super().__init__(env)
        space = env.action_space
        if isinstance(space, spaces.Box):
            self._neutral = np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
        else:
            self._neutral = np.zeros_like(space.sample())
        self._queue = np.stack([self._neutral] * delay)  # oldest first

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Reset, and forget the chosen actions of the rows that were reset."""
        mask = (options or {}).get("reset_mask")
        rows = slice(None) if mask is None else mask
        self._queue[:, rows] = self._neutral[rows]
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step with the oldest chosen action of every row."""
        executed = self._queue[0].copy()
        self._queue[:-1] = self._queue[1:]
        self._queue[-1] = actions
        obs, reward, terminated, truncated, infos = self.env.step(executed)
        done = terminated | truncated
        self._queue[:, done] = self._neutral[done]
        infos["executed_action"] = executed
        return obs, reward, terminated, truncated, infos

    def _own_state(self) -> StateDict:
        return {"queue": self._queue.copy()}

    def _load_own_state(self, state: StateDict) -> None:
        self._queue[:] = state["queue"]


class RewardScale(EnvWrapper):
    """Multiplies rewards by `scale`; `infos["unscaled_reward"]` keeps the env's own."""

    def __init__(self, env: VectorEnv, scale: float) -> None:
        super().__init__(env)
        self._scale = scale

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and scale the rewards."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        infos["unscaled_reward"] = reward
        return obs, reward * self._scale, terminated, truncated, infos


class _Memory(EnvWrapper):
    """Shows each row a function of its episode's observations so far, kept in per-row buffers."""

    def _push(self, obs: ObsDict) -> ObsDict:
        """Take in one more observation of every row; what is shown then, in arrays that `_fill` writes to."""
        raise NotImplementedError

    def _fill(self, obs: ObsDict, rows: Any) -> ObsDict:
        """Start an episode in `rows` (an index of rows) with `obs [N, ...]`; what all rows show then."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Reset, and forget the past of the rows that were reset."""
        obs, infos = self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask")
        return self._fill(obs, slice(None) if mask is None else mask), infos

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step; rows that ended get their old episode's memory in `final_obs` and a fresh one in the observation."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        done = infos.get("_final_obs")
        if done is None:
            return self._push(obs), reward, terminated, truncated, infos
        last = {name: value.copy() for name, value in obs.items()}
        for name, value in last.items():
            value[done] = infos["final_obs"][name][done]
        infos["final_obs"] = {name: value.copy() for name, value in self._push(last).items()}
        return self._fill(obs, done), reward, terminated, truncated, infos


class ObsDelay(_Memory):
    """Shows the observation of `delay` steps ago; until then the episode's first one.

    The groups `privileged` and `privileged/...` are not delayed: critics and teachers may know the present.
    """

    def __init__(self, env: VectorEnv, delay: int) -> None:
        super().__init__(env)
        self._length, self._cursor = delay + 1, 0
        self._rings: dict[str, NDArray[Any]] = {
            name: np.zeros((self._length, self.num_envs, *space.shape), space.dtype)
            for name, space in self._groups().items()
            if _kind(name) != "privileged"
        }

    def _push(self, obs: ObsDict) -> ObsDict:
        for name, ring in self._rings.items():
            ring[self._cursor] = obs[name]
        self._cursor = (self._cursor + 1) % self._length  # now at the oldest
        return self._shown(obs)

    def _fill(self, obs: ObsDict, rows: Any) -> ObsDict:
        for name, ring in self._rings.items():
            ring[:, rows] = obs[name][rows]
        return self._shown(obs)

    def _shown(self, obs: ObsDict) -> ObsDict:
        return {name: self._rings[name][self._cursor] if name in self._rings else obs[name] for name in obs}

    def _own_state(self) -> StateDict:
        return {"cursor": self._cursor, "rings": {name: ring.copy() for name, ring in self._rings.items()}}

    def _load_own_state(self, state: StateDict) -> None:
        self._cursor = int(state["cursor"])
        for name, ring in self._rings.items():
            ring[:] = state["rings"][name]


class Stack(_Memory):
    """Concatenates the last `frame_stack` images along the channels and the last `history` vectors, oldest first.

    Frames: every group `image/...`, `[N, C, H, W]` to `[N, frame_stack * C, H, W]`. History: every other group of
    floating-point numbers but `privileged`, along its last axis. An episode starts with its first observation repeated.
    """

    def __init__(self, env: VectorEnv, *, frame_stack: int = 1, history: int = 1) -> None:
        super().__init__(env)
        groups = self._groups()
        self._axes: dict[str, int] = {}
        self._buffers: dict[str, NDArray[Any]] = {}
        for name, space in groups.items():
            length = frame_stack if is_image(name, space) else history if _has_history(name, space) else 1
            if length > 1:
                axis = -3 if is_image(name, space) else -1
                groups[name] = _concatenated([space] * length, axis)
                self._axes[name] = axis
                self._buffers[name] = np.zeros((self.num_envs, *groups[name].shape), space.dtype)
        self._set_groups(groups, self._units())

    def _push(self, obs: ObsDict) -> ObsDict:
        for name, buffer in self._buffers.items():
            # moved to the front so that one pair of slices serves images and vectors
            line, new = np.moveaxis(buffer, self._axes[name], 0), np.moveaxis(obs[name], self._axes[name], 0)
            line[: -len(new)] = line[len(new) :]
            line[-len(new) :] = new
        return {name: self._buffers.get(name, obs[name]) for name in obs}

    def _fill(self, obs: ObsDict, rows: Any) -> ObsDict:
        for name, buffer in self._buffers.items():
            first, axis = obs[name][rows], self._axes[name]
            buffer[rows] = np.concatenate([first] * (buffer.shape[axis] // first.shape[axis]), axis)
        return {name: self._buffers.get(name, obs[name]) for name in obs}

    def _own_state(self) -> StateDict:
        return {name: buffer.copy() for name, buffer in self._buffers.items()}

    def _load_own_state(self, state: StateDict) -> None:
        for name, buffer in self._buffers.items():
            buffer[:] = state[name]


class Groups(EnvWrapper):
    """Selects, renames and concatenates observation groups.

    Args:
        env: the env.
        groups: names to keep, or a mapping of each new name to an old one or to a list of old ones, which are
            concatenated: vectors along the last axis, images along the channels.
    """

    def __init__(self, env: VectorEnv, groups: Sequence[str] | Mapping[str, str | Sequence[str]]) -> None:
        super().__init__(env)
        pairs = groups.items() if isinstance(groups, Mapping) else ((name, name) for name in groups)
        self._sources = {new: [old] if isinstance(old, str) else list(old) for new, old in pairs}
        own, units = self._groups(), self._units()
        for name in (name for names in self._sources.values() for name in names):
            if name not in own:
                raise RobotRLError(
                    f"The env '{env.env_spec.id}' has no observation group '{name}'.{nearest(name, list(own))} "
                    f"It has: {', '.join(own)}. Change env.groups."
                )
        spaces_of: dict[str, Space[Any]] = {}
        self._axes: dict[str, int] = {}
        for new, old in self._sources.items():
            images = [is_image(name, own[name]) for name in old]
            self._axes[new] = -3 if all(images) else -1
            if any(images) != all(images):
                raise RobotRLError(f"env.groups cannot concatenate {old} into '{new}': images and vectors do not mix.")
            try:
                spaces_of[new] = own[old[0]] if len(old) == 1 else _concatenated([own[n] for n in old], self._axes[new])
            except ValueError as error:
                shapes = ", ".join(f"{name} {own[name].shape}" for name in old)
                raise RobotRLError(f"env.groups cannot concatenate {shapes} into '{new}': {error}.") from error
        of_new = {new: {units[name] for name in old} for new, old in self._sources.items()}
        self._set_groups(spaces_of, {new: units.pop() for new, units in of_new.items() if len(units) == 1})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Reset, and regroup."""
        obs, infos = self.env.reset(seed=seed, options=options)
        return self._regroup(obs), infos

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and regroup."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            infos["final_obs"] = self._regroup(infos["final_obs"])
        return self._regroup(obs), reward, terminated, truncated, infos

    def _regroup(self, obs: ObsDict) -> ObsDict:
        return {
            new: obs[old[0]] if len(old) == 1 else np.concatenate([obs[name] for name in old], self._axes[new])
            for new, old in self._sources.items()
        }


class Copies(EnvWrapper):
    """Returns arrays that are the caller's to keep."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Reset, and copy the observations."""
        obs, infos = self.env.reset(seed=seed, options=options)
        return _copied(obs), _copied(infos)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step, and copy everything that is returned."""
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        return _copied(obs), reward.copy(), terminated.copy(), truncated.copy(), _copied(infos)


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.copy() if isinstance(value, np.ndarray) else _copied(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def is_image(name: str, space: Space[Any]) -> bool:
    """Whether the group is an image: `image/...`, uint8, `[C, H, W]`."""
    return _kind(name) == "image" and space.dtype == np.uint8 and len(space.shape or ()) == 3


def _has_history(name: str, space: Space[Any]) -> bool:
    floats = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) > 0
    return floats and _kind(name) != "privileged"


def _kind(name: str) -> str:
    return name.partition("/")[0]


def _concatenated(boxes: Sequence[spaces.Box], axis: int) -> spaces.Box:
    low, high = (np.concatenate([getattr(box, bound) for box in boxes], axis) for bound in ("low", "high"))
    return spaces.Box(low, high, dtype=np.result_type(*(box.dtype for box in boxes)).type)


__all__ = [
    "ActionDelay", "ActionRepeat", "AutoReset", "Copies", "EnvWrapper", "Groups", "ObsDelay", "Pixels", "RewardScale",
    "Stack", "is_image", "needs_wrappers", "wrap_env",
]  # fmt: skip
