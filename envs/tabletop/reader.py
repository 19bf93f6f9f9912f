"""Between the simulator's arrays and a task: puts things where they were drawn, reads where they are, shows them.

Positions are the state's own, not the derived fields of `mujoco.batch.Batch`, which lag by one simulation step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.tabletop.controller import STROKE, Controller
from robotrl.envs.tabletop.kinematics import Kinematics, rotation_vector
from robotrl.envs.tabletop.layout import COLOUR_NAMES, column, columns
from robotrl.envs.tabletop.observation import PRIVILEGED, STATE
from robotrl.envs.tabletop.scene import MAX_MARKS, MAX_OBJECTS, Addresses
from robotrl.envs.tabletop.tasks.base import BLOCK, Snapshot, TabletopTask, marks_of

Float = NDArray[np.float64]
PEG = 0.04
"""Half a peg's length, m."""
FAR = 5.0
"""Metres."""
BUTTONS = np.array([[0.0, 0.09, 0.048], [0.0, 0.0, 0.048], [0.0, -0.09, 0.048]])
"""The buttons' tops in the console's frame, m."""


class Reader:
    """Reads and writes one batch of simulations of one task."""

    def __init__(self, batch: Batch, addresses: Addresses, kinematics: Kinematics, task: TabletopTask) -> None:
        self._a, self._kinematics, self._task = addresses, kinematics, task
        self._qpos: Float = batch.bind("qpos")
        self._qvel: Float = batch.bind("qvel")
        self._places = (addresses.object_q[:, None] + np.arange(3)).ravel()
        self._turns = (addresses.object_q[:, None] + np.arange(3, 7)).ravel()
        self._speeds = (addresses.object_v[:, None] + np.arange(3)).ravel()
        mocap = bool(addresses.mat_mocap) or addresses.fixture_mocap >= 0
        self._mocap_pos: Float = batch.bind("mocap_pos") if mocap else np.zeros((batch.nsim, 0, 3))
        self._mocap_quat: Float = batch.bind("mocap_quat") if mocap else np.zeros((batch.nsim, 0, 4))

    def place(self, rows: NDArray[np.int32], layout: Float) -> None:
        """Write the start state of `rows` as `layout [n, len(NAMES)]` says."""
        a, qpos = self._a, self._qpos
        start = np.array(qpos[rows])
        start[:, a.arm_q] = layout[:, :7]
        start[:, a.finger_q] = STROKE
        for k, at in enumerate(a.object_q):
            height = PEG if k >= a.props.blocks else BLOCK
            start[:, at : at + 2] = columns(layout, f"object{k}/x", f"object{k}/y")
            start[:, at + 2] = height
            start[:, at + 3 : at + 7] = _about_z(column(layout, f"object{k}/yaw"))
        if a.part_q.size:
            start[:, a.part_q[0]] = column(layout, "opening")
        if a.bowl_q.size:
            start[:, a.bowl_q] = columns(layout, "fixture/x", "fixture/y", "fixture/yaw")
        qpos[rows] = start
        places = [(at, f"mark{k}") for k, at in enumerate(a.mat_mocap)]
        if a.fixture_mocap >= 0:
            places.append((a.fixture_mocap, "fixture"))
        for at, name in places:
            self._mocap_pos[rows, at] = np.column_stack(
                [columns(layout, f"{name}/x", f"{name}/y"), np.zeros(len(rows))]
            )
            self._mocap_quat[rows, at] = _about_z(column(layout, f"{name}/yaw"))

    def lost(self) -> NDArray[np.bool_]:
        """Rows `[N]` in which an object has flown off, as one does that was squeezed out between finger and table."""
        near: NDArray[np.bool_] = np.abs(self._qpos[:, self._places]) < FAR
        return np.logical_not(near.all(axis=1))

    def nowhere(self) -> NDArray[np.bool_]:
        """Rows `[N]` in which a position is not finite."""
        return np.logical_not(np.isfinite(self._qpos[:, self._places]).all(axis=1))

    def read(self, rows: Any, layouts: Float) -> Snapshot:
        """Where everything is in `rows` (an index)."""
        a, q, v = self._a, self._qpos[rows], self._qvel[rows]
        layout = layouts[rows]
        count = len(q)
        objects, quats = np.zeros((count, MAX_OBJECTS, 3)), np.zeros((count, MAX_OBJECTS, 4))
        speeds = np.zeros((count, MAX_OBJECTS, 3))
        k = a.props.objects
        quats[:, k:, 0] = 1.0
        if k:
            objects[:, :k] = q[:, self._places].reshape(count, k, 3)
            quats[:, :k] = q[:, self._turns].reshape(count, k, 4)
            speeds[:, :k] = v[:, self._speeds].reshape(count, k, 3)
        fixture = np.zeros((count, 4))
        if a.bowl_q.size:
            fixture[:, [0, 1, 3]] = q[:, a.bowl_q]
        elif a.fixture_mocap >= 0:
            fixture[:, [0, 1, 3]] = columns(layout, "fixture/x", "fixture/y", "fixture/yaw")
        parts, part_speeds = np.zeros((count, 3)), np.zeros((count, 3))
        parts[:, : a.part_q.size], part_speeds[:, : a.part_q.size] = q[:, a.part_q], v[:, a.part_v]
        pose = self._kinematics.forward(q[:, a.arm_q])
        snapshot = Snapshot(
            layout=layout, tool=pose.pos, tool_rot=pose.rot, gap=q[:, a.finger_q].sum(axis=1),
            objects=objects, quats=quats, speeds=speeds, marks=marks_of(layout), fixture=fixture, parts=parts,
            part_speeds=part_speeds, rows=np.arange(count),
        )  # fmt: skip
        if a.props.fixture == "console":
            for k in range(MAX_MARKS):
                top = np.broadcast_to(BUTTONS[k], (count, 3)).copy()
                top[:, 2] -= parts[:, k]
                snapshot.marks[:, k] = snapshot.from_fixture(top)
        return snapshot

    def write(self, s: Snapshot, rows: Any, controller: Controller, obs: dict[str, NDArray[Any]]) -> None:
        """Write the groups `state` and `privileged` of `rows`, but for what `introduce` has written."""
        a, q, v = self._a, self._qpos[rows], self._qvel[rows]
        own, truth = obs["state"], obs["privileged"]
        own[rows, STATE["joint_position"]] = q[:, a.arm_q]
        own[rows, STATE["joint_velocity"]] = v[:, a.arm_v]
        own[rows, STATE["opening"]] = s.gap[:, None]
        own[rows, STATE["opening_velocity"]] = v[:, a.finger_v].sum(axis=1)[:, None]
        own[rows, STATE["tool_position"]] = s.tool
        own[rows, STATE["tool_rotation"]] = s.tool_rot[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)
        own[rows, STATE["position_ahead"]] = controller.pos[rows] - s.tool
        own[rows, STATE["rotation_ahead"]] = rotation_vector(controller.rot[rows], s.tool_rot)
        own[rows, STATE["opening_ahead"]] = (2 * controller.fingers[rows] - s.gap)[:, None]
        count = len(q)
        truth[rows, PRIVILEGED["object_position"]] = s.objects.reshape(count, -1)
        sign = np.where(s.quats[..., :1] < 0, -1.0, 1.0)
        truth[rows, PRIVILEGED["object_quaternion"]] = (s.quats * sign).reshape(count, -1)
        truth[rows, PRIVILEGED["object_velocity"]] = s.speeds.reshape(count, -1)
        truth[rows, PRIVILEGED["mark_position"]] = s.marks.reshape(count, -1)
        yaw = np.ascontiguousarray(s.fixture[:, 3])
        truth[rows, PRIVILEGED["fixture"]] = np.column_stack([s.fixture[:, :2], np.cos(yaw), np.sin(yaw)])
        truth[rows, PRIVILEGED["part"]] = s.parts
        truth[rows, PRIVILEGED["part_velocity"]] = s.part_speeds
        truth[rows, PRIVILEGED["goal"]] = self._task.goal(s)
        truth[rows, PRIVILEGED["held_for"]] = 0.0

    def introduce(self, layout: Float, rows: NDArray[np.int32], truth: NDArray[Any]) -> None:
        """Write what `rows [n]` of the group `privileged` keep for a whole episode of `layout [n, len(NAMES)]`."""
        objects, marks = range(MAX_OBJECTS), range(MAX_MARKS)
        present = (np.arange(MAX_OBJECTS) < self._a.props.objects)[:, None]
        shown = (np.arange(MAX_MARKS) < len(self._a.mark_geom))[:, None]
        object_colour = np.stack([_one_hot(layout, f"object{k}/colour") for k in objects], 1) * present
        mark_colour = np.stack([_one_hot(layout, f"mark{k}/colour") for k in marks], 1) * shown
        truth[rows, PRIVILEGED["object_present"]] = present[:, 0]
        truth[rows, PRIVILEGED["object_colour"]] = object_colour.reshape(len(rows), -1)
        truth[rows, PRIVILEGED["mark_colour"]] = mark_colour.reshape(len(rows), -1)
        for name, most in (("target", MAX_OBJECTS), ("reference", MAX_OBJECTS), ("mark", MAX_MARKS)):
            truth[rows, PRIVILEGED[name]] = np.eye(most)[column(layout, name).astype(np.int64)]


def _about_z(yaw: Float) -> Float:
    """Quaternions `[n, 4]` of turns by `yaw [n]` rad about z."""
    half = np.ascontiguousarray(0.5 * yaw)
    return np.column_stack([np.cos(half), np.zeros((len(half), 2)), np.sin(half)])


def _one_hot(layout: Float, name: str) -> Float:
    """`[n, 6]`: which colour; zeros for white."""
    colours = column(layout, name)
    hot: Float = (colours[:, None] == np.arange(len(COLOUR_NAMES))).astype(np.float64)
    return hot
