"""Wrappers of observations: images, delays, groups, and the past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, StepResult, VectorEnv
from robotrl.envs.config import PixelsConfig
from robotrl.envs.wrappers.base import EnvWrapper
from robotrl.envs.wrappers.stepping import ActionRepeat
from robotrl.registry import nearest
from robotrl.types import RobotRLError, StateDict


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
        stacked = {
            name: replace(self.env_spec.obs[name], frames=frame_stack)
            for name, axis in self._axes.items()
            if axis == -3
        }
        self.env_spec = replace(self.env_spec, obs=self.env_spec.obs | stacked)

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
