"""Where the arm's joints put its tool, and which joints put the tool somewhere: for many arms at once.

Forward kinematics and Jacobians follow the model's own body frames. The inverse is damped least squares (Nakamura and
Hanafusa 1986; Wampler 1986) with a secondary pull towards a rest posture in the null space (Liegeois 1977). A joint at
a limit is taken out of the solution and the others are asked again.

Every operation works on each row alone, by the same instructions whatever the number of rows, so that an arm's motion
does not depend on how many others move beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
DOWN: Float = np.diag([1.0, -1.0, -1.0])
"""The tool's orientation with the fingers pointing down and opening along y."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Tool frames: positions `[N, 3]` (m) and rotation matrices `[N, 3, 3]`, tool to world."""

    pos: Float
    rot: Float


@dataclass(frozen=True, slots=True)
class Solution:
    """Joint angles for wanted poses."""

    q: Float
    """`[N, 7]` rad, within the limits."""
    reached: Bool
    """`[N]`: whether the pose is met within the tolerances asked for."""
    position_error: Float
    """`[N]` m."""
    rotation_error: Float
    """`[N]` rad."""


class Kinematics:
    """The chain from the world to the site `tcp` of a model that includes `arm.xml`."""

    def __init__(self, model: mujoco.MjModel) -> None:
        bodies = [int(model.jnt_bodyid[model.joint(name).id]) for name in JOINTS]
        offsets = [_frame(model.body_pos[b], model.body_quat[b]) for b in bodies]
        base = _frame(model.body_pos[model.body("base").id], model.body_quat[model.body("base").id])
        hand = _frame(model.body_pos[model.body("hand").id], model.body_quat[model.body("hand").id])
        site = _frame(model.site_pos[model.site("tcp").id], model.site_quat[model.site("tcp").id])
        offsets[0] = base @ offsets[0]
        self._offsets = [(f[:3, 3].copy(), f[:3, :3].copy()) for f in offsets]
        tool = hand @ site
        self._tool = (tool[:3, 3].copy(), tool[:3, :3].copy())
        low, high = model.jnt_range[[model.joint(name).id for name in JOINTS]].T
        self.low: Float = low.copy()
        self.high: Float = high.copy()

    def forward(self, q: Float) -> Pose:
        """The tool's pose at joint angles `q [N, 7]` (rad)."""
        return self._chain(q)[0]

    def jacobian(self, q: Float) -> tuple[Pose, Float]:
        """The tool's pose, and `[N, 6, 7]`: linear (m/rad) above angular velocity (rad/rad) a joint, in the world."""
        pose, origins, axes = self._chain(q)
        arm = np.ascontiguousarray(pose.pos.T) - origins
        x, y, z = axes[:, 0], axes[:, 1], axes[:, 2]
        by_component = np.empty((6, 7, len(q)))
        by_component[0] = y * arm[:, 2] - z * arm[:, 1]
        by_component[1] = z * arm[:, 0] - x * arm[:, 2]
        by_component[2] = x * arm[:, 1] - y * arm[:, 0]
        by_component[3:] = axes.transpose(1, 0, 2)
        return pose, np.ascontiguousarray(by_component.transpose(2, 0, 1))

    def _chain(self, q: Float) -> tuple[Pose, Float, Float]:
        """The tool's pose, joint origins `[7, 3, N]` and axes `[7, 3, N]`; rows last, which is fast for many rows."""
        count = len(q)
        angles = np.ascontiguousarray(q.T)  # the same code path of sin and cos for any N
        cos, sin = np.cos(angles), np.sin(angles)
        origins, axes = np.empty((7, 3, count)), np.empty((7, 3, count))
        pos: Float = np.zeros((3, count))
        unit = np.eye(3)
        frame: tuple[Float, ...] = tuple(np.repeat(unit[k, :, None], count, axis=1) for k in range(3))  # x, y, z
        for i, (shift, turn) in enumerate(self._offsets):
            pos, (x, y, z) = _attach(pos, frame, shift, turn)
            origins[i], axes[i] = pos, z
            frame = (cos[i] * x + sin[i] * y, cos[i] * y - sin[i] * x, z)
        pos, frame = _attach(pos, frame, *self._tool)
        return Pose(np.ascontiguousarray(pos.T), np.stack(frame).transpose(2, 1, 0).copy()), origins, axes

    def step(
        self,
        q: Float,
        goal: Pose,
        *,
        rest: Float,
        pull: float,
        most: Float,
        damping: float = 0.03,
        known: tuple[Pose, Float] | None = None,
    ) -> Float:
        """Joint angles `[N, 7]` one damped step from `q` towards `goal`.

        Args:
            q: where to start, `[N, 7]` rad.
            goal: wanted poses.
            rest: the posture `[7]` that the spare degree of freedom is drawn to.
            pull: share of the way to it a step.
            most: largest change of each joint `[7]`, rad.
            damping: of the least squares; larger is steadier near singular poses and slower.
            known: what `jacobian(q)` returned, if it has been asked already.
        """
        pose, jacobian = self.jacobian(q) if known is None else known
        error = np.concatenate([goal.pos - pose.pos, rotation_vector(goal.rot, pose.rot)], axis=1)
        change = _least_squares(jacobian, error, pull * (rest - q), damping)
        at_limit = ((q <= self.low) & (change < 0)) | ((q >= self.high) & (change > 0))
        rows = np.flatnonzero(at_limit.any(axis=1))
        if rows.size:
            free = ~at_limit[rows]
            change[rows] = _least_squares(
                jacobian[rows] * free[:, None], error[rows], pull * (rest - q[rows]) * free, damping
            )
        # the whole step is shortened, so that the direction stays
        scale = np.max(np.abs(change) / most, axis=1, keepdims=True)
        change /= np.maximum(scale, 1.0)
        return np.clip(q + change, self.low, self.high)

    def solve(
        self,
        goal: Pose,
        start: Float,
        *,
        position_tolerance: float = 1e-4,
        rotation_tolerance: float = 1e-3,
        steps: int = 100,
        restarts: int = 20,
        seed: int = 0,
    ) -> Solution:
        """Joint angles for `goal`, from `start [N, 7]` and, where that does not lead there, from random postures.

        A pose out of reach is no error: its row comes back with `reached` False and the nearest posture found.
        """
        rng = np.random.default_rng(seed)
        most = np.full(7, 0.3)
        best = np.clip(start, self.low, self.high)
        middle = (self.low + self.high) / 2
        best_error = np.full(len(start), np.inf)
        for attempt in range(restarts + 1):
            todo = np.flatnonzero(best_error > 1.0)
            if not todo.size:
                break
            part = Pose(goal.pos[todo], goal.rot[todo])
            q = best[todo] if attempt == 0 else rng.uniform(self.low, self.high, (todo.size, 7))
            for k in range(steps):  # the last steps close in without much damping
                q = self.step(q, part, rest=middle, pull=0.0, most=most, damping=0.01 if k < steps - 10 else 1e-3)
            far, turned = self.error(q, part)
            error = np.maximum(far / position_tolerance, turned / rotation_tolerance)
            better = error < best_error[todo]
            best[todo[better]], best_error[todo[better]] = q[better], error[better]
        far, turned = self.error(best, goal)
        return Solution(best, (far <= position_tolerance) & (turned <= rotation_tolerance), far, turned)

    def error(self, q: Float, goal: Pose) -> tuple[Float, Float]:
        """How far the tool is from `goal` at `q`: metres `[N]` and radians `[N]`."""
        pose = self.forward(q)
        return length(goal.pos - pose.pos), length(rotation_vector(goal.rot, pose.rot))


