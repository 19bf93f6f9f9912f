"""What a tabletop task is: what stands on the table, what is said, when it is done, and how far along it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robotrl.envs.tabletop.kinematics import length, matrix_of_quaternion
from robotrl.envs.tabletop.layout import COLOUR_NAMES, NAMES, Draw, column, columns
from robotrl.envs.tabletop.scene import MAX_MARKS, MAX_OBJECTS, Props

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int = NDArray[np.int64]

BLOCK = 0.02
"""Half the width of a block, m: its centre's height when it lies on the table."""
BLOCK_RADIUS, BOWL_RADIUS, MAT_RADIUS = 0.047, 0.10, 0.075
"""Discs (m) kept clear of other things at an episode's start; between blocks the open gripper fits."""


@dataclass(slots=True, eq=False)
class Snapshot:
    """The simulations as they are now, one row each; absent objects lie at zero."""

    layout: Float
    tool: Float
    """Position `[N, 3]`, m."""
    tool_rot: Float
    """Rotation matrix `[N, 3, 3]`."""
    gap: Float
    """Between the fingers `[N]`, m."""
    objects: Float
    """Positions `[N, 3, 3]`, m."""
    quats: Float
    """`[N, 3, 4]`."""
    speeds: Float
    """`[N, 3, 3]`, m/s."""
    marks: Float
    """Positions of mats or buttons' tops `[N, 3, 3]`, m."""
    fixture: Float
    """Position and yaw `[N, 4]`."""
    parts: Float
    """Drawer, door or buttons `[N, 3]`: m, rad, m."""
    part_speeds: Float
    rows: Int
    """0 ... N - 1."""

    @property
    def target(self) -> Int:
        """Which object the instruction is about, `[N]`."""
        return column(self.layout, "target").astype(np.int64)

    @property
    def reference(self) -> Int:
        """Which object it is put on or beside, `[N]`."""
        return column(self.layout, "reference").astype(np.int64)

    @property
    def mark(self) -> Int:
        """Which mat or button, `[N]`."""
        return column(self.layout, "mark").astype(np.int64)

    def at(self, which: Int) -> Float:
        """Positions `[N, 3]` of the objects `which [N]`."""
        return self.objects[self.rows, which]

    def released(self, which: Int) -> Bool:
        """Whether the tool has left the objects `which [N]`, `[N]`."""
        return length(self.tool - self.at(which)) > 0.055

    def still(self, which: Int) -> Bool:
        """Whether the objects `which [N]` lie still, `[N]`."""
        return length(self.speeds[self.rows, which]) < 0.03

    def upright(self, which: Int) -> Bool:
        """Whether the objects `which [N]` have their own z axis within 10 degrees of up, `[N]`."""
        up: Bool = matrix_of_quaternion(self.quats[self.rows, which])[:, 2, 2] > np.cos(np.deg2rad(10))
        return up

    def in_fixture(self, points: Float) -> Float:
        """Points `[N, 3]` of the world in the fixture's own frame."""
        c, s = self._turn()
        x, y = points[:, 0] - self.fixture[:, 0], points[:, 1] - self.fixture[:, 1]
        return np.column_stack([c * x + s * y, c * y - s * x, points[:, 2]])

    def from_fixture(self, points: Float) -> Float:
        """The inverse of `in_fixture`."""
        c, s = self._turn()
        x, y = points[:, 0], points[:, 1]
        return np.column_stack([self.fixture[:, 0] + c * x - s * y, self.fixture[:, 1] + s * x + c * y, points[:, 2]])

    def _turn(self) -> tuple[Float, Float]:
        yaw = np.ascontiguousarray(self.fixture[:, 3])
        return np.cos(yaw), np.sin(yaw)


