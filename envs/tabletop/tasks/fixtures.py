"""Tasks with something that opens, gives way or takes in: drawer, door, buttons, peg; and one that needs several."""

from __future__ import annotations

from typing import override

import numpy as np

from robotrl.envs.tabletop.kinematics import length
from robotrl.envs.tabletop.layout import Draw
from robotrl.envs.tabletop.scene import Props
from robotrl.envs.tabletop.tasks.base import (
    BLOCK_RADIUS,
    Bool,
    Float,
    Snapshot,
    TabletopTask,
    carried,
    flat,
    near,
    share,
)

DRAWER_OPEN, DRAWER_SHUT = 0.12, 0.01
"""Metres of the drawer's 16 cm that count as open and as closed."""
DOOR_OPEN, DOOR_SHUT = 1.0, 0.06
"""Radians of the door's 1.9 that count as open and as closed."""
PRESSED, RELEASED = 0.006, 0.003
"""Metres of a button's 1 cm that count as pressed and as left alone."""


def drawer_handle(s: Snapshot) -> Float:
    """Where the drawer's handle is, `[N, 3]` m."""
    zero = np.zeros(len(s.parts))
    return s.from_fixture(np.column_stack([-0.06 - s.parts[:, 0], zero, zero + 0.07]))


def door_handle(s: Snapshot) -> Float:
    """Where the upper end of the door's handle is, `[N, 3]` m."""
    angle = np.ascontiguousarray(s.parts[:, 0])
    c, sine = np.cos(angle), np.sin(angle)
    x, y = -0.008 - 0.05 * c - 0.165 * sine, 0.098 + 0.05 * sine - 0.165 * c
    return s.from_fixture(np.column_stack([x, y, np.full(len(angle), 0.122)]))


def _cabinet(draw: Draw, *, side: float = 0.0) -> None:
    """A cabinet or cupboard within reach, its front to the arm."""
    y = draw.rng.uniform(-0.12, 0.12) if side == 0.0 else side * draw.rng.uniform(0.10, 0.16)
    draw["fixture/x"], draw["fixture/y"] = draw.rng.uniform(0.56, 0.62), y
    draw["fixture/yaw"] = draw.rng.uniform(-0.2, 0.2)


class _Drawer(TabletopTask):
    props = Props(fixture="cabinet")
    seconds = 12.0
    names = ""

    @override
    def goal(self, s: Snapshot) -> Float:
        return drawer_handle(s)


class OpenDrawer(_Drawer):
    """Pull the drawer open."""

    success = "the drawer is open by 12 cm or more"
    templates = ("open the drawer", "pull the drawer open", "pull out the drawer", "slide the drawer open")

    @override
    def draw(self, draw: Draw) -> None:
        _cabinet(draw)
        draw["opening"] = draw.rng.uniform(0.0, 0.02)

    @override
    def solved(self, s: Snapshot) -> Bool:
        return s.parts[:, 0] > DRAWER_OPEN

    @override
    def progress(self, s: Snapshot) -> Float:
        return 0.3 * near(s.tool, self.goal(s)) + 0.7 * share(s.parts[:, 0], DRAWER_OPEN)


class CloseDrawer(_Drawer):
    """Push the drawer shut."""

    success = "the drawer is open by less than 1 cm"
    templates = ("close the drawer", "push the drawer shut", "shut the drawer", "push the drawer back in")

    @override
    def draw(self, draw: Draw) -> None:
        _cabinet(draw)
        draw["opening"] = draw.rng.uniform(0.09, 0.14)

    @override
    def solved(self, s: Snapshot) -> Bool:
        return s.parts[:, 0] < DRAWER_SHUT

    @override
    def progress(self, s: Snapshot) -> Float:
        return 0.3 * near(s.tool, self.goal(s)) + 0.7 * (1.0 - share(s.parts[:, 0], 0.14))


class _Door(TabletopTask):
    props = Props(fixture="cupboard")
    seconds = 12.0
    names = ""

    @override
    def goal(self, s: Snapshot) -> Float:
        return door_handle(s)


class OpenDoor(_Door):
    """Pull the cupboard's door open."""

    success = "the door is open by 57 degrees (1 rad) or more"
    templates = ("open the door", "pull the door open", "open the cupboard", "swing the cupboard door open")

    @override
    def draw(self, draw: Draw) -> None:
        _cabinet(draw)
        draw["opening"] = draw.rng.uniform(0.0, 0.1)

    @override
    def solved(self, s: Snapshot) -> Bool:
        return s.parts[:, 0] > DOOR_OPEN

    @override
    def progress(self, s: Snapshot) -> Float:
        return 0.3 * near(s.tool, self.goal(s)) + 0.7 * share(s.parts[:, 0], DOOR_OPEN)


class CloseDoor(_Door):
    """Push the cupboard's door shut."""

    success = "the door is open by less than 3.4 degrees (0.06 rad)"
    templates = ("close the door", "push the door shut", "shut the cupboard", "swing the cupboard door closed")

    @override
    def draw(self, draw: Draw) -> None:
        _cabinet(draw)
        draw["opening"] = draw.rng.uniform(0.9, 1.3)

    @override
    def solved(self, s: Snapshot) -> Bool:
        return s.parts[:, 0] < DOOR_SHUT

    @override
    def progress(self, s: Snapshot) -> Float:
        return 0.3 * near(s.tool, self.goal(s)) + 0.7 * (1.0 - share(s.parts[:, 0], 1.3))


