"""Statistics of episodes and of whole data sets, in the form LeRobot's policies normalise with.

Per feature: min, max, mean, std, count and the quantiles q01 q10 q50 q90 q99. Those of an episode are exact (of every
step; of images, of a sample of at most 100 pictures, per channel and divided by 255). Those of a data set are joined
from its episodes': exact for all but the quantiles, which are averaged in proportion to the counts, as LeRobot does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATISTICS = ("min", "max", "mean", "std", "count", *QUANTILES)
SAMPLED_IMAGES = 100

Stats = dict[str, NDArray[Any]]


def array_stats(values: NDArray[Any]) -> Stats:
    """Of one column, `[T, ...]`: arrays of a step's shape, `[1]` for numbers."""
    x = values.astype(np.float64).reshape(len(values), *(values.shape[1:] or (1,)))
    found: Stats = {"min": x.min(0), "max": x.max(0), "mean": x.mean(0), "std": x.std(0)}
    found["count"] = np.array([len(x)])
    found.update(zip(QUANTILES, np.quantile(x, list(QUANTILES.values()), axis=0), strict=True))
    return found


def image_stats(images: NDArray[np.uint8]) -> Stats:
    """Of one camera, `[T, C, H, W]`: arrays `[C, 1, 1]` in [0, 1]. Exact for the sampled pictures, from histograms."""
    sample = images[np.unique(np.linspace(0, len(images) - 1, min(len(images), SAMPLED_IMAGES)).round().astype(int))]
    levels = np.arange(256) / 255.0
    per_channel: list[list[float]] = []
    for channel in range(sample.shape[1]):
        counts = np.bincount(sample[:, channel].reshape(-1), minlength=256)
        total, below = counts.sum(), np.cumsum(counts)
        mean = float((levels * counts).sum() / total)
        std = float(np.sqrt((counts * (levels - mean) ** 2).sum() / total))
        present = np.flatnonzero(counts)
        quantiles = levels[np.searchsorted(below, np.array(list(QUANTILES.values())) * (total - 1), side="right")]
        per_channel.append([levels[present[0]], levels[present[-1]], mean, std, *quantiles])
    table = np.asarray(per_channel).T[:, :, None, None]
    found = dict(zip(("min", "max", "mean", "std", *QUANTILES), table, strict=True))
    found["count"] = np.array([len(sample)])
    return found


def joined(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Stats]:
    """The statistics of all parts together; features that a part lacks are taken from the others."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: _joined([part[key] for part in parts if key in part]) for key in keys}


def _joined(parts: Sequence[Mapping[str, Any]]) -> Stats:
    stacked = {name: np.stack([np.asarray(p[name]) for p in parts]) for name in STATISTICS if name in parts[0]}
    counts = stacked["count"].astype(np.float64)
    weight = (counts / counts.sum()).reshape(len(parts), *[1] * (stacked["mean"].ndim - 1))
    mean = (stacked["mean"] * weight).sum(0)
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weight).sum(0)
    found: Stats = {"min": stacked["min"].min(0), "max": stacked["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
    found["count"] = np.array([int(counts.sum())])
    found.update({name: (stacked[name] * weight).sum(0) for name in QUANTILES if name in stacked})
    return found


def to_json(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arrays as lists."""
    return {key: {name: np.asarray(v).tolist() for name, v in values.items()} for key, values in stats.items()}


__all__ = ["STATISTICS", "array_stats", "image_stats", "joined", "to_json"]