class TabletopTask:
    """Base of the tasks. They hold no state of their own: everything is a function of a `Snapshot`.

    A task's docstring is the sentence that `robotrl list tasks` shows.
    """

    success: ClassVar[str]
    """When it is done, in words; it has to stay so for half a second."""
    templates: ClassVar[tuple[str, ...]]
    """The instruction and its paraphrases: `{target}`, `{reference}` and `{mark}` stand for colours."""
    props: ClassVar[Props]
    seconds: ClassVar[float] = 10.0
    """Time limit."""
    held_out: ClassVar[tuple[str, ...]] = ()
    """Colours of what the instruction names first that `split=train` leaves out."""
    names: ClassVar[str] = "target"
    """What the instruction names first: `target`, `mark`, or nothing where it names no colour."""
    others: ClassVar[bool] = False
    """Whether another object of the scene could be named in its place, see `swapped`."""

    @classmethod
    def sentence(cls) -> str:
        """What is to be done."""
        return (cls.__doc__ or "").partition("\n")[0]

    def draw(self, draw: Draw) -> None:
        """Draw one episode's start: places, colours, what the instruction is about."""
        raise NotImplementedError

    def goal(self, s: Snapshot) -> Float:
        """Where the target (or the tool, where there is no target) is to be, `[N, 3]` m."""
        raise NotImplementedError

    def solved(self, s: Snapshot) -> Bool:
        """Whether the goal is met at this moment, `[N]`."""
        raise NotImplementedError

    def progress(self, s: Snapshot) -> Float:
        """How far along, in [0, 1], `[N]`; the shaped reward is its change."""
        raise NotImplementedError

    def instruction(self, layout: Float) -> str:
        """The sentence of one episode with layout `[len(NAMES)]`."""
        row = layout[None]
        template = self.templates[int(column(row, "paraphrase")[0])]
        target, reference, mark = (int(column(row, name)[0]) for name in ("target", "reference", "mark"))
        colour = {
            "target": column(row, f"object{target}/colour")[0],
            "reference": column(row, f"object{reference}/colour")[0],
            "mark": column(row, f"mark{mark}/colour")[0],
            "third": column(row, f"object{3 - target - reference}/colour")[0] if target != reference else -1.0,
        }
        return template.format(**{name: COLOUR_NAMES[int(c)] if c >= 0 else "white" for name, c in colour.items()})

    def first_colour(self, layout: Float) -> str:
        """The colour of what the instruction of one episode with layout `[len(NAMES)]` names first; empty: none."""
        if not self.names:
            return ""
        kind = "mark" if self.names == "mark" else "object"
        which = int(column(layout[None], self.names)[0])
        return COLOUR_NAMES[int(column(layout[None], f"{kind}{which}/colour")[0])]

    def swapped(self, layout: Float, colours: Sequence[int]) -> Float:
        """Layouts `[n, len(NAMES)]` of the same scenes, in which the instruction is about the next other object.

        Args:
            layout: as drawn, `[n, len(NAMES)]`.
            colours: numbers of those to prefer; where no other object has one of them, the colour does not matter.
        """
        swapped = layout.copy()
        kind, count = ("mark", MAX_MARKS) if self.names == "mark" else ("object", self.props.blocks)
        keep = "{reference}" in self.templates[0]
        for row, values in zip(swapped, layout[:, None], strict=True):
            old, reference = (int(column(values, name)[0]) for name in (self.names, "reference"))
            others = [(old + k) % count for k in range(1, count)]
            others = [k for k in others if not (keep and k == reference)]
            preferred = [k for k in others if int(column(values, f"{kind}{k}/colour")[0]) in colours]
            new = (preferred or others)[0]
            row[NAMES.index(self.names)] = new
            if new == reference and self.names == "target":
                row[NAMES.index("reference")] = old
        return swapped

    def allowed(self, split: str) -> list[int]:
        """Numbers of the colours that what the instruction names first can have."""
        if split == "all":
            return list(range(len(COLOUR_NAMES)))
        return [i for i, name in enumerate(COLOUR_NAMES) if (name in self.held_out) == (split == "held_out")]


def labels(name: str, task: TabletopTask, layout: Float) -> dict[str, list[str]]:
    """What the episodes of `layout [n, len(NAMES)]` are called, a text an episode.

    Returns:
        `task`, `instruction`, `paraphrase` (its wording, colours left open), `pair` (task and first colour, with a note
        where that is held out).
    """
    texts: dict[str, list[str]] = {"task": [], "instruction": [], "paraphrase": [], "pair": []}
    for row, wording in zip(layout, column(layout, "paraphrase").astype(int), strict=True):
        colour = task.first_colour(row)
        texts["task"].append(name)
        texts["instruction"].append(task.instruction(row))
        texts["paraphrase"].append(task.templates[wording])
        texts["pair"].append(f"{name} {colour}".strip() + (", held out" if colour in task.held_out else ""))
    return texts


def near(a: Float, b: Float, scale: float = 5.0) -> Float:
    """1 where `a` meets `b [N, 3]`, falling to 0 over some `2 / scale` metres, `[N]`."""
    closeness: Float = 1.0 - np.tanh(scale * length(a - b))
    return closeness


def flat(a: Float, b: Float) -> Float:
    """Horizontal distance of `a` and `b [N, 3]`, `[N]` m."""
    x, y = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    distance: Float = np.sqrt(x * x + y * y)
    return distance


def share(value: Float, whole: float) -> Float:
    """`value / whole`, clipped to [0, 1]."""
    return np.clip(value / whole, 0.0, 1.0)


def lifted(position: Float, height: float = 0.08) -> Float:
    """How much of `height` (m) a block has been lifted, `[N]` in [0, 1]."""
    return share(position[:, 2] - BLOCK, height)


def carried(s: Snapshot, target: Float, goal: Float) -> Float:
    """Progress of bringing the block at `target` to `goal [N, 3]`: reach it, lift it, bring it, `[N]` in [0, 1]."""
    there = near(target, goal)
    return 0.2 * near(s.tool, target) + 0.2 * np.maximum(lifted(target), (there > 0.85)) + 0.6 * there


def marks_of(layout: Float, height: float = 0.0) -> Float:
    """Positions `[N, 3, 3]` (m) of the mats as they were drawn."""
    places = np.zeros((len(layout), MAX_MARKS, 3))
    for k in range(MAX_MARKS):
        places[:, k, :2] = columns(layout, f"mark{k}/x", f"mark{k}/y")
    places[..., 2] = height
    return places


__all__ = [
    "BLOCK", "BLOCK_RADIUS", "BOWL_RADIUS", "MAT_RADIUS", "MAX_OBJECTS", "Bool", "Float", "Int", "Snapshot",
    "TabletopTask", "carried", "flat", "labels", "lifted", "marks_of", "near", "share",
]  # fmt: skip
