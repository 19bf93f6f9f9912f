"""From actions to servo commands: end-effector motions through inverse kinematics, or joint angles, kept within limits.

| mode | action | |
| --- | --- | --- |
| `delta` | `[dx, dy, dz, rx, ry, rz, gripper]` | move the commanded pose: metres, rotation vector (rad), world axes |
| `pose` | `[x, y, z, rx, ry, rz, gripper]` | the pose to go to: metres, rotation vector (rad) from pointing down |
| `joint` | `[q1 ... q7, gripper]` | joint angles to go to, rad |

`gripper` is the opening wanted, from 0 (closed) to 1 (open). Commands move from where the last one led to, never faster
than the tool's or the joints' largest speed; numbers out of range are clipped and counted. A pose that the arm cannot
take is not chased: the command stays at the nearest one found, and the row is reported as `unreachable`.
"""

from __future__ import annotations

from typing import Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from robotrl.envs.tabletop.kinematics import DOWN, Kinematics, Pose, length, rotation_matrix, rotation_vector
from robotrl.envs.tabletop.scene import CONTROL_HZ, WORKSPACE
from robotrl.registry import nearest
from robotrl.types import RobotRLError, StateDict

Float = NDArray[np.float64]
Rows = NDArray[np.integer] | slice

MODES = ("delta", "pose", "joint")
Mode = Literal["delta", "pose", "joint"]
MAX_STEP, MAX_TURN = 0.025, 0.15
"""Metres and radians that the tool's command moves at most in a control step: 0.5 m/s, 3 rad/s."""
JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
"""rad/s, the arm's published limits."""
STROKE = 0.04
"""Metres that a finger travels."""
FINGER_SPEED = 0.16
"""m/s of a finger's command."""
PASSES = 2
"""Steps of the inverse kinematics in a control step; the last pose is one small step away, so few are needed."""
LOST = 0.004
"""Metres (and 5 times as many radians) that the solution may be off before a pose counts as unreachable."""
UNITS = {
    "delta": "m, m, m, rad, rad, rad, 0 closed to 1 open",
    "pose": "m, m, m, rad, rad, rad, 0 closed to 1 open",
    "joint": "rad a joint, 0 closed to 1 open",
}


class Controller:
    """One command a row: joint angles, tool pose, finger opening."""

    def __init__(self, kinematics: Kinematics, num_envs: int, *, mode: str, rest: Float) -> None:
        if mode not in MODES:
            raise RobotRLError(
                f"control='{mode}' is no way to control the arm.{nearest(mode, list(MODES))} "
                f"There are: {', '.join(MODES)}."
            )
        self.kinematics, self.mode, self._rest = kinematics, mode, rest
        self._most: Float = JOINT_SPEED / CONTROL_HZ
        self.q: Float = np.tile(rest, (num_envs, 1))
        self.fingers: Float = np.full(num_envs, STROKE)
        pose = kinematics.forward(self.q)
        self.pos, self.rot = pose.pos, pose.rot
        self.clipped: NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self.unreachable: NDArray[np.bool_] = np.zeros(num_envs, np.bool_)

    def action_space(self) -> gymnasium.spaces.Box:
        """What one env takes."""
        if self.mode == "delta":
            low, high = [-MAX_STEP] * 3 + [-MAX_TURN] * 3, [MAX_STEP] * 3 + [MAX_TURN] * 3
        elif self.mode == "pose":
            low, high = [*WORKSPACE[0], *[-np.pi] * 3], [*WORKSPACE[1], *[np.pi] * 3]
        else:
            low, high = list(self.kinematics.low), list(self.kinematics.high)
        bounds = np.array([[*low, 0.0], [*high, 1.0]], np.float32)
        return gymnasium.spaces.Box(bounds[0], bounds[1], dtype=np.float32)

    def reset(self, rows: Rows, q: Float, fingers: float = STROKE) -> None:
        """Command the posture `q [n, 7]` that `rows` start in."""
        self.q[rows], self.fingers[rows] = q, fingers
        pose = self.kinematics.forward(q)
        self.pos[rows], self.rot[rows] = pose.pos, pose.rot
        self.clipped[rows], self.unreachable[rows] = 0, False

    def command(self, actions: Float, low: Float, high: Float) -> None:
        """Take in `actions [N, A]`: sets `q`, `fingers`, the commanded pose, `clipped` and `unreachable`."""
        inside = np.clip(actions, low, high)
        self.clipped = np.count_nonzero(inside != actions, axis=1)
        opening = inside[:, -1] * STROKE
        most = FINGER_SPEED / CONTROL_HZ
        self.fingers = self.fingers + np.clip(opening - self.fingers, -most, most)
        if self.mode == "joint":
            self.q = self.q + np.clip(inside[:, :7] - self.q, -self._most, self._most)
            pose = self.kinematics.forward(self.q)
            self.pos, self.rot = pose.pos, pose.rot
            self.unreachable = np.zeros(len(actions), np.bool_)
            return
        self._follow(*self._wanted(inside))

    def _wanted(self, inside: Float) -> tuple[Float, Float]:
        """The pose to command now, positions `[N, 3]` and rotations `[N, 3, 3]`."""
        if self.mode == "delta":
            shift, turn = inside[:, :3], inside[:, 3:6]
        else:
            goal = rotation_matrix(np.ascontiguousarray(inside[:, 3:6])) @ DOWN
            shift, turn = inside[:, :3] - self.pos, rotation_vector(goal, self.rot)
            shift = shift * np.minimum(1.0, MAX_STEP / np.maximum(length(shift), 1e-9))[:, None]
            turn = turn * np.minimum(1.0, MAX_TURN / np.maximum(length(turn), 1e-9))[:, None]
        pos = self.pos + shift
        kept = np.clip(pos, WORKSPACE[0], WORKSPACE[1])
        self.clipped += np.count_nonzero(np.abs(kept - pos) > 1e-9, axis=1)
        return kept, rotation_matrix(np.ascontiguousarray(turn)) @ self.rot

    def _follow(self, pos: Float, rot: Float) -> None:
        goal = Pose(pos, rot)
        q = self.q
        for _ in range(PASSES):
            q = self.kinematics.step(q, goal, rest=self._rest, pull=0.02, most=self._most / PASSES)
        reached = self.kinematics.forward(q)
        off, turned = length(pos - reached.pos), length(rotation_vector(rot, reached.rot))
        self.unreachable = (off > LOST) | (turned > 5 * LOST)
        lost = self.unreachable[:, None]
        self.q = q
        self.pos = np.where(lost, reached.pos, pos)
        self.rot = np.where(lost[:, None], reached.rot, rot)

    def state_dict(self) -> StateDict:
        """The commands in force."""
        return {"q": self.q.copy(), "fingers": self.fingers.copy(), "pos": self.pos.copy(), "rot": self.rot.copy()}

    def load_state_dict(self, state: StateDict) -> None:
        """Set what `state_dict` returned."""
        self.q, self.fingers = np.array(state["q"]), np.array(state["fingers"])
        self.pos, self.rot = np.array(state["pos"]), np.array(state["rot"])


__all__ = ["FINGER_SPEED", "MAX_STEP", "MAX_TURN", "MODES", "STROKE", "UNITS", "Controller", "Mode"]
