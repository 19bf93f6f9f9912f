"""Tasks with blocks: reach, push, pick, place, stack, gather, sort, tower."""

from __future__ import annotations

from typing import override

import numpy as np

from robotrl.envs.tabletop.kinematics import length
from robotrl.envs.tabletop.layout import Draw, column
from robotrl.envs.tabletop.scene import Props
from robotrl.envs.tabletop.tasks.base import (
    BLOCK,
    BLOCK_RADIUS,
    BOWL_RADIUS,
    MAT_RADIUS,
    Bool,
    Float,
    Snapshot,
    TabletopTask,
    carried,
    flat,
    lifted,
    near,
)

_THREE = ("object0", "object1", "object2")


def _three_blocks(draw: Draw) -> None:
    """Three blocks of different colours; the first is the target, the second the reference."""
    draw.put(_THREE, [BLOCK_RADIUS] * 3)
    draw.colour("object0", _THREE[1:])
    draw["reference"] = 1


class Reach(TabletopTask):
    """Bring the gripper above the block of the named colour."""

    success = "the tool within 2 cm of the point 6 cm above the block's middle"
    templates = (
        "reach the {target} block",
        "move the gripper above the {target} block",
        "go to the {target} block",
        "hover over the {target} cube",
    )
    props = Props(blocks=3)
    seconds = 6.0
    held_out = ("purple",)
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        _three_blocks(draw)

    @override
    def goal(self, s: Snapshot) -> Float:
        return s.at(s.target) + np.array([0.0, 0.0, 0.06])

    @override
    def solved(self, s: Snapshot) -> Bool:
        return length(s.tool - self.goal(s)) < 0.02

    @override
    def progress(self, s: Snapshot) -> Float:
        return near(s.tool, self.goal(s))


class Push(TabletopTask):
    """Push the block of the named colour onto the white mat."""

    success = "the block lies on the table with its middle within 4 cm of the mat's, along both edges"
    templates = (
        "push the {target} block onto the white mat",
        "slide the {target} block to the white mat",
        "shove the {target} cube onto the mat",
        "move the {target} block to the mat without lifting it",
    )
    props = Props(blocks=3, mats=1)
    seconds = 15.0
    held_out = ("orange",)
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        x, y = draw.rng.uniform(0.46, 0.58), draw.rng.choice([-1.0, 1.0]) * draw.rng.uniform(0.02, 0.14)
        draw["mark0/x"], draw["mark0/y"], draw["mark0/colour"] = x, y, -1
        side = -np.sign(y) * draw.rng.uniform(0.0, 0.6)
        away = draw.rng.uniform(0.13, 0.2)
        bx = float(np.clip(x - away * np.cos(side), 0.36, 0.6))
        by = float(y + away * np.sin(side))
        draw["object0/x"], draw["object0/y"], draw["object0/yaw"] = bx, by, draw.rng.uniform(-0.4, 0.4)
        draw["mark0/yaw"] = draw["object0/yaw"]
        for t in (0.0, 0.25, 0.5, 0.75, 1.0):  # the way is clear
            draw.keep_clear(bx + t * (x - bx), by + t * (y - by), MAT_RADIUS)
        draw.keep_clear(bx - 0.06 * (x - bx) / away, by - 0.06 * (y - by) / away, MAT_RADIUS)
        draw.put(_THREE[1:], [BLOCK_RADIUS] * 2)
        draw.colour("object0", _THREE[1:])

    @override
    def goal(self, s: Snapshot) -> Float:
        return s.marks[:, 0] + np.array([0.0, 0.0, BLOCK])

    @override
    def solved(self, s: Snapshot) -> Bool:
        target, mat = s.at(s.target), s.marks[:, 0]
        yaw = np.ascontiguousarray(column(s.layout, "mark0/yaw"))
        c, turn = np.cos(yaw), np.sin(yaw)
        x, y = target[:, 0] - mat[:, 0], target[:, 1] - mat[:, 1]
        inside = (np.abs(c * x + turn * y) < 0.04) & (np.abs(c * y - turn * x) < 0.04)
        return inside & (target[:, 2] < BLOCK + 0.01)

    @override
    def progress(self, s: Snapshot) -> Float:
        target = s.at(s.target)
        return 0.3 * near(s.tool, target) + 0.7 * near(target, self.goal(s))


