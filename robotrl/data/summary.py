"""A data set in a few lines."""

from __future__ import annotations

from collections import Counter

import numpy as np

from robotrl.data.dataset import Dataset


def describe(dataset: Dataset) -> str:
    """What it is of, how much, and what its steps hold."""
    lengths = [e.length for e in dataset.episodes]
    hours = sum(lengths) / dataset.fps / 3600
    size = sum(path.stat().st_size for path in dataset.root.rglob("*") if path.is_file())
    rows = [
        ("episodes", f"{len(lengths):,}"),
        ("steps", f"{sum(lengths):,} at {dataset.fps:g} a second ({_clock(hours)})"),
        ("length", f"{min(lengths)} to {max(lengths)} steps, median {np.median(lengths):g}" if lengths else "-"),
        ("on disk", f"{size / 1e6:.1f} MB"),
    ]
    spec = dataset.env_spec
    if spec is not None:
        rows.append(("env", spec.id))
    known = [e.success for e in dataset.episodes if e.success is not None]
    if known:
        rows.append(("success", f"{sum(known)} of the {len(known)} episodes that say so"))
    tasks = Counter(task for e in dataset.episodes for task in e.tasks)
    for i, (task, count) in enumerate(tasks.most_common(6)):
        rows.append(("" if i else "tasks", f"{count:5d} x {task}"))
    if len(tasks) > 6:
        rows.append(("", f"and {len(tasks) - 6} more"))
    for i, (name, key) in enumerate(dataset.fields.items()):
        feature = dataset.features[key]
        what = f"{feature.dtype}{list(feature.shape)}"
        rows.append(("" if i else "fields", f"{name:24} {what:20} {key}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join([f"{dataset.root}: LeRobotDataset v3.0", *(f"  {n:<{width}}  {text}" for n, text in rows)])


def _clock(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"


__all__ = ["describe"]
