"""Writes the suite's meshes, which are ours: the gripper's palm (a bevelled prism) and the bowl (turned on a lathe).

python -m robotrl.assets.tabletop.meshes
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
Mesh = tuple[NDArray[np.float64], list[tuple[int, int, int]]]
"""Vertices `[V, 3]` in metres, and triangles as vertex numbers from 0, counter-clockwise seen from outside."""


def prism(outline: NDArray[np.float64], half_depth: float, bevel: float) -> Mesh:
    """`outline [K, 2]` (convex, counter-clockwise, in y and z) drawn out along x, its ends `bevel` narrower."""
    middle = outline.mean(axis=0)
    inner = middle + (outline - middle) * (1 - bevel / np.abs(outline - middle).max(axis=0))
    rings = [(-half_depth, inner), (bevel - half_depth, outline), (half_depth - bevel, outline), (half_depth, inner)]
    vertices = np.concatenate([np.column_stack([np.full(len(ring), x), ring]) for x, ring in rings])
    count = len(outline)
    faces = _band(0, count) + _band(count, count) + _band(2 * count, count)
    faces += [(0, k + 1, k) for k in range(1, count - 1)]
    faces += [(3 * count, 3 * count + k, 3 * count + k + 1) for k in range(1, count - 1)]
    return vertices, faces


def lathe(profile: NDArray[np.float64], count: int) -> Mesh:
    """`profile [K, 2]` (radius and height, from the axis below to the axis above) turned about z in `count` steps."""
    angles = 2 * np.pi * np.arange(count) / count
    rings = [np.column_stack([r * np.cos(angles), r * np.sin(angles), np.full(count, z)]) for r, z in profile]
    faces = [face for k in range(len(profile) - 1) for face in _band(k * count, count)]
    return np.concatenate(rings), faces


def _band(first: int, count: int) -> list[tuple[int, int, int]]:
    """Triangles between a ring of `count` vertices and the next one."""
    faces = []
    for k in range(count):
        a, b = first + k, first + (k + 1) % count
        faces += [(a, b, b + count), (a, b + count, a + count)]
    return faces


def text(mesh: Mesh) -> str:
    """The mesh as Wavefront OBJ; triangles without area, at a lathe's axis, are left out."""
    vertices, faces = mesh
    solid = []
    for a, b, c in faces:
        if np.linalg.norm(np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])) > 1e-12:
            solid.append((a, b, c))
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in solid]
    return "\n".join(lines) + "\n"


def palm() -> Mesh:
    """The gripper's body, 20 cm wide; z points to the fingers."""
    half = [(0.035, 0.0), (0.07, 0.006), (0.1, 0.03), (0.1, 0.05), (0.092, 0.056)]
    outline = np.array(half + [(-y, z) for y, z in reversed(half)])
    return prism(outline, half_depth=0.03, bevel=0.008)


def bowl() -> Mesh:
    """A bowl 5 cm high, 17 cm across."""
    outside = [(0.0, 0.0), (0.05, 0.0), (0.062, 0.006), (0.074, 0.024), (0.083, 0.044)]
    inside = [(0.079, 0.045), (0.069, 0.026), (0.058, 0.010), (0.046, 0.006), (0.0, 0.006)]
    return lathe(np.array(outside + inside), count=32)


def main() -> None:
    """Write the files beside this one."""
    for name, mesh in (("palm", palm()), ("bowl", bowl())):
        (HERE / f"{name}.obj").write_text(text(mesh), encoding="utf-8")


if __name__ == "__main__":
    main()
