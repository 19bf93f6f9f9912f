"""What is drawn at an episode's start, as named numbers: logged, saved, and put back to replay the episode's start.

Every task has the same names, so that rows of different tasks can be compared; what a task does not use is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.envs.tabletop.scene import COLOURS, MAX_MARKS, MAX_OBJECTS, WHITE
from robotrl.registry import nearest
from robotrl.types import RobotRLError

Float = NDArray[np.float64]

NAMES: tuple[str, ...] = (
    *(f"joint{i}" for i in range(1, 8)),
    *(f"object{k}/{what}" for k in range(MAX_OBJECTS) for what in ("x", "y", "yaw", "colour")),
    *(f"mark{k}/{what}" for k in range(MAX_MARKS) for what in ("x", "y", "yaw", "colour")),
    *(f"fixture/{what}" for what in ("x", "y", "yaw")),
    "opening", "target", "reference", "mark", "paraphrase",
)  # fmt: skip
"""Units: m and rad; colours are numbers in the order of `COLOURS`, -1 for white; `opening` is m of a drawer or rad of a
door; `target`, `reference` and `mark` say which object, object and mark the instruction is about."""
_AT = {name: k for k, name in enumerate(NAMES)}
COLOUR_NAMES = tuple(COLOURS)

AREA = ((0.37, 0.61), (-0.25, 0.25))
"""x and y (m) where things are put unless a task says otherwise."""


class Draw:
    """One episode's numbers, being drawn."""

    def __init__(self, rng: np.random.Generator, colours: Sequence[int]) -> None:
        """`colours`: what the target may be coloured, as numbers."""
        self.rng, self.colours = rng, colours
        self.values: Float = np.zeros(len(NAMES))
        self._taken: list[tuple[float, float, float]] = []

    def __setitem__(self, name: str, value: float) -> None:
        self.values[_AT[name]] = value

    def __getitem__(self, name: str) -> float:
        return float(self.values[_AT[name]])

    def keep_clear(self, x: float, y: float, radius: float) -> None:
        """Nothing that is put down later may overlap this disc (m)."""
        self._taken.append((x, y, radius))

    def put(
        self,
        names: Sequence[str],
        radii: Sequence[float],
        *,
        area: tuple[tuple[float, float], tuple[float, float]] = AREA,
        yaw: float = np.pi / 4,
    ) -> None:
        """Put things down where their discs (m) overlap neither each other nor what is there; yaws within `yaw`."""
        before = list(self._taken)
        for _ in range(1000):
            self._taken = list(before)
            if all(self._put_one(name, radius, area) for name, radius in zip(names, radii, strict=True)):
                break
        else:
            raise AssertionError(f"no room for {names}")
        for name in names:
            self[f"{name}/yaw"] = self.rng.uniform(-yaw, yaw)

    def _put_one(self, name: str, radius: float, area: tuple[tuple[float, float], tuple[float, float]]) -> bool:
        for _ in range(50):
            x, y = self.rng.uniform(*area[0]), self.rng.uniform(*area[1])
            if all((x - a) ** 2 + (y - b) ** 2 > (radius + r) ** 2 for a, b, r in self._taken):
                self[f"{name}/x"], self[f"{name}/y"] = x, y
                self._taken.append((x, y, radius))
                return True
        return False

    def colour(self, first: str, others: Sequence[str]) -> None:
        """Give `first` one of the target's colours and `others` different ones of all."""
        chosen = int(self.rng.choice(self.colours))
        self[f"{first}/colour"] = chosen
        rest = [c for c in range(len(COLOUR_NAMES)) if c != chosen]
        for name, colour in zip(others, self.rng.permutation(rest), strict=False):
            self[f"{name}/colour"] = colour


def rows_from(values: Mapping[str, Any], count: int) -> Float:
    """A layout `[count, len(NAMES)]` from a mapping of names to one number or `[count]` numbers.

    Raises:
        RobotRLError: a name is missing or unknown, or values are not finite or of another number.
    """
    for name in values:
        if name not in _AT:
            raise RobotRLError(f"A layout has no '{name}'.{nearest(str(name), list(NAMES))}")
    missing = [name for name in NAMES if name not in values]
    if missing:
        raise RobotRLError(f"The layout lacks {', '.join(missing)}. Give one that an env of this suite returned.")
    rows = np.empty((count, len(NAMES)))
    for name, value in values.items():
        column = np.asarray(value, np.float64)
        if column.shape not in ((), (count,)) or not np.isfinite(column).all():
            raise RobotRLError(f"The layout's '{name}' has shape {column.shape}; give {count} finite numbers, or one.")
        rows[:, _AT[name]] = column
    return rows


def columns(layout: Float, *names: str) -> Float:
    """Columns of `layout [N, len(NAMES)]`: `[N, len(names)]`."""
    return layout[:, [_AT[name] for name in names]]


def column(layout: Float, name: str) -> Float:
    """One column `[N]`."""
    values: Float = layout[:, _AT[name]]
    return values


_PALETTE = np.array([[*rgb, 1.0] for rgb in (*COLOURS.values(), WHITE)], np.float32)


def rgba(layout: Float, name: str) -> NDArray[np.float32]:
    """Colours `[N, 4]` of the column `name`; -1 is white."""
    return _PALETTE[column(layout, name).astype(np.int64)]


__all__ = ["AREA", "COLOUR_NAMES", "NAMES", "Draw", "column", "columns", "rgba", "rows_from"]
