"""What an env of the suite shows, by name: where each number lies in the groups `state` and `privileged`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from robotrl.envs.tabletop.scene import COLOURS, MAX_MARKS, MAX_OBJECTS


def _slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    found, start = {}, 0
    for name, size in sizes.items():
        found[name] = slice(start, start + size)
        start += size
    return found


STATE: dict[str, slice] = _slices(
    {
        "joint_position": 7,  # rad
        "joint_velocity": 7,  # rad/s
        "opening": 1,  # m between the fingers
        "opening_velocity": 1,  # m/s
        "tool_position": 3,  # m, in the world
        "tool_rotation": 6,  # first two columns of the tool's rotation matrix
        "position_ahead": 3,  # m, from the tool to where it is commanded to be
        "rotation_ahead": 3,  # rad, rotation vector, likewise
        "opening_ahead": 1,  # m, likewise
    }
)
"""Proprioception: what a real arm knows of itself and of the command it follows."""

PRIVILEGED: dict[str, slice] = _slices(
    {
        "object_present": MAX_OBJECTS,
        "object_position": 3 * MAX_OBJECTS,  # m
        "object_quaternion": 4 * MAX_OBJECTS,  # w x y z, w >= 0
        "object_velocity": 3 * MAX_OBJECTS,  # m/s
        "object_colour": MAX_OBJECTS * len(COLOURS),  # one-hot
        "mark_position": 3 * MAX_MARKS,  # m, mats or buttons
        "mark_colour": MAX_MARKS * len(COLOURS),  # one-hot, zeros for white
        "fixture": 4,  # m, m, cos and sin of its yaw
        "part": 3,  # m or rad: drawer, door or the three buttons
        "part_velocity": 3,
        "target": MAX_OBJECTS,  # one-hot: which object the instruction is about
        "reference": MAX_OBJECTS,  # one-hot: which object it is put on or beside
        "mark": MAX_MARKS,  # one-hot: which mat or button
        "goal": 3,  # m: where the target, or the tool, is to be
        "held_for": 1,  # share of the half second that the goal has been kept
    }
)
"""Ground truth: for critics, teachers and experts."""

STATE_UNIT = "rad, rad/s, m, m/s, rotation columns; see robotrl.envs.tabletop.observation.STATE"
PRIVILEGED_UNIT = "m, m/s, rad, one-hot; see robotrl.envs.tabletop.observation.PRIVILEGED"
SIZES = {"state": STATE["opening_ahead"].stop, "privileged": PRIVILEGED["held_for"].stop}


def part(group: NDArray[Any], slices: Mapping[str, slice], name: str, width: int = 0) -> NDArray[Any]:
    """The numbers called `name` of a group `[N, D]`; with `width`, as `[N, count, width]`."""
    values = group[:, slices[name]]
    return values.reshape(len(values), -1, width) if width else values


__all__ = ["PRIVILEGED", "PRIVILEGED_UNIT", "SIZES", "STATE", "STATE_UNIT", "part"]
