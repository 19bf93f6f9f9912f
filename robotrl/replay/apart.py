"""Rows kept beside a ring: first in, first out, in arrays that grow as needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.types import StateDict

Rows = NDArray[np.int64]

SEGMENT_BYTES = 1 << 24
"""A checkpoint gets each field in pieces of about this size, so that pieces which did not change can be shared."""


class Apart:
    """Fields of rows that are numbered from 0 on, and whose oldest ones are dropped.

    Args:
        like: by field, an array `[..., *shape]` of the type and shape of a row's.
        axes: how many axes of those stand before a row's.
        capacity: rows for which there is room at first.
    """

    def __init__(self, like: Mapping[str, NDArray[Any]], axes: int, capacity: int) -> None:
        self._fields = {key: np.zeros((capacity, *v.shape[axes:]), v.dtype) for key, v in like.items()}
        self._first = self._end = 0

    def __len__(self) -> int:
        """Rows that are here."""
        return self._end - self._first

    def add(self, values: Mapping[str, NDArray[Any]]) -> Rows:
        """Append rows `[M, ...]` of every field; their numbers."""
        count, capacity = len(next(iter(values.values()))), self._capacity
        if len(self) + count > capacity:
            here = np.arange(self._first, self._end)
            bigger = max(2 * capacity, len(self) + count)
            for key, old in self._fields.items():
                self._fields[key] = np.zeros((bigger, *old.shape[1:]), old.dtype)
                self._fields[key][here % bigger] = old[here % capacity]
            capacity = bigger
        ids = np.arange(self._end, self._end + count)
        for key, value in values.items():
            self._fields[key][ids % capacity] = value
        self._end += count
        return ids

    def drop(self, count: int) -> None:
        """The oldest `count` rows go."""
        self._first += count

    def take(self, key: str, ids: Rows) -> NDArray[Any]:
        """One field of the rows numbered `ids`; a copy."""
        values: NDArray[Any] = self._fields[key].take(ids % self._capacity, axis=0, mode="clip")
        return values

    @property
    def _capacity(self) -> int:
        return len(next(iter(self._fields.values())))

    def state_dict(self) -> StateDict:
        """The contents; arrays are views, in pieces."""
        fields = {key: segments(value) for key, value in self._fields.items()}
        return {"fields": fields, "first": self._first, "end": self._end}

    @classmethod
    def of(cls, state: StateDict) -> Apart:
        """What `state_dict` was taken of."""
        fields = {key: joined(value, sum(map(len, value))) for key, value in state["fields"].items()}
        apart = cls(fields, 1, 0)
        apart._fields, apart._first, apart._end = fields, int(state["first"]), int(state["end"])
        return apart


def segments(field: NDArray[Any]) -> list[NDArray[Any]]:
    """A field in pieces of about `SEGMENT_BYTES`, views."""
    rows = max(1, SEGMENT_BYTES // max(1, field[:1].nbytes))
    return [field[i : i + rows] for i in range(0, max(1, len(field)), rows)]


def joined(pieces: Sequence[NDArray[Any]], size: int) -> NDArray[Any]:
    """The inverse of `segments`, with zeros up to `size` rows."""
    field = np.zeros((size, *pieces[0].shape[1:]), pieces[0].dtype)
    start = 0
    for piece in pieces:
        field[start : start + len(piece)] = piece
        start += len(piece)
    return field


__all__ = ["SEGMENT_BYTES", "Apart", "Rows", "joined", "segments"]
