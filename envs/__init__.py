"""Environments: native batched MuJoCo tasks, adapters, wrappers, randomisation. `make_vec` makes them by name."""

from __future__ import annotations

import ctypes.util
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from robotrl.types import RobotRLError

if TYPE_CHECKING:
    from robotrl.envs.base import VectorEnv

__all__ = ["make_vec"]

_LIBRARIES = {"osmesa": ("OSMesa", "libosmesa6"), "egl": ("EGL", "libegl1")}
"""What `MUJOCO_GL` may name, its library and the Debian package of that."""


def _forget_missing_opengl() -> None:
    """`import mujoco` fails where `MUJOCO_GL` names a library that is not there, images or not: so it is forgotten."""
    wish = os.environ.get("MUJOCO_GL", "").lower().strip()
    library, package = _LIBRARIES.get(wish, ("", ""))
    if library and ctypes.util.find_library(library) is None:
        del os.environ["MUJOCO_GL"]
        warnings.warn(
            f"MUJOCO_GL is {wish}, whose library is not on this machine (Debian, Ubuntu: apt-get install {package}). "
            "Another off-screen OpenGL is taken, if there is one.",
            stacklevel=2,
        )


_forget_missing_opengl()


def make_vec(
    id: str,
    *,
    num_envs: int = 1,
    seed: int = 0,
    num_threads: int | None = None,
    copy: bool = True,
    wrappers: Sequence[Callable[[Any], Any]] = (),
    randomise: Any = None,
    **options: Any,
) -> VectorEnv:
    """`num_envs` environments of one kind, as a `gymnasium.vector.VectorEnv` in SAME_STEP autoreset mode.

    Args:
        id: the name: `HalfCheetah-v5`, `gym/<id>`, `dmc/<domain>-<task>`, or `package.module:factory`.
        num_envs: how many run side by side.
        seed: what the first `reset()` uses unless it is given a seed. Episode i starts from `(seed, i)` alone.
        num_threads: simulation threads; None: one per core this process may use. Results do not depend on it.
        copy: return fresh arrays. Without, they are overwritten by the next step, which saves a few microseconds.
        wrappers: callables applied in order, each from a vector env to a vector env.
        randomise: physics that differ between simulations, see `robotrl.envs.randomise`; None: the model as it is.
        options: the task's own options, with the names and defaults of Gymnasium's constructor.

    Raises:
        RobotRLError: an unknown name or option (with the nearest ones), or a value out of range.
    """
    from robotrl.envs.registry import factory

    if num_envs < 1:
        raise RobotRLError(f"num_envs is {num_envs}, but at least one environment is needed. Use num_envs=1 or more.")
    if seed < 0:
        raise RobotRLError(f"seed is {seed}, but seeds are non-negative integers. Use 0 or more.")
    if randomise is not None:
        options["randomise"] = randomise
    env = factory(id)(id, num_envs=num_envs, num_threads=num_threads, copy=copy, **options)
    env.default_seed = seed
    for wrap in wrappers:
        env = wrap(env)
    return env
