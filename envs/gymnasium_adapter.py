"""`gym/<id>`: any environment that Gymnasium can make, and (`vectorize`) any `gymnasium.Env` of your own.

Observations become named groups: a plain vector is `state`, an image (uint8, height x width x 1, 3 or 4 channels) is
`image/pixels` in channels-first order, the entries of a Dict keep their names (images as `image/<name>`, nested ones
as `outer/inner`), and discrete observations are one-hot. Actions may be Box or Discrete.
"""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv
from numpy.typing import NDArray

from robotrl.envs.base import ObsDict, action_spec, array_spec
from robotrl.envs.gymnasium_slot import Slot
from robotrl.envs.slots import SlotVectorEnv
from robotrl.registry import nearest
from robotrl.types import EnvSpec, RobotRLError

# id prefixes that an extra package brings along when it is imported: (module, package)
_NAMESPACES = {
    "ALE/": ("ale_py", "ale-py"),
    "GymV21": ("shimmy", "shimmy"),
    "dm_control/": ("shimmy", "shimmy[dm-control]"),
}
_EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "toy_text": "toy-text", "classic_control": "classic-control"}


def make(
    id: str,
    *,
    num_envs: int = 1,
    num_threads: int | None = None,
    copy: bool = True,
    vectorization: Literal["sync", "async"] = "sync",
    max_episode_steps: int | None = -1,
    **options: Any,
) -> GymnasiumVecEnv:
    """The factory behind `gym/<id>`.

    Args:
        id: `gym/` and an id that `gymnasium.make` knows.
        num_envs: environments.
        num_threads: with `async`, most processes that step at the same time; None: no limit.
        copy: return fresh arrays; without, they are overwritten by the next step.
        vectorization: `sync` steps one after the other in this process, `async` each in a process of its own, which
            pays where a step takes longer than handing it to another process.
        max_episode_steps: steps after which an episode is truncated; None: never; -1: as Gymnasium registers.
        options: passed on to `gymnasium.make`.

    Raises:
        RobotRLError: an unknown id or option (with the nearest ones), a missing package, or spaces that do not map.
    """
    name = id.removeprefix("gym/")
    if vectorization not in ("sync", "async"):
        raise RobotRLError(f"vectorization={vectorization!r} of {id} is neither 'sync' nor 'async'.")
    spec = _find_spec(name)
    limit = spec.max_episode_steps if max_episode_steps == -1 else max_episode_steps

    def make_one() -> gymnasium.Env[Any, Any]:
        return _make_one(spec, options)

    return vectorize(
        make_one,
        id=id,
        num_envs=num_envs,
        num_threads=num_threads,
        copy=copy,
        vectorization=vectorization,
        max_episode_steps=limit,
    )


def vectorize(
    make_env: Callable[[], gymnasium.Env[Any, Any]],
    *,
    id: str,
    num_envs: int = 1,
    num_threads: int | None = None,
    copy: bool = True,
    vectorization: Literal["sync", "async"] = "sync",
    max_episode_steps: int | None = None,
    success: str = "",
) -> GymnasiumVecEnv:
    """A RobotRL vector env of your own `gymnasium.Env`: what an env package registers under `robotrl.envs` calls.

    Args:
        make_env: makes one environment; without a TimeLimit wrapper, since `max_episode_steps` does that.
        id: the name it is known by.
        num_envs: environments.
        num_threads: see `make`.
        copy: see `make`.
        vectorization: see `make`.
        max_episode_steps: steps after which an episode is truncated; None: never.
        success: what `info["success"]` (or `is_success`) of an episode's last step means, in words.
    """
    return GymnasiumVecEnv(
        make_env,
        env_id=id,
        num_envs=num_envs,
        num_threads=num_threads,
        copy=copy,
        processes=vectorization == "async",
        max_episode_steps=max_episode_steps,
        success=success,
    )


