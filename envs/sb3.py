"""RobotRL's vector envs in Stable-Baselines3: `PPO("MlpPolicy", as_sb3(robotrl.make_vec("Hopper-v5", num_envs=16)))`.

An env with one vector group becomes a Box observation (`MlpPolicy`), one image group a Box image (`CnnPolicy`), several
groups a Dict (`MultiInputPolicy`). `info["terminal_observation"]` and `info["TimeLimit.truncated"]` are set at episode
ends, so SB3 bootstraps truncated episodes as RobotRL does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from robotrl.envs.base import VectorEnv
from robotrl.registry import nearest
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


def as_sb3(env: VectorEnv, *, group: str | None = None, seed: int | None = None, infos: bool = False) -> VecEnv:
    """`env` as a Stable-Baselines3 `VecEnv`; close the result to close `env`.

    Args:
        env: a RobotRL vector env; made with `copy=False` it saves a copy, since the adapter makes its own.
        group: use this observation group alone, as a Box. None: all groups (a Box if there is only one).
        seed: of the first reset; None: the one the env was made with.
        infos: pass on the env's own infos too (one dictionary a row and step, which costs time).

    Raises:
        RobotRLError: Stable-Baselines3 is not installed, or there is no such group.
    """
    try:
        from stable_baselines3.common.vec_env import VecEnv
    except ImportError as error:
        raise RobotRLError(
            "Using an env from Stable-Baselines3 needs stable_baselines3, which is not installed. "
            'Install it with: pip install "robotrl[sb3]"'
        ) from error

    names = list(env.single_observation_space.spaces)  # type: ignore[attr-defined]
    if group is not None and group not in names:
        raise RobotRLError(
            f"{env.env_spec.id} has no observation group '{group}'.{nearest(group, names)} It has: {', '.join(names)}."
        )
    single = group or (names[0] if len(names) == 1 else None)

    # Defined here because its base class is optional.
    class SB3VecEnv(_Adapter, VecEnv):
        pass

    return SB3VecEnv(env, single, seed, pass_infos=infos)


class _Adapter:
    """The methods of SB3's `VecEnv`, over a RobotRL vector env."""

    num_envs: int
    reset_infos: list[dict[str, Any]]
    _seeds: list[int | None]

    def __init__(self, env: VectorEnv, single: str | None, seed: int | None, *, pass_infos: bool) -> None:
        self.env = env
        self.render_mode = "rgb_array"
        self._single = single
        self._first_seed = seed
        self._pass_infos = pass_infos
        self._actions: NDArray[Any] | None = None
        groups = env.single_observation_space.spaces  # type: ignore[attr-defined]
        if single is None and any("." in name for name in groups):
            raise RobotRLError("SB3 makes a module of every group; a name with a dot cannot be one. Rename the group.")
        # SB3 knows observations of 8-bit images and of floats; doubles it would keep as doubles in its buffers
        boxes = {name: _as_float32(space) for name, space in groups.items()}
        observation_space = spaces.Dict(boxes) if single is None else boxes[single]  # type: ignore[arg-type]
        super().__init__(env.num_envs, observation_space, env.single_action_space)  # type: ignore[call-arg]

    def reset(self) -> Any:
        """Start an episode in every row; uses the seed set by `seed()`, once."""
        seed = self._seeds[0] if self._seeds[0] is not None else self._first_seed
        self._first_seed = None
        obs, infos = self.env.reset(seed=seed)
        self.reset_infos = self._rows_of(infos) if self._pass_infos else [{} for _ in range(self.num_envs)]
        self._seeds = [None] * self.num_envs
        return self._observation(obs)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """One step of every row."""
        obs, reward, terminated, truncated, infos = self.env.step(np.asarray(self._actions))
        done = terminated | truncated
        rows = self._rows_of(infos) if self._pass_infos else [{} for _ in range(self.num_envs)]
        if done.any():
            final = infos["final_obs"]
            for row in np.flatnonzero(done).tolist():
                rows[row]["terminal_observation"] = self._observation({n: v[row] for n, v in final.items()})
                rows[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
                if "success" in infos:
                    rows[row]["is_success"] = bool(infos["success"][row])
        return self._observation(obs), reward.astype(np.float32), done.copy(), rows

    def _observation(self, obs: Mapping[str, NDArray[Any]]) -> Any:
        if self._single is not None:
            return _copy_as_float32(obs[self._single])
        return {name: _copy_as_float32(value) for name, value in obs.items()}

    def _rows_of(self, infos: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for name, value in infos.items():
            if name.startswith("_") or name == "final_obs" or not isinstance(value, np.ndarray) or value.ndim == 0:
                continue
            valid = infos.get(f"_{name}")
            for row in range(self.num_envs) if valid is None else np.flatnonzero(valid).tolist():
                rows[row][name] = value[row]
        return rows

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """A picture of every env, 240 x 320."""
        return list(self.env.render_rows(range(self.num_envs), height=240, width=320))

    def close(self) -> None:
        """Close the env."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The vector env's attribute, once for every row asked for."""
        own = {"render_mode": self.render_mode}
        value = own[attr_name] if attr_name in own else getattr(self.env, attr_name)
        return [value for _ in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: rows of a RobotRL env share their attributes."""
        raise RobotRLError(
            f"'{attr_name}' cannot be set for single rows of {self.env.env_spec.id}; set it in its options."
        )

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call the vector env's method once; its result for every row asked for."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """False: rows have no wrappers of their own."""
        return [False for _ in self._chosen(indices)]

    def _chosen(self, indices: Any) -> Sequence[int]:
        if indices is None:
            return range(self.num_envs)
        return [indices] if isinstance(indices, int) else list(indices)


def _as_float32(space: spaces.Box) -> spaces.Box:
    if not np.issubdtype(space.dtype, np.floating) or space.dtype == np.float32:
        return space
    return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def _copy_as_float32(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else value.copy()


__all__ = ["as_sb3"]