def _frame(pos: Float, quat: Float) -> Float:
    rot = np.empty(9)
    mujoco.mju_quat2Mat(rot, np.asarray(quat, np.float64))
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = rot.reshape(3, 3), pos
    frame[np.abs(frame) < 1e-12] = 0.0  # a quarter turn's rounding errors
    frame[np.abs(frame - 1.0) < 1e-12] = 1.0
    return frame


def _attach(pos: Float, frame: tuple[Float, ...], shift: Float, turn: Float) -> tuple[Float, tuple[Float, ...]]:
    """A frame that stands at `shift` in `frame` and is turned by `turn`: positions and axes `[3, N]`.

    What is zero is left out: most frames of the chain are a quarter turn from the one before.
    """
    for axis, amount in zip(frame, shift, strict=True):
        if amount:
            pos = pos + amount * axis
    turned = []
    for weights in turn.T:
        terms = [
            axis if weight == 1.0 else weight * axis for axis, weight in zip(frame, weights, strict=True) if weight
        ]
        turned.append(sum(terms[1:], terms[0]))
    return pos, tuple(turned)


def _least_squares(jacobian: Float, error: Float, posture: Float, damping: float) -> Float:
    """`J+ error + (1 - J+ J) posture` with the damped pseudo-inverse `J+`; `[N, 7]`."""
    transposed = jacobian.transpose(0, 2, 1)
    square = jacobian @ transposed
    square[:, range(6), range(6)] += damping**2
    wanted = error - (jacobian @ posture[..., None])[..., 0]
    solved = np.linalg.solve(square, wanted[..., None])
    change: Float = (transposed @ solved)[..., 0] + posture
    return change


