"""How each task is done: a list of moves, with what must hold meanwhile and where to start over when it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robotrl.envs.tabletop.experts.sight import Bool, Float, Int, Sight

OPEN, SHUT = 1.0, 0.0
Target = Callable[[Sight], tuple[Float, Float]]
"""Where the tool is to go: positions `[n, 3]` and yaws `[n]`."""
Test = Callable[[Sight], Bool]


@dataclass(frozen=True, slots=True)
class Move:
    """Go somewhere with the fingers so far open, then go on to the next move."""

    to: Target
    grip: float
    near: float = 0.012
    """Metres from the goal at which the move is over (and 4 degrees)."""
    wait: int = 0
    """Control steps to stay there."""
    speed: float = 1.0
    """Share of the expert's usual speed."""
    keep: Test | None = None
    """What must hold all the time; where it does not, the plan goes back to move `retry`."""
    until: Test | None = None
    """What ends the move in place of arriving."""
    retry: int = 0
    choose: bool = False
    """Whether the plan decides here which object to handle next."""
    patience: int = 80
    """Control steps after which the plan goes back to move `retry`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Moves in order; after the last one the plan goes back to move `again`, unless the task is solved."""

    moves: tuple[Move, ...]
    choose: Callable[[Sight], Int] = lambda s: s.target
    again: int = 0


def up(height: float) -> Float:
    """A vector up."""
    return np.array([0.0, 0.0, height])


def in_hand(s: Sight) -> Bool:
    """Whether the chosen object is between the fingers."""
    away = s.held - s.tool
    return np.sqrt((away * away).sum(axis=1)) < 0.045


def _anchor_above(height: float) -> Target:
    """Straight up from where the move began, to a height over the table."""

    def to(s: Sight) -> tuple[Float, Float]:
        place = s.anchor.copy()
        place[:, 2] = np.maximum(place[:, 2], height)
        return place, s.memory["anchor"][:, 3]

    return to


def grasp(first: int, *, above: float = 0.09, at: float = 0.0, lift: float = 0.14) -> tuple[Move, ...]:
    """Take the chosen object from above: four moves, of which the plan's number `first` is the first.

    Args:
        first: what failures go back to.
        above: metres over the object to come from.
        at: metres above the object's middle to take it.
        lift: height of the tool afterwards.
    """

    def over(s: Sight) -> tuple[Float, Float]:
        return s.held + up(at + above), s.grasp_yaw()

    def down(s: Sight) -> tuple[Float, Float]:
        return s.held + up(at), s.grasp_yaw()

    def stay(s: Sight) -> tuple[Float, Float]:
        return s.anchor, s.memory["anchor"][:, 3]

    return (
        Move(over, OPEN, near=0.015, retry=first, choose=True),
        Move(down, OPEN, near=0.005, speed=0.6, retry=first, patience=40),
        Move(stay, SHUT, near=0.02, wait=8, retry=first),
        Move(_anchor_above(lift), SHUT, near=0.02, speed=0.8, keep=in_hand, retry=first),
    )


def carry(
    first: int,
    *,
    goal: Callable[[Sight], Float],
    yaw: Callable[[Sight], Float] | None = None,
    above: float = 0.09,
    drop: float = 0.003,
    at: float = 0.0,
    fine: float = 0.008,
    release: float = OPEN,
    leave: float = 0.2,
    lift: float = 0.14,
    straight: float = np.inf,
) -> tuple[Move, ...]:
    """Take the chosen object and put it down with its middle at `goal`.

    Args:
        first: number of the first of these moves in the plan.
        goal: where the object's middle is to be, `[n, 3]` m.
        yaw: how the tool is turned there; None: as it was taken.
        above: metres over the goal to come from.
        drop: metres over the goal to let go at.
        at: metres above the object's middle to take it.
        fine: how close to the goal's vertical before going down, m.
        release: how far the fingers open there.
        leave: height of the tool afterwards.
        lift: height of the tool on the way.
        straight: how far from the goal's vertical the object may be on its way down, m; further off, it waits.
    """

    def turned(s: Sight) -> Float:
        wish: Float = s.memory["anchor"][:, 3] if yaw is None else yaw(s)
        return wish

    def over(s: Sight) -> tuple[Float, Float]:
        # in hand, the object need not lie in the tool's middle: what counts is where the object goes
        return goal(s) + up(above) + (s.tool - s.held), turned(s)

    def down(s: Sight) -> tuple[Float, Float]:
        place = goal(s) + up(drop) + (s.tool - s.held)
        off = np.hypot(*(s.held - goal(s))[:, :2].T) > straight
        place[off, 2] = np.maximum(place, s.tool + up(0.006))[off, 2]  # and is lifted a little: off a rim
        return place, turned(s)

    def stay(s: Sight) -> tuple[Float, Float]:
        return s.anchor, s.memory["anchor"][:, 3]

    return (
        *grasp(first, at=at, lift=lift),
        Move(over, SHUT, near=fine, wait=2, keep=in_hand, retry=first),
        Move(down, SHUT, near=0.004, speed=0.4, keep=in_hand, retry=first, patience=60),
        Move(stay, release, near=0.02, wait=5, retry=first),
        Move(_anchor_above(leave), release, near=0.03, retry=first),
    )


