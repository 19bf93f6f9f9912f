"""From actions to servo commands: end-effector motions through inverse kinematics, or joint angles, kept within limits.

| mode | action | |
| --- | --- | --- |
| `delta` | `[dx, dy, dz, rx, ry, rz, gripper]` | move the commanded pose: metres, rotation vector (rad), world axes |
| `pose` | `[x, y, z, rx, ry, rz, gripper]` | the pose to go to: metres, rotation vector (rad) from pointing down |
| `joint` | `[q1 ... q7, gripper]` | joint angles to go to, rad |

`gripper` is the opening wanted, from 0 (closed) to 1 (open). Commands move from where the last one led to, never faster
than the tool's or the joints' largest speed; numbers out of range are clipped and counted. A pose that the arm cannot
take is not chased: the command stays close to the nearest one found, and the row is reported as `unreachable`.
"""

from __future__ import annotations

from typing import Any, Literal

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
LOST = 0.008
"""Metres (and 5 times as many radians) that the solution may be off before a pose counts as unreachable."""
LEAD = 0.03
"""Metres (and 5 times as many radians) that the commanded pose may be ahead of what the arm can do."""
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
        space = self.action_space()
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._most: Float = JOINT_SPEED / CONTROL_HZ
        self.q: Float = np.tile(rest, (num_envs, 1))
        self.fingers: Float = np.full(num_envs, STROKE)
        self._pose, self._jacobian = kinematics.jacobian(self.q)  # at `q`
        self.pos, self.rot = self._pose.pos.copy(), self._pose.rot.copy()
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
        pose, self._jacobian[rows] = self.kinematics.jacobian(q)
        self.pos[rows], self.rot[rows] = pose.pos, pose.rot
        self._pose.pos[rows], self._pose.rot[rows] = pose.pos, pose.rot
        self.clipped[rows], self.unreachable[rows] = 0, False

    def _check(self, actions: NDArray[np.floating[Any]]) -> None:
        shape = (len(self.q), len(self._low))
        if actions.shape != shape:
            raise RobotRLError(
                f"Actions have shape {tuple(actions.shape)}, but {shape[0]} envs with control={self.mode} take "
                f"{shape}: {UNITS[self.mode]}."
            )
        if not np.isfinite(actions).all():
            row = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
            raise RobotRLError(
                f"The action of row {row} is not finite: {actions[row].tolist()}. Nothing moved; mend the policy."
            )

    def command(self, actions: NDArray[np.floating[Any]]) -> None:
        """Take in `actions [N, A]`: sets `q`, `fingers`, the commanded pose, `clipped` and `unreachable`.

        Raises:
            RobotRLError: the actions are of another shape or not finite; nothing is changed then.
        """
        self._check(actions)
        actions = actions.astype(np.float64)
        inside = np.clip(actions, self._low, self._high)
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
        # one step of the inverse kinematics: the pose is a small step away, and what is left is made up for next time
        self.q = self.kinematics.step(
            self.q, Pose(pos, rot), rest=self._rest, pull=0.02, most=self._most, known=(self._pose, self._jacobian)
        )
        reached, self._jacobian = self.kinematics.jacobian(self.q)
        self._pose = reached
        ahead, turn = pos - reached.pos, rotation_vector(rot, reached.rot)
        off, turned = length(ahead), length(turn)
        self.unreachable = (off > LOST) | (turned > 5 * LOST)
        far = (off > LEAD) | (turned > 5 * LEAD)
        self.pos, self.rot = pos, rot
        if far.any():
            ahead, turn = ahead[far], turn[far]
            ahead *= np.minimum(1.0, LEAD / np.maximum(off[far], 1e-9))[:, None]
            turn *= np.minimum(1.0, 5 * LEAD / np.maximum(turned[far], 1e-9))[:, None]
            self.pos[far] = reached.pos[far] + ahead
            self.rot[far] = rotation_matrix(turn) @ reached.rot[far]

    def state_dict(self) -> StateDict:
        """The commands in force."""
        return {"q": self.q.copy(), "fingers": self.fingers.copy(), "pos": self.pos.copy(), "rot": self.rot.copy()}

    def load_state_dict(self, state: StateDict) -> None:
        """Set what `state_dict` returned."""
        self.q, self.fingers = np.array(state["q"]), np.array(state["fingers"])
        self.pos, self.rot = np.array(state["pos"]), np.array(state["rot"])
        self._pose, self._jacobian = self.kinematics.jacobian(self.q)


__all__ = ["FINGER_SPEED", "MAX_STEP", "MAX_TURN", "MODES", "STROKE", "UNITS", "Controller", "Mode"]
