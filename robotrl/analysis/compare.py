"""Two policies on the same episodes: the paired difference with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robotrl.functional.statistics import PairedDifference, paired_difference
from robotrl.runners.eval_result import EvalResult, columns
from robotrl.types import RobotRLError


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """B minus A over the episodes both played. Prints as a table."""

    a: EvalResult
    b: EvalResult
    name_a: str
    name_b: str
    difference: PairedDifference
    """Of the returns."""
    success: PairedDifference | None
    """Of the successes (0 or 1); None where the env has no notion of success."""

    def __str__(self) -> str:
        rows = [("", "return, mean", "95 % interval", "success")]
        for name, result in ((f"A  {self.name_a}", self.a), (f"B  {self.name_b}", self.b)):
            rate = "" if result.successes is None else f"{sum(result.successes)}/{result.n}"
            rows.append((name, f"{result.mean:.2f}", "[{:.2f}, {:.2f}]".format(*result.mean_interval), rate))
        d = self.difference
        span = "[{:+.2f}, {:+.2f}]".format(*d.interval) if np.isfinite(d.interval[0]) else "unknown from one pair"
        change = (
            ""
            if self.success is None
            else "{:+.2f} [{:+.2f}, {:+.2f}]".format(self.success.mean, *self.success.interval)
        )
        rows.append(("B - A, paired", f"{d.mean:+.2f}", span, change))
        verdict = f"{'B' if d.mean > 0 else 'A'} is better" if d.decided else "no difference is established"
        tally = f"{verdict} on these episodes: B won {d.wins}, lost {d.losses}, tied {d.n - d.wins - d.losses}"
        title = f"{self.a.env_id}: n = {d.n} pairs of episodes, starts (seed {self.a.seed}, 0..{d.n - 1})"
        note = "These are two trained policies. To compare two methods, train each with several seeds."
        return "\n".join([title, columns(rows), tally + ".", note])

    __repr__ = __str__  # what a notebook shows


def compare(a: EvalResult, b: EvalResult, *, name_a: str = "A", name_b: str = "B") -> Comparison:
    """Pair the episodes of two evaluations by their index; where one has more, the surplus is left out.

    Raises:
        RobotRLError: the evaluations are of other envs or other seeds, so that no two episodes belong together.
    """
    if a.env_id != b.env_id:
        raise RobotRLError(f"A was evaluated on {a.env_id} and B on {b.env_id}: their returns cannot be compared.")
    if a.seed != b.seed:
        raise RobotRLError(
            f"A was evaluated with seed {a.seed} and B with seed {b.seed}, so their episodes do not start alike. "
            f"Evaluate one of them again with the other's seed."
        )
    n = min(a.n, b.n)
    first, second = _first(a, n), _first(b, n)
    success = None
    if first.successes is not None and second.successes is not None:
        success = paired_difference(np.asarray(first.successes, float), np.asarray(second.successes, float))
    difference = paired_difference(first.returns, second.returns)
    return Comparison(first, second, name_a, name_b, difference, success)


def _first(result: EvalResult, n: int) -> EvalResult:
    successes = None if result.successes is None else result.successes[:n]
    return EvalResult(
        result.env_id, result.seed, result.returns[:n], result.lengths[:n], successes, result.explore, meta=result.meta
    )