class GymnasiumVecEnv(SlotVectorEnv):
    """Gymnasium environments side by side, in this process or each in its own.

    Infos are merged as Gymnasium's vector envs merge them; a finished row has its last step's infos, and what its
    reset reported is dropped. `success` or `is_success` of a last step becomes `infos["success"]`. The state of such
    an env cannot be saved: `state_dict` holds the numbers of the running episodes.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env[Any, Any]],
        *,
        env_id: str,
        num_envs: int,
        num_threads: int | None = None,
        copy: bool = True,
        processes: bool = False,
        max_episode_steps: int | None = None,
        success: str = "",
    ) -> None:
        def slot() -> Slot:
            return Slot(make_env(), env_id)

        first = slot()
        rate = first.metadata.get("render_fps") or 0.0
        groups = cast(spaces.Dict, first.observation_space).spaces
        try:
            action = action_spec(first.action_space)
        except TypeError as error:
            first.close()
            raise RobotRLError(f"{env_id} cannot be used: {error}.") from error
        spec = EnvSpec(
            id=env_id,
            obs={name: array_spec(space) for name, space in groups.items()},
            action=action,
            control_hz=float(rate),
            time_limit=max_episode_steps,
            success=success,
            exact_state=False,
        )
        self._make(spec, first.observation_space, first.action_space, num_envs=num_envs, copy=copy)  # type: ignore[arg-type]
        self._processes: AsyncVectorEnv | None = None
        if processes:
            first.close()
            self._processes = _start_processes([slot] * num_envs, num_threads)
            self._slots: list[Slot] = []
        else:
            self._slots = [first, *(slot() for _ in range(num_envs - 1))]

    def _begin(self, rows: NDArray[np.intp], seeds: list[int]) -> dict[str, Any]:
        if self._processes is not None:
            all_seeds: list[int | None] = [None] * self.num_envs
            for row, seed in zip(rows.tolist(), seeds, strict=True):
                all_seeds[row] = seed
            mask = np.zeros(self.num_envs, np.bool_)
            mask[rows] = True
            self._obs, infos = self._processes.reset(seed=all_seeds, options={"reset_mask": mask})
            return infos
        infos = {}
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            obs, info = self._slots[row].reset(seed=seed)
            self._write(row, obs)
            infos = self._add_info(infos, info, row)
        return infos

    def _simulate(self, actions: NDArray[Any]) -> dict[str, Any]:
        if self._processes is not None:
            self._obs, reward, terminated, truncated, infos = self._processes.step(actions)
            self._reward[:], self._terminated[:], self._truncated[:] = reward, terminated, truncated
        else:
            infos = {}
            for row, slot in enumerate(self._slots):
                if self._waiting[row]:
                    continue
                obs, self._reward[row], self._terminated[row], self._truncated[row], info = slot.step(actions[row])
                self._write(row, obs)
                infos = self._add_info(infos, info, row)
        return infos

    def _write(self, row: int, obs: ObsDict) -> None:
        for name, value in obs.items():
            if value.shape != self._obs[name].shape[1:]:
                raise RobotRLError(
                    f"The env '{self.env_spec.id}' changed the shape of its observation group '{name}': {value.shape} "
                    f"instead of {self._obs[name].shape[1:]} in row {row}. Every step must return the shape of its "
                    "observation_space; pad it to a fixed size in the env, or declare the larger space."
                )
            self._obs[name][row] = value

    def render_rows(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]` of the envs `rows`, scaled from what their `render()` draws.

        Raises:
            RobotRLError: the env draws no `rgb_array`, or has no such camera.
        """
        if self._processes is None:
            images = [self._slots[row].picture(height, width, camera) for row in rows]
        else:
            every = self._processes.call("picture", height, width, camera)
            images = [every[row] for row in rows]
        for image in images:
            if isinstance(image, str):
                raise RobotRLError(image)
        return np.stack(images) if images else np.empty((0, height, width, 3), np.uint8)

    def close_extras(self, **kwargs: Any) -> None:
        """Close every env, and the processes."""
        if self._processes is not None:
            self._processes.close(**kwargs)
        for slot in self._slots:
            slot.close()


def _start_processes(slots: list[Callable[[], Slot]], at_once: int | None) -> AsyncVectorEnv:
    """A process for each slot.

    They are forked from a server that has only imported modules: a plain fork of this process would inherit locks of
    OpenGL's and OpenMP's threads, which do not survive it, and hang at the first image or tensor.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    return AsyncVectorEnv(slots, copy=False, autoreset_mode="Disabled", max_concurrency=at_once, context="forkserver")


def _find_spec(name: str) -> Any:
    """Gymnasium's registration of `name`; packages whose import registers it are imported."""
    for prefix, (module, package) in _NAMESPACES.items():
        if name.startswith(prefix):
            try:
                gymnasium.register_envs(importlib.import_module(module))
            except ImportError as error:
                raise RobotRLError(
                    f"The env 'gym/{name}' needs the package {package}, which is not installed. "
                    f'Install it with: pip install "{package}"'
                ) from error
    try:
        return gymnasium.spec(name)
    except ModuleNotFoundError as error:
        raise RobotRLError(f"The env 'gym/{name}' names the module '{error.name}', which is not installed.") from error
    except gymnasium.error.Error as error:
        raise RobotRLError(
            f"Gymnasium has no env '{name}'.{nearest(name, list(gymnasium.registry))} "
            "An env of another package is registered by importing it: gym/<module>:<id> does that."
        ) from error


def _make_one(spec: Any, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """One env, without Gymnasium's time limit, able to draw pictures if it can at all."""
    try:
        creator = spec.entry_point
        creator = gymnasium.envs.registration.load_env_creator(creator) if isinstance(creator, str) else creator
        metadata = getattr(creator, "metadata", None)
        modes = metadata.get("render_modes", ()) if isinstance(metadata, dict) else ()
        drawing = {"render_mode": "rgb_array"} if "rgb_array" in modes else {}
        return gymnasium.make(spec, **{"max_episode_steps": -1, "disable_env_checker": True, **drawing, **options})
    except gymnasium.error.DependencyNotInstalled as error:
        extra = next((e for part, e in _EXTRAS.items() if part in str(spec.entry_point)), "all")
        raise RobotRLError(
            f"The env 'gym/{spec.id}' needs a package that is not installed ({str(error).split(',')[0]}). "
            f'Install it with: pip install "gymnasium[{extra}]"'
        ) from error
    except ImportError as error:
        raise RobotRLError(f"The env 'gym/{spec.id}' cannot be imported: {error}") from error
    except TypeError as error:
        for name in options:
            if f"unexpected keyword argument '{name}'" in str(error):
                known = _option_names(spec.entry_point)
                raise RobotRLError(
                    f"gym/{spec.id} has no option '{name}'.{nearest(name, known)} "
                    f"Its options are: {', '.join(known) or 'none'}."
                ) from error
        raise


def _option_names(entry_point: Any) -> list[str]:
    creator = gymnasium.envs.registration.load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    own = [name for name, p in inspect.signature(creator).parameters.items() if p.kind.name != "VAR_KEYWORD"]
    return [*(name for name in own if name not in ("self", "render_mode")), "vectorization", "max_episode_steps"]


__all__ = ["GymnasiumVecEnv", "make", "vectorize"]
