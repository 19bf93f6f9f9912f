"""Scores with their uncertainty: interquartile mean, bootstrap and Wilson intervals, paired differences.

Intervals of scores are percentile bootstraps, stratified where several groups (tasks, training seeds) are pooled, as in
Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021). With fewer than
about ten values a percentile bootstrap is somewhat too narrow. What a difference is decided by is Student's interval,
which is not: of two values a bootstrap reaches from one to the other and would call two of a sign a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Interval = tuple[float, float]
Statistic = Callable[..., Any]
"""`statistic(values, axis=-1)`: reduces one axis, vectorised over the others."""


def mean(values: ArrayLike, axis: int = -1) -> Any:
    """Arithmetic mean over `axis`."""
    return np.mean(np.asarray(values, dtype=np.float64), axis=axis)


def iqm(values: ArrayLike, axis: int = -1) -> Any:
    """Interquartile mean over `axis`: the mean of what is left when the lowest and highest quarter are cut off.

    Robust against outliers like a median, but uses half the values. Of n values `n // 4` are cut at each end, so it is
    the plain mean for n < 4.
    """
    return stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis)


def bootstrap_interval(
    values: ArrayLike, statistic: Statistic = mean, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of `statistic` over one sample.

    Args:
        values: `[n]`, independent values (returns of episodes, or one score a training seed).
        statistic: what is estimated; `mean`, `iqm`, or any `f(values, axis)`.
        confidence: coverage of the interval, in (0, 1).
        resamples: number of bootstrap resamples.
        seed: of the resampling; the same values and seed give the same interval.

    Returns:
        `(low, high)`; `(nan, nan)` for fewer than two values, from which no spread can be known.
    """
    return stratified_bootstrap_interval([values], statistic, confidence=confidence, resamples=resamples, seed=seed)


def stratified_bootstrap_interval(
    groups: Sequence[ArrayLike],
    statistic: Statistic = mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of `statistic` over the pooled groups, resampling within each group.

    Args:
        groups: one sample `[n_g]` a stratum, for example the scores of all seeds on one task.
        statistic: applied to all values together, as in `bootstrap_interval`.
        confidence: coverage of the interval, in (0, 1).
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        `(low, high)`; `(nan, nan)` where no group has two values.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    samples = [_checked(g) for g in groups if np.size(g)]
    if not samples:
        raise ValueError("an interval needs at least one value")
    if all(s.size < 2 for s in samples):
        return (float("nan"), float("nan"))
    if all(np.ptp(s) == 0 for s in samples):  # nothing to resample; also where scipy would warn of degenerate data
        value = float(statistic(np.concatenate(samples), axis=-1))
        return (value, value)
    rng = np.random.default_rng(seed)
    # Resampling one value gives this value again, which scipy refuses to do: it takes part as a constant.
    lone = np.concatenate([np.zeros(0), *(s for s in samples if s.size < 2)])
    several = tuple(s for s in samples if s.size >= 2)

    def pooled(*drawn: NDArray[np.float64], axis: int = -1) -> Any:
        fixed = np.broadcast_to(lone, (*drawn[0].shape[:-1], lone.size))
        return statistic(np.concatenate([*drawn, fixed], axis=-1), axis=axis)

    result = stats.bootstrap(
        several,
        pooled,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=rng,
    )
    return (float(result.confidence_interval.low), float(result.confidence_interval.high))


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate; honest at 0 of n and n of n, where the naive one has width zero.

    Raises:
        ValueError: `successes` is not within `[0, n]`.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return (0.0, 1.0)
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence_level=confidence, method="wilson")
    return (float(interval.low), float(interval.high))


def student_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of values `[n]`; `(nan, nan)` for fewer than two.

    Raises:
        ValueError: there are no values, or some are not finite.
    """
    sample = _checked(values)
    if not sample.size:
        raise ValueError("an interval needs at least one value")
    if sample.size < 2:
        return (float("nan"), float("nan"))
    half = float(stats.t.ppf(0.5 + confidence / 2.0, sample.size - 1) * stats.sem(sample))
    return (float(sample.mean()) - half, float(sample.mean()) + half)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better `b` is than `a` where both were measured on the same n items."""

    n: int
    mean: float
    """Mean of b - a."""
    interval: Interval
    """Student's interval of the mean, over pairs."""
    wins: int
    """Pairs with b > a."""
    losses: int
    """Pairs with b < a."""
    confidence: float = 0.95

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        low, high = self.interval
        return low > 0 or high < 0


def paired_difference(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> PairedDifference:
    """The difference `b - a` of two samples `[n]` whose i-th values belong together (same episode start, same seed).

    Pairing removes what the items have in common: the interval is about the difference, and narrower than two
    separate intervals suggest.

    Raises:
        ValueError: the samples differ in length, are empty, or hold values that are not finite.
    """
    first, second = _checked(a), _checked(b)
    if first.shape != second.shape:
        raise ValueError(f"pairs need samples of one length, got {first.size} and {second.size}")
    difference = second - first
    interval = student_interval(difference, confidence=confidence)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return PairedDifference(difference.size, float(difference.mean()), interval, wins, losses, confidence)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        raise ValueError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are not finite")
    return array
