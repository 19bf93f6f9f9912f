"""One episode to look at: frame by frame for a film, or live in MuJoCo's viewer."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robotrl.types import Policy, RobotRLError


@dataclass(slots=True)
class Played:
    """How the episode went; filled in while it is played."""

    steps: int = 0
    seconds: float = 0.0
    reward: float = 0.0
    success: bool | None = None
    """None where the env has no notion of success."""


@torch.no_grad()
def play(policy: Policy, env: Any, played: Played, *, seed: int = 0, explore: bool = False) -> Iterator[Any]:
    """Play one episode of the first row of `env`; yields the env at its start and after every step.

    Args:
        policy: acts.
        env: a RobotRL vector env with one row, whose autoreset is turned off, so that its last state can be looked at.
        played: filled in.
        seed: of the episode and of the policy's random numbers.
        explore: act as in training.
    """
    env.disable_autoreset()
    obs, _ = env.reset(seed=seed)
    state = policy.initial_state(1)
    dt = 1.0 / (env.env_spec.control_hz or 30.0)
    if env.env_spec.success:
        played.success = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield env
        while True:
            tensors = {k: torch.as_tensor(v, dtype=_dtype(v)) for k, v in obs.items()}
            action, _, state = policy.act(tensors, state, explore=explore)
            obs, reward, terminated, truncated, infos = env.step(action.numpy())
            played.steps, played.seconds = played.steps + 1, played.seconds + dt
            played.reward += float(reward[0])
            if played.success is not None:
                played.success = bool(infos["success"][0])
            yield env
            if terminated[0] or truncated[0]:
                return


def _dtype(value: NDArray[Any]) -> torch.dtype | None:
    return torch.float32 if value.dtype.kind == "f" else None


def frames(
    episode: Iterator[Any], *, height: int, width: int, camera: str | None = None, linger: int = 10
) -> Iterator[NDArray[np.uint8]]:
    """Pictures `[height, width, 3]` of an episode that `play` plays, the last one shown for `linger` frames more."""
    pictures: list[NDArray[np.uint8]] = []
    for env in episode:
        pictures = [env.render_rows([0], height=height, width=width, camera=camera)[0]]
        yield pictures[0]
    for _ in range(linger):
        yield from pictures


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def watch(episode: Iterator[Any], model: Any, copy_state: Callable[[Any], None], data: Any, dt: float) -> None:
    """Show an episode in MuJoCo's viewer, in real time, until it ends or the window is closed.

    Args:
        episode: what `play` yields.
        model: what the viewer draws.
        copy_state: called with each `data` to fill in.
        data: the viewer's own state.
        dt: seconds of a step.

    Raises:
        RobotRLError: no window can be opened here.
    """
    import mujoco.viewer

    if not has_display():
        raise RobotRLError("There is no display to open a viewer on. Leave viewer=true out: the film is written then.")
    with mujoco.viewer.launch_passive(model, data) as window:
        for _ in episode:
            start = time.perf_counter()
            if not window.is_running():
                return
            copy_state(data)
            window.sync()
            time.sleep(max(0.0, dt - (time.perf_counter() - start)))


__all__ = ["Played", "frames", "has_display", "play", "watch"]
