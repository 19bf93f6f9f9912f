"""Many episodes on one sheet: a film that shows them side by side, or a picture with a row of moments for each.

Under every episode stands its instruction; the strip is grey while it runs, green once it succeeded and red once it
ended without. Where the env has no notion of success it stays grey and says the return.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robotrl.envs.config import EnvConfig, build_env, for_evaluation
from robotrl.runners.media import tensors, write_video
from robotrl.runners.tasks import in_task
from robotrl.types import Policy, RobotRLError

Picture = NDArray[np.uint8]
RUNNING, SUCCESS, FAILURE = (0.32, 0.33, 0.36), (0.10, 0.52, 0.24), (0.72, 0.16, 0.14)
"""Colours of the strips: red, green, blue in [0, 1]."""
STRIP = 34
"""Pixels of a strip's height."""
MOMENTS = 6
"""Pictures of an episode on a picture sheet."""


class Stage:
    """The first episodes of some envs, one a row, each played once and then held on its last picture.

    Args:
        policy: acts without exploration.
        envs: RobotRL vector envs; every row of each plays one episode.
        seed: of the episodes.
        height: of a picture, pixels.
        width: of a picture, pixels.
        camera: of the pictures; None: the env's own view.
    """

    def __init__(
        self, policy: Policy, envs: Sequence[Any], *, seed: int, height: int, width: int, camera: str | None = None
    ) -> None:
        self._policy, self._envs = policy, envs
        self._look = {"height": height, "width": width, "camera": camera}
        device = next(policy.parameters()).device if isinstance(policy, torch.nn.Module) else torch.device("cpu")
        self._device = device
        self._obs = [env.reset(seed=seed)[0] for env in envs]
        self._states = [policy.initial_state(env.num_envs) for env in envs]
        self._running = [np.ones(env.num_envs, np.bool_) for env in envs]
        self.captions = [text for env in envs for text in _captions(env)]
        """What each episode is asked to do."""
        self.colours = [RUNNING] * len(self.captions)
        self._marks, self._returns = [""] * len(self.captions), np.zeros(len(self.captions))
        self.pictures: list[Picture] = [
            env.render_rows([row], **self._look)[0] for env in envs for row in range(env.num_envs)
        ]

    @property
    def over(self) -> bool:
        """Whether every episode has ended."""
        return not any(running.any() for running in self._running)

    @torch.no_grad()
    def step(self) -> None:
        """One decision in every env, and new pictures of the episodes that still run."""
        first = 0
        for k, env in enumerate(self._envs):
            if self._running[k].any():
                self._step(k, first)
            first += env.num_envs

    def _step(self, k: int, first: int) -> None:
        env, running = self._envs[k], self._running[k]
        action, _, state = self._policy.act(tensors(self._obs[k], self._device), self._states[k], explore=False)
        obs, reward, terminated, truncated, infos = env.step(action.cpu().numpy())
        done = terminated | truncated
        self._returns[first : first + env.num_envs] += np.where(running, reward, 0.0)
        good = np.asarray(infos.get("success", terminated & False), np.bool_)
        for i, succeeded in zip(first + np.flatnonzero(running & done), good[running & done], strict=True):
            if not env.env_spec.success:
                self._marks[i] = f"return {self._returns[i]:.4g}: "
            else:
                self._marks[i], self.colours[i] = ("success: ", SUCCESS) if succeeded else ("failed: ", FAILURE)
        self._running[k] = running & ~done
        rows = np.flatnonzero(self._running[k]).tolist()  # a row that ended shows the next episode already
        for row, picture in zip(rows, env.render_rows(rows, **self._look), strict=True):
            self.pictures[first + row] = picture
        self._obs[k] = obs
        self._states[k] = self._policy.reset_state(state, torch.as_tensor(done, device=self._device))

    def strip(self, i: int, width: int) -> Picture:
        """What stands under episode i, `[STRIP, width, 3]`."""
        return strip(self._marks[i] + self.captions[i], self.colours[i], width)