def length(vectors: Float) -> Float:
    """Euclidean lengths `[...]` of `vectors [..., 3]`."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    lengths: Float = np.sqrt(x * x + y * y + z * z)
    return lengths


def rotation_vector(goal: Float, now: Float) -> Float:
    """The rotation from `now` to `goal` (matrices `[N, 3, 3]`), as axis times angle `[N, 3]` (rad) in the world."""
    turn = goal @ now.transpose(0, 2, 1)
    sine = np.empty((len(turn), 3))
    sine[:, 0] = turn[:, 2, 1] - turn[:, 1, 2]
    sine[:, 1] = turn[:, 0, 2] - turn[:, 2, 0]
    sine[:, 2] = turn[:, 1, 0] - turn[:, 0, 1]
    size = 0.5 * length(sine)
    cosine = 0.5 * (turn[:, 0, 0] + turn[:, 1, 1] + turn[:, 2, 2] - 1.0)
    # close to half a turn the axis is lost in `sine`: any axis of the right plane makes progress from there
    lost = size < 1e-9
    factor = np.where(lost, 0.5, 0.5 * np.arctan2(size, cosine) / np.where(lost, 1.0, size))
    vector = sine * factor[:, None]
    half_turn = lost & (cosine < 0)
    if half_turn.any():
        vector[half_turn] = np.array([np.pi, 0.0, 0.0])
    return vector


def rotation_matrix(vector: Float) -> Float:
    """Rotation matrices `[N, 3, 3]` of rotation vectors `[N, 3]` (axis times angle, rad), by Rodrigues' formula."""
    angle = length(vector)
    small = angle < 1e-12
    axis = vector / np.where(small, 1.0, angle)[:, None]
    c, s = np.cos(angle), np.sin(angle)
    x, y, z = axis[:, 0], axis[:, 1], axis[:, 2]
    rot = np.empty((len(vector), 3, 3))
    one = 1.0 - c
    rot[:, 0, 0], rot[:, 0, 1], rot[:, 0, 2] = c + x * x * one, x * y * one - z * s, x * z * one + y * s
    rot[:, 1, 0], rot[:, 1, 1], rot[:, 1, 2] = y * x * one + z * s, c + y * y * one, y * z * one - x * s
    rot[:, 2, 0], rot[:, 2, 1], rot[:, 2, 2] = z * x * one - y * s, z * y * one + x * s, c + z * z * one
    return rot


def about_z(angle: Float) -> Float:
    """Rotation matrices `[N, 3, 3]` by `angle [N]` (rad) about the world's z axis."""
    vector = np.zeros((len(angle), 3))
    vector[:, 2] = angle
    return rotation_matrix(vector)


def matrix_of_quaternion(quat: Float) -> Float:
    """Rotation matrices `[..., 3, 3]` of unit quaternions `[..., 4]` (w, x, y, z)."""
    w, x, y, z = (quat[..., k] for k in range(4))
    rot = np.empty((*quat.shape[:-1], 3, 3))
    rot[..., 0, 0], rot[..., 0, 1], rot[..., 0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    rot[..., 1, 0], rot[..., 1, 1], rot[..., 1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    rot[..., 2, 0], rot[..., 2, 1], rot[..., 2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return rot


__all__ = [
    "DOWN", "JOINTS", "Kinematics", "Pose", "Solution", "about_z", "length", "matrix_of_quaternion", "rotation_matrix",
    "rotation_vector",
]  # fmt: skip