def _zero(s: Sight) -> Float:
    return np.zeros(len(s.tool))


def _reach() -> Plan:
    return Plan((Move(lambda s: (s.goal, _zero(s)), OPEN, near=0.0, patience=10_000),))


def _pick() -> Plan:
    def hold(s: Sight) -> tuple[Float, Float]:
        place = s.anchor.copy()
        place[:, 2] = 0.2
        return place, s.memory["anchor"][:, 3]

    return Plan((*grasp(0, lift=0.2), Move(hold, SHUT, near=0.0, keep=in_hand, patience=10_000)))


def _push() -> Plan:
    def way(s: Sight) -> tuple[Float, Float]:
        """Unit vectors from the block to its goal, and the tool's yaw along them."""
        gap = s.goal[:, :2] - s.held[:, :2]
        way = gap / np.maximum(np.hypot(gap[:, 0], gap[:, 1]), 1e-6)[:, None]
        yaw = np.arctan2(way[:, 1], way[:, 0])
        return way, s.square(yaw)

    def behind(height: float, back: float) -> Target:
        def to(s: Sight) -> tuple[Float, Float]:
            direction, yaw = way(s)
            place = s.held.copy()
            place[:, :2] -= back * direction
            place[:, 2] = height
            return place, yaw

        return to

    def ahead(s: Sight) -> tuple[Float, Float]:
        direction, _ = way(s)
        left = np.hypot(*(s.goal[:, :2] - s.held[:, :2]).T)
        place = s.held.copy()
        # the tool's side meets the block's: half a block and half a tool apart, and a little further to push
        place[:, :2] += (np.minimum(0.015, left) - 0.033)[:, None] * direction
        place[:, 2] = 0.022
        return place, s.memory["anchor"][:, 3]

    def behind_it(s: Sight) -> Bool:
        direction, _ = way(s)
        gap = s.held[:, :2] - s.tool[:, :2]
        aside = np.abs(gap[:, 0] * direction[:, 1] - gap[:, 1] * direction[:, 0])
        arrived = np.hypot(*(s.goal[:, :2] - s.held[:, :2]).T) < 0.02
        return (aside < 0.014) | arrived

    def there(s: Sight) -> Bool:
        return np.hypot(*(s.goal[:, :2] - s.held[:, :2]).T) < 0.008

    return Plan(
        (
            Move(behind(0.12, 0.07), SHUT, near=0.02, choose=True),
            Move(behind(0.022, 0.065), SHUT, near=0.008, speed=0.8),
            Move(ahead, SHUT, speed=0.35, keep=behind_it, until=there, patience=160),
            Move(_anchor_above(0.12), SHUT, near=0.03),
        )
    )


def _place() -> Plan:
    return Plan(carry(0, goal=lambda s: s.goal, drop=0.022, fine=0.012, release=0.72, lift=0.17, above=0.11))


def _stack() -> Plan:
    def along(s: Sight) -> Float:
        return s.square(s.yaw_of(s.reference))

    return Plan(carry(0, goal=lambda s: s.goal, yaw=along, fine=0.004, above=0.06, lift=0.17))


def _gather() -> Plan:
    return Plan(carry(0, goal=lambda s: s.goal, yaw=_zero))


def _sort() -> Plan:
    def first_astray(s: Sight) -> Int:
        away = np.hypot(*(s.objects[:, 0, :2] - s.marks[:, 0, :2]).T)
        done = (away < 0.045) & (s.objects[:, 0, 2] < 0.03)
        return done.astype(np.int64)

    def home(s: Sight) -> Float:
        return s.marks[s.rows, s.chosen] + up(0.02)

    return Plan(carry(0, goal=home), choose=first_astray)


def _tower() -> Plan:
    def next_block(s: Sight) -> Int:
        middle, lowest = s.objects[s.rows, s.reference], s.objects[:, 2]
        away = np.hypot(*(middle[:, :2] - lowest[:, :2]).T)
        placed = (away < 0.025) & (np.abs(middle[:, 2] - lowest[:, 2] - 0.04) < 0.006)
        return np.where(placed, s.target, s.reference)

    def below(s: Sight) -> Int:
        return np.where(s.chosen == s.target, s.reference, 2)

    def on_it(s: Sight) -> Float:
        return s.objects[s.rows, below(s)] + up(0.04)

    def along(s: Sight) -> Float:
        return s.square(s.yaw_of(below(s)))

    return Plan(carry(0, goal=on_it, yaw=along, fine=0.004, above=0.06, lift=0.2, leave=0.24), choose=next_block)


def _drawer(opening: float) -> Callable[[Sight], Float]:
    """Where the drawer's handle is when the drawer is open by that much (m)."""
    return lambda s: s.from_fixture(-0.06 - opening, 0.0, 0.07)