def write_sheet(
    path: str | Path,
    policy: Policy,
    envs: Sequence[Any],
    *,
    seed: int = 0,
    height: int = 150,
    width: int = 200,
    camera: str | None = None,
    columns: int | None = None,
) -> Path:
    """Play one episode in every row of `envs` and write a sheet of them.

    Args:
        path: `.mp4`: a film, in simulated time; `.png`: a picture, one row of moments an episode.
        policy: acts without exploration.
        envs: RobotRL vector envs; every row of each plays one episode.
        seed: of the episodes.
        height: of an episode's pictures, pixels.
        width: of an episode's pictures, pixels.
        camera: of the pictures; None: the env's own view.
        columns: of the film's grid; None: about as many as rows.

    Raises:
        RobotRLError: another kind of file, or it cannot be drawn or written.
    """
    target = Path(path)
    if target.suffix not in (".mp4", ".png"):
        raise RobotRLError(f"A sheet is a film (.mp4) or a picture (.png), not {target.name}. Give another name.")
    stage = Stage(policy, envs, seed=seed, height=height, width=width, camera=camera)
    if target.suffix == ".mp4":
        hz = float(envs[0].env_spec.control_hz) or 30.0
        across = columns or int(np.ceil(np.sqrt(len(stage.captions))))
        return write_video(target, _film(stage, across), hz)
    from matplotlib.image import imsave

    picture = _moments(stage)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}")
    try:
        imsave(draft, picture, format="png")
        draft.replace(target)
    except OSError as error:
        raise RobotRLError(f"The sheet {target} could not be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def sheet_of_tasks(
    path: str | Path,
    policy: Policy,
    env: EnvConfig,
    tasks: Sequence[str] = (),
    *,
    episodes: int = 16,
    seed: int = 0,
    num_threads: int | None = None,
) -> Path:
    """A sheet of `episodes` episodes, shared out among `tasks` (none: that of `env`); see `write_sheet`."""
    configs = [in_task(for_evaluation(env), task) for task in tasks] or [for_evaluation(env)]
    share = max(1, episodes // len(configs))
    with ExitStack() as stack:
        envs = []
        for config in configs:
            made = build_env(config, num_envs=share, seed=seed, num_threads=num_threads)
            envs.append(stack.enter_context(closing(made)))
        return write_sheet(path, policy, envs, seed=seed)


def _film(stage: Stage, columns: int) -> Iterator[Picture]:
    """The grid after every decision, and its last state for a second."""
    yield grid(stage, columns)
    while not stage.over:
        stage.step()
        yield grid(stage, columns)
    for _ in range(20):
        yield grid(stage, columns)


def grid(stage: Stage, columns: int) -> Picture:
    """The episodes as they are now, `columns` side by side, height and width even."""
    tiles = [np.vstack([picture, stage.strip(i, picture.shape[1])]) for i, picture in enumerate(stage.pictures)]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    whole = np.vstack(rows)
    return whole[: len(whole) // 2 * 2, : whole.shape[1] // 2 * 2]


def _moments(stage: Stage) -> Picture:
    """`MOMENTS` pictures of every episode, from its start to its end, and its strip below."""
    kept: list[list[Picture]] = [[picture] for picture in stage.pictures]
    every, step = [1] * len(kept), 0
    last = list(stage.pictures)
    while not stage.over:
        stage.step()
        step += 1
        for i, picture in enumerate(stage.pictures):
            if picture is last[i]:
                continue
            last[i] = picture
            if step % every[i] == 0:
                kept[i].append(picture)
            if len(kept[i]) > 8 * MOMENTS:  # long episodes are kept more and more coarsely
                kept[i], every[i] = kept[i][::2], 2 * every[i]
    rows = []
    for i, pictures in enumerate(kept):
        chosen = [[*pictures, last[i]][k] for k in np.linspace(0, len(pictures), MOMENTS).round().astype(int)]
        film = np.hstack(chosen)
        rows += [film, stage.strip(i, film.shape[1])]
    return np.vstack(rows)


@lru_cache(maxsize=256)
def strip(text: str, colour: tuple[float, float, float], width: int) -> Picture:
    """`text` in white on `colour`, two lines at most, `[STRIP, width, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, STRIP / 100), dpi=100, facecolor=colour)
    canvas: Any = FigureCanvasAgg(figure)
    wrapped = textwrap.shorten(text, 2 * (width // 6), placeholder=" ...")
    lines = "\n".join(textwrap.wrap(wrapped, max(8, width // 6))[:2])
    figure.text(4 / width, 0.5, lines, color="white", size=7.2, va="center", ha="left", linespacing=1.15)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _captions(env: Any) -> list[str]:
    labels = getattr(env, "episode_labels", {})
    return list(labels.get("instruction", [env.env_spec.id] * env.num_envs))


__all__ = ["Stage", "grid", "sheet_of_tasks", "strip", "write_sheet"]