class Pick(TabletopTask):
    """Pick up the block of the named colour."""

    success = "the block is in the gripper, 10 cm above the table"
    templates = (
        "pick up the {target} block",
        "lift the {target} block",
        "grasp the {target} cube and raise it",
        "take the {target} block off the table",
    )
    props = Props(blocks=3)
    seconds = 10.0
    held_out = ("green",)
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        _three_blocks(draw)

    @override
    def goal(self, s: Snapshot) -> Float:
        goal = s.at(s.target).copy()
        goal[:, 2] = BLOCK + 0.12
        return goal

    @override
    def solved(self, s: Snapshot) -> Bool:
        target = s.at(s.target)
        return (target[:, 2] > BLOCK + 0.10) & (length(s.tool - target) < 0.04)

    @override
    def progress(self, s: Snapshot) -> Float:
        target = s.at(s.target)
        return 0.4 * near(s.tool, target) + 0.6 * lifted(target, 0.10)


class Place(TabletopTask):
    """Put the block of the named colour into the bowl."""

    success = "the block lies still in the bowl and the gripper has left it"
    templates = (
        "put the {target} block in the bowl",
        "place the {target} block into the bowl",
        "drop the {target} cube in the bowl",
        "the {target} block belongs in the bowl",
    )
    props = Props(blocks=3, fixture="bowl")
    seconds = 15.0
    held_out = ("blue",)
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        x, y = draw.rng.uniform(0.42, 0.56), draw.rng.uniform(-0.22, 0.22)
        draw["fixture/x"], draw["fixture/y"], draw["fixture/yaw"] = x, y, draw.rng.uniform(-np.pi, np.pi)
        draw.keep_clear(x, y, BOWL_RADIUS)
        _three_blocks(draw)

    @override
    def goal(self, s: Snapshot) -> Float:
        return s.fixture[:, :3] + np.array([0.0, 0.0, 0.026])

    @override
    def solved(self, s: Snapshot) -> Bool:
        target = s.at(s.target)
        inside = (flat(target, s.fixture) < 0.055) & (target[:, 2] < 0.05)
        return inside & s.released(s.target) & s.still(s.target)

    @override
    def progress(self, s: Snapshot) -> Float:
        return carried(s, s.at(s.target), self.goal(s))


def on_top(s: Snapshot, upper: Float, lower: Float) -> Bool:
    """Whether the block at `upper` lies on the one at `lower [N, 3]`, `[N]`."""
    return (flat(upper, lower) < 0.025) & (np.abs(upper[:, 2] - lower[:, 2] - 2 * BLOCK) < 0.006)


class Stack(TabletopTask):
    """Put the block of one colour on the block of another."""

    success = "the block lies still on the other and the gripper has left it"
    templates = (
        "put the {target} block on the {reference} block",
        "stack the {target} block on top of the {reference} block",
        "place the {target} cube onto the {reference} cube",
        "set the {target} block down on the {reference} one",
    )
    props = Props(blocks=3)
    seconds = 15.0
    held_out = ("yellow",)
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        _three_blocks(draw)

    @override
    def goal(self, s: Snapshot) -> Float:
        return s.at(s.reference) + np.array([0.0, 0.0, 2 * BLOCK])

    @override
    def solved(self, s: Snapshot) -> Bool:
        stacked = on_top(s, s.at(s.target), s.at(s.reference))
        return stacked & s.released(s.target) & s.still(s.target)

    @override
    def progress(self, s: Snapshot) -> Float:
        return carried(s, s.at(s.target), self.goal(s))


class Gather(TabletopTask):
    """Put the block of one colour right beside the block of another."""

    success = "both lie on the table, their middles 4 to 7.5 cm apart, and the gripper has left them"
    templates = (
        "put the {target} block next to the {reference} block",
        "move the {target} block beside the {reference} block",
        "bring the {target} cube close to the {reference} cube",
        "place the {target} block by the {reference} one",
    )
    props = Props(blocks=3)
    seconds = 15.0
    held_out = ("red",)
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        _three_blocks(draw)

    @override
    def goal(self, s: Snapshot) -> Float:
        # on the side of the table's middle, where there is room
        reference = s.at(s.reference)
        third = s.at(3 - s.target - s.reference)
        side = np.where(third[:, 0] > reference[:, 0], -1.0, 1.0)
        side = np.where(reference[:, 0] + 0.062 * side > 0.66, -1.0, side)
        goal = reference.copy()
        goal[:, 0] += 0.062 * side
        goal[:, 2] = BLOCK
        return goal

    @override
    def solved(self, s: Snapshot) -> Bool:
        target, reference = s.at(s.target), s.at(s.reference)
        apart = flat(target, reference)
        low = (target[:, 2] < BLOCK + 0.01) & (reference[:, 2] < BLOCK + 0.01)
        return (apart > 0.039) & (apart < 0.075) & low & s.released(s.target) & s.still(s.target)

    @override
    def progress(self, s: Snapshot) -> Float:
        target = s.at(s.target)
        return 0.3 * near(s.tool, target) + 0.7 * near(target, self.goal(s))


