"""What an expert sees: the numbers of `state` and `privileged` under their names, for some of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robotrl.envs.tabletop.kinematics import rotation_matrix
from robotrl.envs.tabletop.observation import PRIVILEGED, STATE, part

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int = NDArray[np.int64]

QUARTER = np.pi / 2


class Sight:
    """Rows of an observation. Positions in m, angles in rad."""

    def __init__(self, state: NDArray[Any], truth: NDArray[Any], memory: Mapping[str, NDArray[Any]]) -> None:
        self._state, self._truth, self.memory = state, truth, memory
        self.rows = np.arange(len(state))
        self.tool: Float = part(state, STATE, "tool_position")
        self.commanded: Float = self.tool + part(state, STATE, "position_ahead")
        columns = part(state, STATE, "tool_rotation", 3)
        x, y = columns[:, 0], columns[:, 1]
        rot = np.stack([x, y, np.cross(x, y)], axis=2)
        self.commanded_rot: Float = rotation_matrix(part(state, STATE, "rotation_ahead")) @ rot
        self.tool_rot: Float = rot
        self.tool_yaw: Float = np.arctan2(x[:, 1], x[:, 0])
        self.opening: Float = part(state, STATE, "opening")[:, 0]
        self.objects: Float = part(truth, PRIVILEGED, "object_position", 3)
        self.marks: Float = part(truth, PRIVILEGED, "mark_position", 3)
        self.goal: Float = part(truth, PRIVILEGED, "goal")
        self.parts: Float = part(truth, PRIVILEGED, "part")
        self.target: Int = part(truth, PRIVILEGED, "target").argmax(axis=1)
        self.reference: Int = part(truth, PRIVILEGED, "reference").argmax(axis=1)
        self.mark: Int = part(truth, PRIVILEGED, "mark").argmax(axis=1)
        self.present: Bool = part(truth, PRIVILEGED, "object_present") > 0.5

    @property
    def anchor(self) -> Float:
        """Where the tool was commanded to be when the running move began, `[n, 3]`."""
        anchor: Float = self.memory["anchor"][:, :3]
        return anchor

    @property
    def chosen(self) -> Int:
        """Which object is being handled, `[n]`."""
        chosen: Int = self.memory["chosen"]
        return chosen

    @property
    def held(self) -> Float:
        """Position of that object, `[n, 3]`."""
        held: Float = self.objects[self.rows, self.chosen]
        return held

    def yaw_of(self, which: Int) -> Float:
        """Yaw of the objects `which [n]`, `[n]` rad."""
        quats = part(self._truth, PRIVILEGED, "object_quaternion", 4)[self.rows, which]
        w, x, y, z = quats.T
        return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

    @property
    def fixture_yaw(self) -> Float:
        """`[n]` rad."""
        _, _, cos, sin = part(self._truth, PRIVILEGED, "fixture").T
        return np.arctan2(sin, cos)

    def from_fixture(self, x: Any, y: Any, z: Any) -> Float:
        """Points of the fixture's own frame (numbers or `[n]`) in the world, `[n, 3]`."""
        at_x, at_y, cos, sin = part(self._truth, PRIVILEGED, "fixture").T
        zero = np.zeros(len(at_x))
        return np.column_stack([at_x + cos * x - sin * y, at_y + sin * x + cos * y, zero + z])

    def square(self, yaw: Float, towards: float | Float = 0.0) -> Float:
        """The turn of a square with that yaw that lies nearest to `towards`, `[n]` rad."""
        return yaw - QUARTER * np.round((yaw - towards) / QUARTER)

    def grasp_yaw(self) -> Float:
        """How to turn the tool to take the chosen block: along its sides, where fingers and palm meet nothing else."""
        first = self.square(self.yaw_of(self.chosen))
        second = first - np.sign(np.where(first == 0, 1.0, first)) * QUARTER
        room = [self._room(yaw) for yaw in (first, second)]
        under = [self._under_the_palm(yaw) for yaw in (first, second)]
        cramped = under[0] | ((room[0] < 0.035) & (room[1] > room[0]))
        return np.where(cramped & ~under[1], second, first)

    def _under_the_palm(self, yaw: Float) -> Bool:
        """Whether the palm, 20 x 6 cm, would come down on a stack beside the chosen block, `[n]`."""
        c, s = np.cos(yaw), np.sin(yaw)
        found = np.zeros(len(yaw), np.bool_)
        for k in range(self.objects.shape[1]):
            x, y, z = (self.objects[:, k] - self.held).T
            tall = self.present[:, k] & (k != self.chosen) & (z > 0.03)
            found |= tall & (np.abs(c * y - s * x) < 0.13) & (np.abs(c * x + s * y) < 0.06)
        return found

    def _room(self, yaw: Float) -> Float:
        """From the open fingers to the nearest other object's middle, `[n]` m."""
        reach = 0.048 * np.column_stack([-np.sin(yaw), np.cos(yaw)])
        middle = self.held[:, :2]
        room: Float = np.full(len(yaw), np.inf)
        for k in range(self.objects.shape[1]):
            other = self.objects[:, k]
            near = self.present[:, k] & (k != self.chosen) & (np.abs(other[:, 2] - self.held[:, 2]) < 0.03)
            for finger in (middle + reach, middle - reach):
                away = np.hypot(*(finger - other[:, :2]).T)
                room = np.where(near, np.minimum(room, away), room)
        return room


__all__ = ["QUARTER", "Bool", "Float", "Int", "Sight"]