def _across(s: Sight) -> Float:
    """Fingers to both sides of a bar that runs along the fixture's front."""
    return s.fixture_yaw - np.pi / 2


def move_drawer(first: int, *, to: float, until: Test) -> tuple[Move, ...]:
    """Take the drawer's handle and move the drawer until it is open by `to` (m): five moves."""

    def handle(height: float) -> Target:
        return lambda s: (s.from_fixture(-0.06 - s.parts[:, 0], 0.0, 0.07 + height), _across(s))

    def along(s: Sight) -> tuple[Float, Float]:
        return _drawer(to)(s), _across(s)

    def on_it(s: Sight) -> Bool:
        gap = s.from_fixture(-0.06 - s.parts[:, 0], 0.0, 0.07) - s.tool
        return np.sqrt((gap * gap).sum(axis=1)) < 0.03

    return (
        Move(handle(0.1), 0.5, near=0.01, retry=first, choose=True),
        Move(handle(0.0), 0.5, near=0.008, speed=0.7, retry=first, patience=40),
        Move(handle(0.0), SHUT, near=0.02, wait=7, retry=first),
        Move(along, SHUT, speed=0.5, keep=on_it, until=until, retry=first, patience=100),
        Move(_anchor_above(0.17), 0.6, near=0.03, wait=1, retry=first),
    )


def _open_drawer() -> Plan:
    return Plan(move_drawer(0, to=0.15, until=lambda s: s.parts[:, 0] > 0.138))


def _close_drawer() -> Plan:
    return Plan(move_drawer(0, to=-0.01, until=lambda s: s.parts[:, 0] < 0.003))


def _door(ahead: float, until: Test) -> Plan:
    """Take the door's handle from above and lead it along its arc."""

    def handle(s: Sight, turn: float, height: float) -> Float:
        angle = np.clip(s.parts[:, 0] + turn, -0.05, 1.5)
        c, sine = np.cos(angle), np.sin(angle)
        return s.from_fixture(-0.008 - 0.05 * c - 0.165 * sine, 0.098 + 0.05 * sine - 0.165 * c, 0.122 + height)

    def at(height: float) -> Target:
        return lambda s: (handle(s, 0.0, height), s.fixture_yaw)

    def along(s: Sight) -> tuple[Float, Float]:
        return handle(s, ahead, 0.0), s.fixture_yaw

    def on_it(s: Sight) -> Bool:
        gap = handle(s, 0.0, 0.0) - s.tool
        return np.sqrt((gap * gap).sum(axis=1)) < 0.03

    return Plan(
        (
            Move(at(0.09), 0.6, near=0.01),
            Move(at(0.0), 0.6, near=0.008, speed=0.7, patience=40),
            Move(at(0.0), SHUT, near=0.02, wait=7),
            Move(along, SHUT, speed=0.5, keep=on_it, until=until, patience=120),
            Move(_anchor_above(0.22), 0.6, near=0.03, wait=1),
        )
    )


def _open_door() -> Plan:
    return _door(0.3, lambda s: s.parts[:, 0] > 1.12)


def _close_door() -> Plan:
    return _door(-0.3, lambda s: s.parts[:, 0] < 0.01)


def _press() -> Plan:
    def button(height: float) -> Target:
        def to(s: Sight) -> tuple[Float, Float]:
            place = s.marks[s.rows, s.mark].copy()
            place[:, 2] = height
            return place, s.fixture_yaw

        return to

    # the tool's point lies 9 mm above the finger tips, the button's top 48 mm above the table
    return Plan(
        (
            Move(button(0.1), SHUT, near=0.008),
            Move(button(0.0485), SHUT, near=0.0, speed=0.4, patience=60),
        )
    )


def _insert() -> Plan:
    def along(s: Sight) -> Float:
        return s.square(s.fixture_yaw)

    fine = {"fine": 0.0015, "straight": 0.003, "drop": 0.001}
    return Plan(carry(0, goal=lambda s: s.goal, yaw=along, at=0.022, above=0.06, lift=0.2, leave=0.22, **fine))


def _store() -> Plan:
    def in_drawer(s: Sight) -> Float:
        return s.goal

    opening = move_drawer(0, to=0.15, until=lambda s: s.parts[:, 0] > 0.138)
    filling = carry(
        len(opening), goal=in_drawer, yaw=lambda s: s.square(s.fixture_yaw), drop=0.01, lift=0.2, leave=0.2, above=0.12
    )
    start = len(opening) + len(filling)
    closing = move_drawer(start, to=-0.01, until=lambda s: s.parts[:, 0] < 0.003)
    return Plan((*opening, *filling, *closing))


PLANS: dict[str, Callable[[], Plan]] = {
    "reach": _reach,
    "push": _push,
    "pick": _pick,
    "place": _place,
    "stack": _stack,
    "gather": _gather,
    "open_drawer": _open_drawer,
    "close_drawer": _close_drawer,
    "open_door": _open_door,
    "close_door": _close_door,
    "press": _press,
    "insert": _insert,
    "sort": _sort,
    "tower": _tower,
    "store": _store,
}