class Sort(TabletopTask):
    """Put two blocks on the mats of their own colours."""

    success = "each block lies still with its middle on the mat of its colour, and the gripper has left both"
    templates = (
        "sort the blocks by colour",
        "put each block on the mat of its colour",
        "put the {target} block on the {target} mat and the {reference} block on the {reference} mat",
        "match the blocks with the mats",
    )
    props = Props(blocks=2, mats=2)
    seconds = 30.0
    names = ""

    @override
    def draw(self, draw: Draw) -> None:
        draw.put(("mark0", "mark1", "object0", "object1"), [MAT_RADIUS] * 2 + [BLOCK_RADIUS] * 2)
        draw.colour("object0", ("object1",))
        draw["mark0/colour"], draw["mark1/colour"] = draw["object0/colour"], draw["object1/colour"]
        draw["reference"] = 1

    @override
    def goal(self, s: Snapshot) -> Float:
        """Of the first block that is not on its mat."""
        first = self.on_mat(s, 0)
        return np.where(first[:, None], s.marks[:, 1], s.marks[:, 0]) + np.array([0.0, 0.0, BLOCK])

    def on_mat(self, s: Snapshot, which: int) -> Bool:
        """Whether block `which` lies on its mat, `[N]`."""
        block = s.objects[:, which]
        return (flat(block, s.marks[:, which]) < 0.045) & (block[:, 2] < BLOCK + 0.01)

    @override
    def solved(self, s: Snapshot) -> Bool:
        done = self.on_mat(s, 0) & self.on_mat(s, 1)
        for which in (s.target, s.reference):
            done &= s.released(which) & s.still(which)
        return done

    @override
    def progress(self, s: Snapshot) -> Float:
        total = np.zeros(len(s.tool))
        for which in range(2):
            there = near(s.objects[:, which], s.marks[:, which] + np.array([0.0, 0.0, BLOCK]))
            total += 0.4 * np.maximum(there, self.on_mat(s, which))
        now = np.where(self.on_mat(s, 0)[:, None], s.objects[:, 1], s.objects[:, 0])
        return total + 0.2 * near(s.tool, now)


class Tower(TabletopTask):
    """Build a tower of three blocks in the order that is named (long)."""

    success = "the tower stands still in that order and the gripper has left it"
    templates = (
        "build a tower with the {target} block on the {reference} block on the {third} block",
        "stack {target} on {reference} on {third}",
        "make a tower with {third} at the bottom then {reference} and {target} on top",
    )
    props = Props(blocks=3)
    seconds = 30.0
    held_out = ("blue",)

    @override
    def draw(self, draw: Draw) -> None:
        _three_blocks(draw)

    def _placed(self, s: Snapshot) -> Bool:
        """Whether the middle block lies on the lowest one, `[N]`."""
        return on_top(s, s.at(s.reference), s.objects[:, 2]) & s.still(s.reference)

    @override
    def goal(self, s: Snapshot) -> Float:
        """Of the middle block first, then of the upper one."""
        below = np.where(self._placed(s)[:, None], s.at(s.reference), s.objects[:, 2])
        return below + np.array([0.0, 0.0, 2 * BLOCK])

    @override
    def solved(self, s: Snapshot) -> Bool:
        upper, middle = s.at(s.target), s.at(s.reference)
        return self._placed(s) & on_top(s, upper, middle) & s.released(s.target) & s.still(s.target)

    @override
    def progress(self, s: Snapshot) -> Float:
        placed = self._placed(s)
        first = carried(s, s.at(s.reference), s.objects[:, 2] + np.array([0.0, 0.0, 2 * BLOCK]))
        second = carried(s, s.at(s.target), s.at(s.reference) + np.array([0.0, 0.0, 2 * BLOCK]))
        return np.where(placed, 0.5 + 0.5 * second, 0.5 * first)
