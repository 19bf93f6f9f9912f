"""A lock as a picture: a column for each step, a line for each hidden state, the present one lit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PAPER, _GOOD, _DEAD, _LIT = (250, 250, 246), (196, 214, 232), (222, 222, 222), (214, 110, 32)


def draw_lock(
    height: int, width: int, horizon: int, latent: int, step: int, shown: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """`[height, width, 3]`.

    Args:
        height: pixels.
        width: pixels.
        horizon: steps of the lock; one more column is for the end.
        latent: hidden state, 0 to 2.
        step: 0 to `horizon`.
        shown: the picture `[h, w]` that is observed, put above the chain; None: the chain alone.
    """
    image = np.empty((height, width, 3), np.uint8)
    image[...] = _PAPER
    top = 0 if shown is None else height // 2
    if shown is not None:
        _paste(image[:top], shown)
    chain = image[top:]
    edges_x = np.linspace(0, width, horizon + 2).round().astype(int)
    edges_y = np.linspace(0, len(chain), 4).round().astype(int)
    for column in range(horizon + 1):
        for line in range(3):
            x0, x1, y0, y1 = edges_x[column], edges_x[column + 1], edges_y[line], edges_y[line + 1]
            gap_x, gap_y = max(1, (x1 - x0) // 8), max(1, (y1 - y0) // 8)
            lit = column == step and line == latent
            chain[y0 + gap_y : y1 - gap_y, x0 + gap_x : x1 - gap_x] = _LIT if lit else _DEAD if line == 2 else _GOOD
    return image


def _paste(into: NDArray[np.uint8], shown: NDArray[np.uint8]) -> None:
    """The picture in the middle, enlarged by a whole number where there is room."""
    scale = max(1, min(into.shape[0] // shown.shape[0], into.shape[1] // shown.shape[1]))
    large = shown.repeat(scale, 0).repeat(scale, 1)[: into.shape[0], : into.shape[1]]
    y, x = (into.shape[0] - large.shape[0]) // 2, (into.shape[1] - large.shape[1]) // 2
    into[y : y + large.shape[0], x : x + large.shape[1]] = large[..., None]


__all__ = ["draw_lock"]
