"""Learning curves: return against env steps, with the uncertainty of every evaluation.

Figures are made without pyplot: no window, no global state, safe in threads and in a training process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robotrl.analysis.runs import RunData, load_run
from robotrl.functional.statistics import bootstrap_interval, iqm
from robotrl.types import RobotRLError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Run = RunData | str | os.PathLike[str]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's: told apart with every kind of colour vision."""
_GREY = "#8a8f98"


def learning_curve(run: Run, *, path: str | os.PathLike[str] | None = None, title: str | None = None) -> Figure:
    """One run: the training episodes' return, and every evaluation with its 95 % interval.

    Args:
        run: a run or its directory; it may still be training.
        path: where to save a PNG (or PDF, SVG, by the ending); None: nowhere.
        title: None: learner, env and seed.

    Raises:
        RobotRLError: the run has no metrics and no evaluation yet.
    """
    data = run if isinstance(run, RunData) else load_run(run)
    figure, axes = _canvas(title or data.title)
    metrics = data.metrics
    if "train/return" in metrics:
        seen = metrics[["env_steps", "train/return"]].dropna()
        smooth = seen["train/return"].ewm(span=max(5, len(seen) // 20)).mean()
        label = "training episodes (exploring, smoothed)"
        axes.plot(seen["env_steps"], seen["train/return"], color=_GREY, alpha=0.25, linewidth=0.8)
        axes.plot(seen["env_steps"], smooth, color=_GREY, linewidth=1.2, label=label)
    if data.evaluations:
        steps = np.array(list(data.evaluations))
        results = list(data.evaluations.values())
        means = np.array([r.mean for r in results])
        low, high = np.array([_interval_or_point(r.mean_interval, r.mean) for r in results]).T
        sizes = sorted({r.n for r in results})
        n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}-{sizes[-1]}"
        label = f"evaluation: mean of {n} episodes, 95 % interval"
        axes.fill_between(steps, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        axes.plot(steps, means, "o-", color=COLOURS[0], markersize=4, linewidth=1.8, label=label)
        axes.errorbar(
            steps,
            means,
            yerr=np.stack([means - low, high - means]),
            fmt="none",
            ecolor=COLOURS[0],
            elinewidth=1,
            capsize=2,
        )
        axes.annotate(
            f"{means[-1]:.0f}", (steps[-1], means[-1]), xytext=(6, 0), textcoords="offset points", va="center",
            color=COLOURS[0], fontweight="bold",
        )  # fmt: skip
    return _finish(figure, axes, path, data.path)


def learning_curves(
    runs: Mapping[str, Sequence[Run]],
    *,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    single: bool = True,
) -> Figure:
    """Several groups of runs, one curve each: the interquartile mean over seeds with its 95 % bootstrap band.

    Args:
        runs: group name (a method, a preset) to its runs, one a training seed.
        path: where to save the figure; None: nowhere.
        title: None: the envs of the runs.
        single: also draw every run as a thin line.

    Raises:
        RobotRLError: a group has no run with evaluations.
    """
    loaded = {name: [r if isinstance(r, RunData) else load_run(r) for r in group] for name, group in runs.items()}
    envs = sorted({str((r.settings.get("env") or {}).get("id")) for group in loaded.values() for r in group})
    figure, axes = _canvas(title or ", ".join(envs))
    for colour, (name, group) in zip(_cycle(len(loaded)), loaded.items(), strict=True):
        steps, table = evaluation_table(group, name)
        centre = iqm(table, axis=0)
        seeds = len(table)
        if single and seeds > 1:
            axes.plot(steps, table.T, color=colour, alpha=0.25, linewidth=0.7)
        if seeds > 1:
            low, high = np.array([bootstrap_interval(column, iqm) for column in table.T]).T
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        of = f"IQM of {seeds} seeds, 95 % interval" if seeds > 1 else "one seed, no interval"
        axes.plot(steps, centre, "o-", color=colour, markersize=4, linewidth=1.8, label=f"{name} ({of})")
    return _finish(figure, axes, path, Path(".".join(loaded)))


def evaluation_table(runs: Sequence[RunData], name: str = "") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Evaluation returns of several runs at common env steps `[s]`, as `[runs, s]`.

    Runs evaluated at other steps are interpolated between their own evaluations, over the range all of them cover.

    Raises:
        RobotRLError: a run without evaluations, or ranges that do not overlap.
    """
    curves = []
    for run in runs:
        if not run.evaluations:
            raise RobotRLError(f"{run.path} has no evaluations yet. Wait for one, or set eval_every= when training.")
        curves.append((np.array(list(run.evaluations), dtype=float), [r.mean for r in run.evaluations.values()]))
    if not curves:
        raise RobotRLError(f"There are no runs in the group '{name}'.")
    start, end = max(s[0] for s, _ in curves), min(s[-1] for s, _ in curves)
    grid = np.unique(np.concatenate([s for s, _ in curves]))
    grid = grid[(grid >= start) & (grid <= end)]
    if not grid.size:
        raise RobotRLError(f"The runs of the group '{name}' were evaluated at env steps that do not overlap.")
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in curves])


def _canvas(title: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("env steps (agent decisions)")
    axes.set_ylabel("return (undiscounted)")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(visible=True, color="#e4e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: Axes, path: str | os.PathLike[str] | None, what: Path) -> Figure:
    handles, _ = axes.get_legend_handles_labels()
    if not handles:
        raise RobotRLError(f"{what} has nothing to plot yet: no training return and no evaluation.")
    axes.margins(x=0.04)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=1 if len(handles) > 2 else 2)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _interval_or_point(interval: tuple[float, float], value: float) -> tuple[float, float]:
    return interval if np.isfinite(interval[0]) else (value, value)


def _cycle(count: int) -> list[Any]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