class Press(TabletopTask):
    """Press the button of the named colour, and no other."""

    success = "the button is pressed by 6 mm or more and the others by less than 3 mm"
    templates = (
        "press the {mark} button",
        "push the {mark} button",
        "hit the {mark} button",
        "press and hold the {mark} button",
    )
    props = Props(fixture="console")
    seconds = 8.0
    held_out = ("purple",)
    names = "mark"
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        draw["fixture/x"], draw["fixture/y"] = draw.rng.uniform(0.42, 0.58), draw.rng.uniform(-0.15, 0.15)
        draw["fixture/yaw"] = draw.rng.uniform(-0.4, 0.4)
        named = int(draw.rng.integers(3))
        draw["mark"] = named
        draw.colour(f"mark{named}", [f"mark{k}" for k in range(3) if k != named])

    @override
    def goal(self, s: Snapshot) -> Float:
        return s.marks[s.rows, s.mark]

    @override
    def solved(self, s: Snapshot) -> Bool:
        named = np.arange(3) == s.mark[:, None]
        right: Bool = np.where(named, s.parts > PRESSED, s.parts < RELEASED)
        return right[:, 0] & right[:, 1] & right[:, 2]

    @override
    def progress(self, s: Snapshot) -> Float:
        return 0.6 * near(s.tool, self.goal(s)) + 0.4 * share(s.parts[s.rows, s.mark], PRESSED)


class Insert(TabletopTask):
    """Put the square peg into the square hole."""

    success = "the peg stands in the hole, its lower end at least 3 cm deep, and the gripper has left it"
    templates = (
        "put the peg in the hole",
        "insert the {target} peg into the hole",
        "stick the peg into the socket",
        "fit the {target} peg into the square hole",
    )
    props = Props(peg=True, fixture="socket")
    seconds = 20.0
    held_out = ("red",)

    @override
    def draw(self, draw: Draw) -> None:
        draw.put(("fixture", "object0"), (0.09, 0.05))
        draw.colour("object0", ())

    @override
    def goal(self, s: Snapshot) -> Float:
        return s.fixture[:, :3] + np.array([0.0, 0.0, 0.04])

    @override
    def solved(self, s: Snapshot) -> Bool:
        peg, goal = s.at(s.target), self.goal(s)
        inside = (flat(peg, goal) < 0.006) & (peg[:, 2] < goal[:, 2] + 0.01) & s.upright(s.target)
        return inside & (length(s.tool - peg) > 0.055) & s.still(s.target)

    @override
    def progress(self, s: Snapshot) -> Float:
        peg, goal = s.at(s.target), self.goal(s)
        return (
            0.2 * near(s.tool, peg) + 0.5 * near(peg, goal + np.array([0.0, 0.0, 0.04])) + 0.3 * near(peg, goal, 15.0)
        )


class Store(TabletopTask):
    """Open the drawer, put the block of the named colour in, and close the drawer (long)."""

    success = "the block lies in the drawer and the drawer is open by less than 1 cm"
    templates = (
        "put the {target} block in the drawer and close it",
        "open the drawer put the {target} block inside and close the drawer",
        "store the {target} block in the drawer",
        "tidy the {target} cube away into the drawer and shut it",
    )
    props = Props(blocks=2, fixture="cabinet")
    seconds = 40.0
    held_out = ("green",)
    others = True

    @override
    def draw(self, draw: Draw) -> None:
        side = float(draw.rng.choice([-1.0, 1.0]))
        _cabinet(draw, side=side)
        draw["opening"] = draw.rng.uniform(0.0, 0.01)
        x, y = draw["fixture/x"], draw["fixture/y"]
        for back in (-0.1, 0.0, 0.1, 0.22):  # the cabinet, and where its drawer goes
            draw.keep_clear(x - back, y, 0.18)  # the palm, 20 cm wide, fits between it and a block
        area = (-0.26, 0.04) if side > 0 else (-0.04, 0.26)
        draw.put(("object0", "object1"), [BLOCK_RADIUS] * 2, area=((0.36, 0.58), area))
        draw.colour("object0", ("object1",))
        draw["reference"] = 1

    @override
    def goal(self, s: Snapshot) -> Float:
        """The middle of the part of the drawer that is open."""
        zero = np.zeros(len(s.parts))
        return s.from_fixture(np.column_stack([-0.5 * s.parts[:, 0], zero, zero + 0.032]))

    def inside(self, s: Snapshot) -> Bool:
        """Whether the block lies in the drawer, `[N]`."""
        block = s.in_fixture(s.at(s.target))
        along = block[:, 0] + s.parts[:, 0]  # from the drawer's front
        return (along > 0.0) & (along < 0.175) & (np.abs(block[:, 1]) < 0.08) & (block[:, 2] < 0.055)

    @override
    def solved(self, s: Snapshot) -> Bool:
        return self.inside(s) & (s.parts[:, 0] < DRAWER_SHUT)

    @override
    def progress(self, s: Snapshot) -> Float:
        inside = self.inside(s)
        opened = share(s.parts[:, 0], DRAWER_OPEN)
        handle = near(s.tool, drawer_handle(s))
        before = (
            0.1 * np.maximum(handle, opened) + 0.2 * opened + 0.3 * opened * carried(s, s.at(s.target), self.goal(s))
        )
        return np.where(inside, 0.6 + 0.1 * handle + 0.3 * (1.0 - opened), before)
