"""Pictures of what a world model imagines, beside what happened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.analysis.plots import COLOURS
from robotrl.envs.config import EnvConfig, build_env, for_evaluation
from robotrl.policies.compatibility import check_compatible
from robotrl.policies.world_model import load_world_model
from robotrl.runners.prediction import Predictions, predict
from robotrl.types import RobotRLError

SHOWN_NUMBERS = 6
"""Numbers of a vector that are drawn, those that vary most."""
MARK = 2
"""Pixels of the line between context and imagination."""


def prediction_sheet(found: Predictions, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Draw the windows and the error by horizon, and save the figure as PNG, PDF or SVG, by the ending of `path`.

    Images: of each window the true frames, what the model says, and the difference; numbers: true and imagined over
    time. Left of the line the model sees, right of it it only knows the actions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = list(found.model)
    heights = [_height(found, g) for g in groups]
    figure = Figure(figsize=(12.0, sum(heights) + 0.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title or "Open-loop prediction", x=0.01, ha="left", fontsize=12, fontweight="bold")
    parts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for g, part in zip(groups, parts, strict=True):
        left, right = part.subfigures(1, 2, width_ratios=(3.1, 1.0))
        (_images if found.seen[g].dtype == np.uint8 else _numbers)(left, found, g)
        _errors(right, found, g)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    return target


def predict_saved(
    policy_dir: str | Path, env: EnvConfig, path: str | Path, *, episodes: int = 10, seed: int = 0
) -> tuple[Predictions, list[Path]]:
    """Play with the Dreamer policy in `policy_dir`, and write the sheet to `path`, errors and latent states beside it.

    Raises:
        RobotRLError: it has no world model, `path` is no picture or cannot be written, or no episode is long enough.
    """
    target = Path(path)
    if target.suffix not in (".png", ".pdf", ".svg"):
        raise RobotRLError(f"A sheet of predictions is a picture (.png, .pdf or .svg), not {target.name}.")
    policy, model = load_world_model(policy_dir)
    played: Any = build_env(for_evaluation(env), num_envs=episodes, seed=seed)
    try:
        check_compatible(policy.obs_groups, policy.spec, played.env_spec)
        found = predict(policy, model, played, episodes=episodes, seed=seed)
    finally:
        played.close()
    try:
        return found, [prediction_sheet(found, target, title=f"{env.id}: open-loop prediction"), *found.save(target)]
    except OSError as error:
        raise RobotRLError(f"The predictions could not be written to {target}: {error}. Name another file.") from error


def _height(found: Predictions, group: str) -> float:
    return 1.15 * found.seen[group].shape[1] if found.seen[group].dtype == np.uint8 else 4.2


def _images(figure: Any, found: Predictions, group: str) -> None:
    seen, said = (a[:, :, -3:] if a.shape[2] >= 3 else a[:, :, -1:] for a in (found.seen[group], found.imagined[group]))
    away = np.clip(128.0 + (said.astype(np.float32) - seen) / 2.0, 0, 255).astype(np.uint8)
    axes = figure.subplots(seen.shape[1], 1, squeeze=False)[:, 0]
    for i, ax in enumerate(axes):
        strips = [np.hstack([_picture(frame) for frame in kind[:, i]]) for kind in (seen, said, away)]
        strip = np.vstack(strips)
        at = found.context * seen.shape[-1]
        strip[:, at - MARK // 2 : at + MARK // 2] = (213, 94, 0)
        ax.imshow(strip, aspect="equal", interpolation="nearest")
        ax.set_xticks([])
        size = seen.shape[-2]
        ax.set_yticks([size * (k + 0.5) for k in range(3)], ["true", "model", "difference"], fontsize=7)
        ax.spines[:].set_visible(False)
    axes[0].set_title(f"{group}: {found.context} frames seen, then {found.horizon} imagined", loc="left", fontsize=9)


def _picture(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = np.moveaxis(frame, 0, -1)
    return np.repeat(picture, 3, -1) if picture.shape[-1] == 1 else picture


def _numbers(figure: Any, found: Predictions, group: str) -> None:
    seen, said = (a.reshape(*a.shape[:2], -1) for a in (found.seen[group], found.imagined[group]))
    shown = np.sort(np.argsort(-seen.std((0, 1)), kind="stable")[:SHOWN_NUMBERS])
    axes = figure.subplots(2, -(-len(shown) // 2), squeeze=False, sharex=True).ravel()
    time = np.arange(1 - found.context, found.horizon + 1)
    for ax, number in zip(axes, shown, strict=False):
        for i in range(min(3, seen.shape[1])):
            ax.plot(time, seen[:, i, number], color=COLOURS[i], linewidth=1.4, label="true" if i == 0 else None)
            ax.plot(time, said[:, i, number], "--", color=COLOURS[i], linewidth=1.4, label="model" if i == 0 else None)
        ax.axvline(0.5, color="#8a8f98", linewidth=1.0)
        ax.set_title(f"{group}[{number}]", loc="left", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    axes[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("steps ahead", fontsize=8)


def _errors(figure: Any, found: Predictions, group: str) -> None:
    ax = figure.subplots()
    steps = list(range(1, found.horizon + 1))
    bands = np.array([found.interval(group, step) for step in steps])
    ax.fill_between(steps, bands[:, 0], bands[:, 1], color=COLOURS[0], alpha=0.2, linewidth=0)
    ax.plot(steps, found.model[group].mean(0), color=COLOURS[0], label="model (95 % interval)")
    ax.plot(steps, found.copy[group].mean(0), color=COLOURS[1], label="copy of the last frame seen")
    ax.set_ylim(bottom=0)
    unit = "pixels in [0, 1]" if found.seen[group].dtype == np.uint8 else "deviations"
    ax.set_title(f"mean squared error, {unit}", loc="left", fontsize=8)
    ax.set_xlabel("steps ahead", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.legend(fontsize=7, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


__all__ = ["predict_saved", "prediction_sheet"]
