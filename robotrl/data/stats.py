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


def array_stats(values: NDArray[Any], lengths: NDArray[np.int64]) -> Stats:
    """Of one column of several episodes, one after the other.

    Args:
        values: `[T, ...]`, all episodes'.
        lengths: of each episode, `[E]`; they sum to T.

    Returns:
        Of each episode arrays of a step's shape, `[1]` for numbers: `[E, ...]`.
    """
    x = values.astype(np.float64).reshape(len(values), *(values.shape[1:] or (1,)))
    starts = np.cumsum(lengths) - lengths
    found: Stats = {name: np.empty((len(lengths), *x.shape[1:])) for name in STATISTICS}
    found["count"] = lengths[:, None].copy()
    for length in np.unique(lengths):  # episodes of one length at once: there may be thousands of a few steps
        which = np.flatnonzero(lengths == length)
        part = x[starts[which][:, None] + np.arange(length)]
        found["min"][which], found["max"][which] = part.min(1), part.max(1)
        found["mean"][which], found["std"][which] = part.mean(1), part.std(1)
        for name, quantile in zip(QUANTILES, np.quantile(part, list(QUANTILES.values()), axis=1), strict=True):
            found[name][which] = quantile
    return found


def stacked(parts: Sequence[Stats]) -> Stats:
    """The statistics of one feature in several episodes, `[E, ...]`."""
    return {name: np.stack([part[name] for part in parts]) for name in STATISTICS}


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
    return together({n: np.stack([np.asarray(p[n]) for p in parts]) for n in STATISTICS if n in parts[0]})


def together(stack: Stats) -> Stats:
    """The statistics of one feature in all episodes together, from those in each, `[E, ...]`."""
    counts = stack["count"].reshape(-1).astype(np.float64)
    weight = (counts / counts.sum()).reshape(len(counts), *[1] * (stack["mean"].ndim - 1))
    mean = (stack["mean"] * weight).sum(0)
    variance = ((stack["std"] ** 2 + (stack["mean"] - mean) ** 2) * weight).sum(0)
    found: Stats = {"min": stack["min"].min(0), "max": stack["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
    found["count"] = np.array([int(counts.sum())])
    found.update({name: (stack[name] * weight).sum(0) for name in QUANTILES if name in stack})
    return found


def to_json(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arrays as lists."""
    return {key: {name: np.asarray(v).tolist() for name, v in values.items()} for key, values in stats.items()}


__all__ = ["STATISTICS", "Stats", "array_stats", "image_stats", "joined", "stacked", "to_json", "together"]
