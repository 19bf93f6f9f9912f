"""Which rows a part of a batch gets: uniformly, in shares per value of a column, or in proportion to a column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.types import Part, RobotRLError

Column = Callable[[str, NDArray[np.int64]], NDArray[Any]]


class RowSampler:
    """Draws row numbers in `first .. end - 1`, with a generator of its own.

    What a column implies (its cumulative sum, its rows by value) is worked out again only when the data changed.

    Args:
        seed: of the generator.
        column: field name and rows to the values there.
    """

    def __init__(self, seed: int, column: Column) -> None:
        self.generator = np.random.default_rng(seed)
        self._column = column
        self._known: dict[tuple[str, str], tuple[tuple[int, int, int], tuple[NDArray[Any], ...]]] = {}

    def draw(self, part: Part, first: int, end: int, changes: int) -> NDArray[np.int64]:
        """`part.batch_size` rows, drawn independently.

        Args:
            part: its `stratify_by` and `weight_by` choose how.
            first: the first row that may be drawn.
            end: one more than the last.
            changes: a number that differs whenever the data do.

        Raises:
            RobotRLError: the column is missing or holds what it must not.
        """
        if part.stratify_by is not None and part.weight_by is not None:
            raise RobotRLError("A part is either stratified or weighted: give stratify_by or weight_by, not both.")
        if part.shares is not None:
            return self._shared(part, first, end, changes)
        if part.stratify_by is not None:
            return self._stratified(part, part.stratify_by, first, end, changes)
        if part.weight_by is not None:
            return self._weighted(part.weight_by, part.batch_size, first, end, changes)
        # half the time of `integers`, whose exactness would show after 2**53 / (end - first) draws
        return first + (self.generator.random(part.batch_size) * (end - first)).astype(np.int64)

    def _stratified(self, part: Part, key: str, first: int, end: int, changes: int) -> NDArray[np.int64]:
        """Equal shares of the values present, ordered by value; what does not divide goes to values by lot."""
        order, starts, sizes, values = self._facts("strata", key, (first, end, changes), _strata)
        check_strata(key, part.strata, values)
        count = part.batch_size
        shares = np.full(len(sizes), count // len(sizes))
        shares[self.generator.choice(len(sizes), count % len(sizes), replace=False)] += 1
        value = np.repeat(np.arange(len(sizes)), shares)
        within = (self.generator.random(count) * sizes[value]).astype(np.int64)
        rows: NDArray[np.int64] = first + order[starts[value] + within]
        return rows

    def _shared(self, part: Part, first: int, end: int, changes: int) -> NDArray[np.int64]:
        """A value for each row by lot, then a row of that value: as fast for many rows as for few."""
        key = part.stratify_by
        if key is None:
            raise RobotRLError("A part with shares needs stratify_by, the field that they are shares of.")
        order, starts, sizes, values = self._facts("strata", key, (first, end, changes), _strata)
        shares = np.asarray(part.shares, dtype=np.float64)
        if not np.isfinite(shares).all() or (shares < 0).any():
            raise RobotRLError(f"The shares of '{key}' must be finite and not negative.")
        known = (values >= 0) & (values < len(shares))
        lot = np.cumsum(np.where(known, shares[np.where(known, values, 0)], 0.0))
        if lot[-1] <= 0:
            raise RobotRLError(f"No row has a value of '{key}' with a share: the values are {values[:8].tolist()}.")
        drawn = np.searchsorted(lot, self.generator.random(part.batch_size) * lot[-1], side="right")
        value = np.minimum(drawn, np.searchsorted(lot, lot[-1]))  # the product may round up to the whole sum
        within = (self.generator.random(part.batch_size) * sizes[value]).astype(np.int64)
        rows: NDArray[np.int64] = first + order[starts[value] + within]
        return rows

    def _weighted(self, key: str, count: int, first: int, end: int, changes: int) -> NDArray[np.int64]:
        sums, last = self._facts("weights", key, (first, end, changes), _cumulative)
        index = np.searchsorted(sums, self.generator.random(count) * sums[-1], side="right")
        rows: NDArray[np.int64] = first + np.minimum(index, last)  # the product may round up to the whole sum
        return rows

    def _facts(
        self, kind: str, key: str, version: tuple[int, int, int], work_out: Callable[..., tuple[NDArray[Any], ...]]
    ) -> tuple[NDArray[Any], ...]:
        known = self._known.get((kind, key))
        if known is None or known[0] != version:
            known = version, work_out(key, self._column(key, np.arange(version[0], version[1])))
            self._known[kind, key] = known
        return known[1]


def check_strata(key: str, strata: int | None, values: NDArray[Any]) -> None:
    """Raise unless the sorted `values` of a field are 0 .. `strata` - 1; None asks for nothing.

    Raises:
        RobotRLError: they are not.
    """
    if strata is None or np.array_equal(values, np.arange(strata)):
        return
    there = f"{int(values[0])} to {int(values[-1])}" if len(values) else "none"
    raise RobotRLError(
        f"The learner needs data of every '{key}' from 0 to {strata - 1}, as it has something of its own for each, "
        f"but the values there are {there}. Record episodes of exactly that length, in the env that it is trained in."
    )


def _strata(key: str, values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Rows ordered by value, where each value starts, how many rows it has, and the values."""
    if values.dtype.kind not in "iub" or values.ndim != 1:
        raise RobotRLError(f"stratify_by needs a field of one integer a step, but '{key}' is {values.dtype}.")
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return order, starts, np.diff(starts, append=len(values)), ordered[starts]


def _cumulative(key: str, values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Cumulative weights in float64, and the last row that has any."""
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise RobotRLError(
            f"weight_by needs one finite weight a step, none negative and some positive, but '{key}' has others. "
            "Check what the policy or the learner stores there."
        )
    return np.cumsum(values, dtype=np.float64), np.flatnonzero(values)[-1:]
