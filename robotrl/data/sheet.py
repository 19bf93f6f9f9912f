"""An episode on one page: what the cameras saw, and what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robotrl.data.dataset import Dataset, EpisodeInfo
from robotrl.data.frames import Frames
from robotrl.types import RobotRLError

COLUMNS = 8
"""Pictures of each camera, evenly over the episode, the first and the last among them."""
_MOST_LINES = 12


def picture_sheet(dataset: Dataset, number: int, path: str | Path) -> Path:
    """Draw episode `number` as a PNG: a row of pictures a camera, then actions and rewards over time.

    Raises:
        RobotRLError: there is no such episode, or its data are damaged.
    """
    import matplotlib.figure

    if not 0 <= number < len(dataset.episodes):
        raise RobotRLError(f"There is no episode {number}: {dataset.root} has 0 to {len(dataset.episodes) - 1}.")
    episode = dataset.episodes[number]
    cameras = [name for name, feature in dataset.schema.cameras.items() if not feature.depth]
    curves = [name for name in ("action", "reward") if name in dataset.schema.features]
    arrays = dataset.read(curves)
    rows = slice(episode.start, episode.start + episode.length)
    steps = np.unique(np.linspace(0, episode.length - 1, COLUMNS).round().astype(int))
    heights = [1.6] * len(cameras) + [1.4] * len(curves)
    figure = matplotlib.figure.Figure(figsize=(1.6 * COLUMNS, sum(heights) + 0.6), layout="constrained")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    pictures = Frames(dataset, cameras).read(dict.fromkeys(cameras, episode.start + steps)) if cameras else {}
    for i, camera in enumerate(cameras):
        for j, step in enumerate(steps):
            axes = figure.add_subplot(grid[i, j])
            axes.imshow(pictures[camera][j].transpose(1, 2, 0))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"{step / dataset.fps:.2f} s", fontsize=7, pad=2)
            if j == 0:
                axes.set_ylabel(camera.removeprefix("obs/image/"), fontsize=8)
    for i, name in enumerate(curves, len(cameras)):
        values = arrays[name][rows]
        title, values = _scaled(dataset, values) if name == "action" else (name, values)
        _curve(figure.add_subplot(grid[i, :]), title, values, dataset.fps)
    figure.suptitle(_title(episode), fontsize=9)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    return target


def _scaled(dataset: Dataset, actions: Any) -> tuple[str, Any]:
    """Actions as shares of their range, [-1, 1], where the env is known: metres and radians do not fit on one axis."""
    spec = dataset.env_spec
    if spec is None or spec.action.kind == "discrete":
        return "action", actions
    low, high = (np.reshape(bound, spec.action.shape) for bound in (spec.action.low, spec.action.high))
    if not np.isfinite([low, high]).all():
        return "action", actions
    return "action, scaled", 2 * (actions - low) / np.maximum(high - low, 1e-9) - 1


def _curve(axes: Any, name: str, values: Any, fps: float) -> None:
    flat = values.reshape(len(values), -1)[:, :_MOST_LINES]
    seconds = np.arange(len(flat)) / fps
    axes.plot(seconds, flat, linewidth=0.9, label=[str(i) for i in range(flat.shape[1])])
    axes.set_xlim(0, max(seconds[-1], 1 / fps))
    axes.set_ylabel(name, fontsize=8)
    axes.set_xlabel("s", fontsize=7, labelpad=1)
    axes.tick_params(labelsize=7)
    if flat.shape[1] > 1:
        axes.legend(fontsize=6, ncols=flat.shape[1], loc="upper right", frameon=False)


def _title(episode: EpisodeInfo) -> str:
    parts = [f"episode {episode.index}", f"{episode.length} steps", *(f'"{task}"' for task in episode.tasks[:1])]
    if episode.success is not None:
        parts.append("success" if episode.success else "no success")
    if episode.total_reward is not None:
        parts.append(f"return {episode.total_reward:.2f}")
    if episode.seed is not None:
        parts.append(f"start ({episode.seed}, {episode.number})")
    return ", ".join(parts)


__all__ = ["picture_sheet"]
