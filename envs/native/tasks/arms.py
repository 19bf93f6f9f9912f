"""Reacher and Pusher: an arm that brings its tip to a target, or a cylinder to a goal.

Positions of bodies (m) are those that `mj_step` leaves behind: of its last evaluation of the dynamics, one simulation
step before the joint angles that stand beside them in the observation, as in Gymnasium's v5 environments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.native.task import Float, Rows, Task, body_id, length
from robotrl.envs.seeding import EpisodeStreams


@dataclass(kw_only=True, eq=False)
class _Arm(Task):
    @override
    def bind(self, batch: Batch) -> None:
        self.xpos: Float = batch.bind("xpos")

    def start(self, rng: np.random.Generator, qpos: Float, qvel: Float) -> None:
        """Write one episode's start state."""
        raise NotImplementedError

    @override
    def start_rows(self, streams: EpisodeStreams, rows: NDArray[np.int32], episodes: NDArray[np.int64]) -> None:
        for row, episode in zip(rows.tolist(), episodes.tolist(), strict=True):
            self.start(streams.at(episode), self.qpos[row], self.qvel[row])

    @override
    def after_reset(self, batch: Batch, rows: NDArray[np.int32]) -> None:
        batch.forward(rows, stage=mujoco.mjtStage.mjSTAGE_POS.value)


@dataclass(kw_only=True, eq=False)
class Reacher(_Arm):
    """Two joints in a plane. Reward: minus the tip's distance (m) to the target, minus squared actions."""

    xml_file: str = "reacher.xml"
    frame_skip: int = 2
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: {"trackbodyid": 0})
    reward_dist_weight: float = 1
    reward_control_weight: float = 1

    max_episode_steps: ClassVar[int] = 50
    unit: ClassVar[str] = "cos and sin of two angles; target m; rad/s; tip to target m"

    @override
    def bind(self, batch: Batch) -> None:
        super().bind(batch)
        self.tip, self.target = body_id(self.model, "fingertip"), body_id(self.model, "target")

    @override
    def obs_size(self) -> int:
        return 10

    @override
    def start(self, rng: np.random.Generator, qpos: Float, qvel: Float) -> None:
        qpos[:] = rng.uniform(-0.1, 0.1, qpos.size) + self.init_qpos
        goal = rng.uniform(-0.2, 0.2, 2)
        while goal @ goal >= 0.04:
            goal = rng.uniform(-0.2, 0.2, 2)
        qpos[-2:] = goal
        qvel[:] = rng.uniform(-0.005, 0.005, qvel.size)
        qvel[-2:] = 0.0

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        distance = -length(self.xpos[:, self.tip] - self.xpos[:, self.target]) * self.reward_dist_weight
        ctrl = -np.add.reduce(np.square(actions), axis=1) * self.reward_control_weight
        np.add(distance, ctrl, out=self.reward)
        return {"reward_dist": distance, "reward_ctrl": ctrl}

    @override
    def observe(self, rows: Rows) -> None:
        obs, qpos = self.obs, self.qpos[rows]
        obs[rows, :2] = np.cos(qpos[:, :2])
        obs[rows, 2:4] = np.sin(qpos[:, :2])
        obs[rows, 4:6] = qpos[:, 2:]
        obs[rows, 6:8] = self.qvel[rows, :2]
        obs[rows, 8:] = self.xpos[rows, self.tip, :2] - self.xpos[rows, self.target, :2]


@dataclass(kw_only=True, eq=False)
class Pusher(_Arm):
    """Seven joints. Reward: minus the distances (m) cylinder to goal and tip to cylinder, minus squared actions."""

    xml_file: str = "pusher_v5.xml"
    frame_skip: int = 5
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: {"trackbodyid": -1, "distance": 4.0})
    reward_near_weight: float = 0.5
    reward_dist_weight: float = 1
    reward_control_weight: float = 0.1

    max_episode_steps: ClassVar[int] = 100
    unit: ClassVar[str] = "seven angles rad; rad/s; tip, cylinder, goal m"

    @override
    def bind(self, batch: Batch) -> None:
        super().bind(batch)
        self.bodies = [body_id(self.model, name) for name in ("tips_arm", "object", "goal")]

    @override
    def obs_size(self) -> int:
        return 23

    @override
    def start(self, rng: np.random.Generator, qpos: Float, qvel: Float) -> None:
        qpos[:] = self.init_qpos
        cylinder = np.zeros(2)
        while cylinder @ cylinder <= 0.17**2:  # far enough from the goal, which lies at the origin
            cylinder[:] = rng.uniform(-0.3, 0.0), rng.uniform(-0.2, 0.2)
        qpos[-4:-2] = cylinder
        qpos[-2:] = 0.0
        qvel[:] = rng.uniform(-0.005, 0.005, qvel.size)
        qvel[-4:] = 0.0

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        tip, cylinder, goal = (self.xpos[:, body] for body in self.bodies)
        near = -length(cylinder - tip) * self.reward_near_weight
        distance = -length(cylinder - goal) * self.reward_dist_weight
        ctrl = -np.add.reduce(np.square(actions), axis=1) * self.reward_control_weight
        np.add(distance + ctrl, near, out=self.reward)
        return {"reward_dist": distance, "reward_ctrl": ctrl, "reward_near": near}

    @override
    def observe(self, rows: Rows) -> None:
        obs = self.obs
        obs[rows, :7] = self.qpos[rows, :7]
        obs[rows, 7:14] = self.qvel[rows, :7]
        for column, body in zip((14, 17, 20), self.bodies, strict=True):
            obs[rows, column : column + 3] = self.xpos[rows, body]
