"""One `gymnasium.Env` with observations in named groups; with `async` it lives in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict
from robotrl.types import RobotRLError


class Slot(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment with observations in groups; runs in a worker process with `async`."""

    def __init__(self, env: gymnasium.Env[Any, Any], env_id: str) -> None:
        super().__init__(env)
        self._id = env_id
        self._converters: dict[str, Callable[[Any], NDArray[Any]]] = {}
        groups: dict[str, gymnasium.Space[Any]] = {}
        for path, space in _leaves(env.observation_space, ()):
            name, box, convert = _group(path, space, env_id)
            if name in groups:
                raise RobotRLError(f"{env_id} has two observations that both map to the group '{name}'. Rename one.")
            groups[name] = box
            self._converters[name] = _through(path, convert)
        self.observation_space = spaces.Dict(groups)
        # RobotRL counts discrete actions from 0
        self._first_action = env.action_space.start if isinstance(env.action_space, spaces.Discrete) else 0
        self._renderers: dict[tuple[int, int], Any] = {}
        self._last: tuple[Any, ...] | None = None  # what a finished episode's last step returned

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsDict, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed)
        self._last = None
        return self._convert(obs), info

    def step(self, action: Any) -> tuple[ObsDict, float, bool, bool, dict[str, Any]]:
        """One step; after an episode's end, the last step's results again."""
        if self._last is not None:
            return self._last
        if self._first_action:
            action = action + self._first_action
        obs, reward, terminated, truncated, info = self.env.step(action)
        if "is_success" in info and "success" not in info:
            info = {**info, "success": info["is_success"]}
        ended = bool(terminated or truncated)
        if not ended and "success" in info:  # means something at an episode's end only
            info = {key: value for key, value in info.items() if key != "success"}
        result = self._convert(obs), float(reward), bool(terminated), bool(truncated), info
        self._last = result if ended else None
        return result

    def _convert(self, obs: Any) -> ObsDict:
        return {name: convert(obs) for name, convert in self._converters.items()}

    def picture(self, height: int, width: int, camera: str | int | None) -> NDArray[np.uint8] | str:
        """What the env looks like now, uint8 `[height, width, 3]`, or why there is no picture.

        A sentence rather than an exception, because one that leaves a worker process would end it.
        """
        try:
            return self._picture(height, width, camera)
        except gymnasium.error.DependencyNotInstalled as error:
            return f"{self._id} cannot draw pictures: {error}."
        except RobotRLError as error:
            return str(error)

    def _picture(self, height: int, width: int, camera: str | int | None) -> NDArray[np.uint8]:
        model, data = getattr(self.unwrapped, "model", None), getattr(self.unwrapped, "data", None)
        if type(model).__name__ == "MjModel" and type(data).__name__ == "MjData":
            from robotrl.envs.rendering import OffscreenRenderer

            if (height, width) not in self._renderers:
                self._renderers[height, width] = OffscreenRenderer(model, height, width)
            return self._renderers[height, width].render(data, camera)
        if camera is not None:
            raise RobotRLError(f"{self._id} has no camera '{camera}': it draws one view only. Leave the camera out.")
        frame = self.env.render() if self.env.render_mode == "rgb_array" else None
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise RobotRLError(f"{self._id} draws no pictures: it has no render mode 'rgb_array'.")
        return _resized(frame, height, width)

    def close(self) -> None:
        """Close the env and its renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        super().close()


def _leaves(space: gymnasium.Space[Any], path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], gymnasium.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        return [leaf for key, inner in space.spaces.items() for leaf in _leaves(inner, (*path, key))]
    if isinstance(space, spaces.Tuple):
        return [leaf for i, inner in enumerate(space.spaces) for leaf in _leaves(inner, (*path, i))]
    return [(path, space)]


def _through(path: tuple[Any, ...], convert: Callable[[Any], NDArray[Any]]) -> Callable[[Any], NDArray[Any]]:
    def converted(obs: Any) -> NDArray[Any]:
        for key in path:
            obs = obs[key]
        return convert(obs)

    return converted


def _group(
    path: tuple[Any, ...], space: gymnasium.Space[Any], env_id: str
) -> tuple[str, gymnasium.Space[Any], Callable[[Any], NDArray[Any]]]:
    """A leaf's group name, space, and conversion."""
    key = "/".join(str(part) for part in path)
    if isinstance(space, spaces.Box):
        channels_last = _image_layout(space)
        if channels_last is not None:
            name = (key if key.split("/")[0] == "image" and "/" in key else f"image/{key}") if key else "image/pixels"
            shape = (space.shape[2], *space.shape[:2]) if channels_last else space.shape
            box: Any = spaces.Box(0, 255, shape, np.uint8)
            return name, box, (lambda x: np.moveaxis(x, -1, 0)) if channels_last else np.asarray
        shape = space.shape or (1,)
        box = spaces.Box(space.low.reshape(shape), space.high.reshape(shape), dtype=space.dtype.type)
        return key or "state", box, np.asarray if space.shape else np.atleast_1d
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        flat = spaces.utils.flatten_space(space)
        assert isinstance(flat, spaces.Box)
        box = spaces.Box(0.0, 1.0, flat.shape, np.float32)
        return key or "state", box, lambda x: np.asarray(spaces.utils.flatten(space, x), np.float32)
    raise RobotRLError(
        f"{env_id} cannot be used: its observation {key or 'space'} is {space}. Box, Discrete, MultiDiscrete, "
        "MultiBinary and Dict or Tuple of them can; wrap the env so that it returns one of these."
    )


def _image_layout(space: spaces.Box) -> bool | None:
    """True for an image with channels last, False with channels first, None for anything else."""
    if space.dtype != np.uint8 or len(space.shape) != 3:
        return None
    if space.shape[-1] in (1, 3, 4):
        return True
    return False if space.shape[0] in (1, 3, 4) else None


def _resized(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The frame at another size, each pixel the mean of what it covers."""
    if frame.shape[:2] == (height, width):
        return np.ascontiguousarray(frame[:, :, :3])
    import torch
    from torch.nn import functional

    pixels = torch.from_numpy(np.ascontiguousarray(frame[:, :, :3])).permute(2, 0, 1).float()[None]
    scaled = functional.adaptive_avg_pool2d(pixels, (height, width))
    return scaled[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


__all__ = ["Slot"]
