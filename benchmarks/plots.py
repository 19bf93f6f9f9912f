"""Learning curves of a claim as pictures, one a task: mean over seeds, and each seed or, of many, their band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import lib

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Distinguishable without colour vision (Okabe and Ito)."""
MOST_LINES = 10
"""Up to so many seeds each has a line: two seeds that learned nothing and one that did are no band."""


def names(suite: str, claim: str, curves: Path) -> list[tuple[str, str]]:
    """(task, file name) of every picture of these curves."""
    tasks = sorted({row["task"] for row in lib.read_curves(curves)})
    return [(task, f"{suite}-{claim}-{task}.png") for task in tasks]


def draw(suite: str, claim: str, curves: Path, directory: Path, *, label: str = "evaluation return") -> list[Path]:
    """Write the pictures, with `label` on the vertical axis; returns their paths."""
    rows = lib.read_curves(curves)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for task, name in names(suite, claim, curves):
        paths.append(directory / name)
        _draw(task, [row for row in rows if row["task"] == task], paths[-1], label)
    return paths


def points(rows: list[dict[str, Any]]) -> dict[int, dict[int, float]]:
    """Mean return of an evaluation by env steps and seed."""
    episodes: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        episodes.setdefault(row["env_steps"], {}).setdefault(row["seed"], []).append(row["return"])
    return {
        step: {seed: sum(returns) / len(returns) for seed, returns in seeds.items()}
        for step, seeds in sorted(episodes.items())
    }


def _draw(task: str, rows: list[dict[str, Any]], path: Path, label: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.add_subplot()
    banded = len({row["seed"] for row in rows}) > MOST_LINES
    for colour, arm in zip(COLOURS, sorted({row["arm"] for row in rows}), strict=False):
        curve = points([row for row in rows if row["arm"] == arm])
        seeds = {seed for values in curve.values() for seed in values}
        # A run that stopped early would make the mean jump: only points that all seeds have.
        steps = [step for step, values in curve.items() if set(values) == seeds]
        thousand = [step / 1000 for step in steps]
        spread = [list(curve[step].values()) for step in steps]
        axes.plot(thousand, [sum(v) / len(v) for v in spread], color=colour, label=f"{arm}, n = {len(seeds)}")
        if banded:
            axes.fill_between(thousand, [min(v) for v in spread], [max(v) for v in spread], color=colour, alpha=0.15)
            continue
        for seed in sorted(seeds) if len(seeds) > 1 else ():
            own = [(step / 1000, values[seed]) for step, values in curve.items() if seed in values]
            axes.plot(*zip(*own, strict=True), color=colour, alpha=0.4, linewidth=0.6)
    axes.set_title(f"{task}: mean over seeds, and {'their band' if banded else 'each seed'}", fontsize=10)
    axes.set_xlabel("env steps, thousands")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
