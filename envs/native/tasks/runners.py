"""HalfCheetah, Hopper, Walker2d and Swimmer: robots in a plane, paid for forward speed.

Reward: `forward_reward_weight * dx/dt + healthy_reward - ctrl_cost_weight * |action|^2`, dx in metres over one control
step. Sources: Wawrzynski, "A Cat-Like Robot Real-Time Learning to Run" (2009) for HalfCheetah; Erez, Tassa, Todorov,
"Infinite-Horizon Model Predictive Control for Periodic Tasks with Contacts" (2011) for Hopper and Walker2d; Coulom
(2002) for Swimmer; options and constants are those of Gymnasium's v5 environments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.native.task import NoisyTask, Rows, length

_PLANAR_UNIT = "positions m and rad, then velocities m/s and rad/s"


@dataclass(kw_only=True, eq=False)
class Runner(NoisyTask):
    """What the four share."""

    forward_reward_weight: float = 1.0
    ctrl_cost_weight: float = 0.1
    exclude_current_positions_from_observation: bool = True

    walks: ClassVar[bool] = True
    unit: ClassVar[str] = _PLANAR_UNIT
    skipped: ClassVar[int] = 1
    """Leading positions (x, or x and y) that `exclude_current_positions_from_observation` leaves out."""

    @override
    def bind(self, batch: Batch) -> None:
        self.skip = self.skipped * self.exclude_current_positions_from_observation
        self.x_before = np.zeros(self.num_envs)

    @override
    def obs_size(self) -> int:
        return self.coords.shape[1] - self.skip

    @override
    def before_step(self) -> None:
        self.x_before[:] = self.qpos[:, 0]

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        x = self.qpos[:, 0].copy()
        velocity = (x - self.x_before) / self.dt
        forward = self.forward_reward_weight * velocity
        # squared and added in the actions' own precision, as Gymnasium does: float32 actions cost a float32
        ctrl = self.ctrl_cost_weight * np.add.reduce(np.square(actions), axis=1)
        np.subtract(forward, ctrl, out=self.reward)
        return {"x_position": x, "x_velocity": velocity, "reward_forward": forward, "reward_ctrl": -ctrl}

    @override
    def observe(self, rows: Rows) -> None:
        self.obs[rows] = self.coords[rows, self.skip :]

    @override
    def reset_infos(self) -> dict[str, NDArray[Any]]:
        return {"x_position": self.qpos[:, 0].copy()}


@dataclass(kw_only=True, eq=False)
class HalfCheetah(Runner):
    """A two-legged cat with six driven hinges; never terminates."""

    xml_file: str = "half_cheetah.xml"
    frame_skip: int = 5
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: {"distance": 4.0})

    normal_velocities: ClassVar[bool] = True


def _side_view(distance: float) -> dict[str, Any]:
    return {"trackbodyid": 2, "distance": distance, "lookat": (0.0, 0.0, 1.15), "elevation": -20.0}


@dataclass(kw_only=True, eq=False)
class _Upright(Runner):
    """Hopper and Walker2d: healthy while the torso is high and upright enough; velocities are observed within 10."""

    ctrl_cost_weight: float = 1e-3
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: tuple[float, float] = (0.8, 2.0)
    healthy_angle_range: tuple[float, float] = (-1.0, 1.0)
    reset_noise_scale: float = 5e-3

    def healthy(self) -> NDArray[np.bool_]:
        """Which rows are healthy, `[N]`; open intervals, NaN is unhealthy."""
        z, angle = self.qpos[:, 1], self.qpos[:, 2]
        good = z > self.healthy_z_range[0]
        good &= z < self.healthy_z_range[1]
        good &= angle > self.healthy_angle_range[0]
        good &= angle < self.healthy_angle_range[1]
        return good

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        x = self.qpos[:, 0].copy()
        velocity = (x - self.x_before) / self.dt
        forward = self.forward_reward_weight * velocity
        healthy = self.healthy()
        survive = healthy * self.healthy_reward
        ctrl = self.ctrl_cost_weight * np.add.reduce(np.square(actions), axis=1)
        np.subtract(forward + survive, ctrl, out=self.reward)
        if self.terminate_when_unhealthy:
            np.logical_not(healthy, out=self.terminated)
        return {
            "x_position": x,
            "z_distance_from_origin": self.qpos[:, 1] - self.init_qpos[1],
            "x_velocity": velocity,
            "reward_forward": forward,
            "reward_ctrl": -ctrl,
            "reward_survive": survive,
        }

    @override
    def observe(self, rows: Rows) -> None:
        obs, positions = self.obs, self.model.nq - self.skip
        obs[rows, :positions] = self.qpos[rows, self.skip :]
        obs[rows, positions:] = np.minimum(np.maximum(self.qvel[rows], -10.0), 10.0)

    @override
    def reset_infos(self) -> dict[str, NDArray[Any]]:
        return {"x_position": self.qpos[:, 0].copy(), "z_distance_from_origin": self.qpos[:, 1] - self.init_qpos[1]}


@dataclass(kw_only=True, eq=False)
class Hopper(_Upright):
    """A one-legged robot with three driven hinges; terminates when it falls or a state leaves its range."""

    xml_file: str = "hopper.xml"
    frame_skip: int = 4
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: _side_view(3.0))
    healthy_state_range: tuple[float, float] = (-100.0, 100.0)
    healthy_z_range: tuple[float, float] = (0.7, float("inf"))
    healthy_angle_range: tuple[float, float] = (-0.2, 0.2)

    @override
    def healthy(self) -> NDArray[np.bool_]:
        good = super().healthy()
        states = self.coords[:, 2:]
        good &= np.minimum.reduce(states, axis=1) > self.healthy_state_range[0]
        good &= np.maximum.reduce(states, axis=1) < self.healthy_state_range[1]
        return good


@dataclass(kw_only=True, eq=False)
class Walker2d(_Upright):
    """A two-legged robot with six driven hinges; terminates when it falls."""

    xml_file: str = "walker2d_v5.xml"
    frame_skip: int = 4
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: _side_view(4.0))


@dataclass(kw_only=True, eq=False)
class Swimmer(Runner):
    """A chain of three links in a viscous fluid, with two driven hinges; never terminates."""

    xml_file: str = "swimmer.xml"
    frame_skip: int = 4
    ctrl_cost_weight: float = 1e-4

    skipped: ClassVar[int] = 2

    @override
    def bind(self, batch: Batch) -> None:
        super().bind(batch)
        self.xy_before = np.zeros((self.num_envs, 2))

    @override
    def before_step(self) -> None:
        self.xy_before[:] = self.qpos[:, :2]

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        velocity = (self.qpos[:, :2] - self.xy_before) / self.dt
        forward = self.forward_reward_weight * velocity[:, 0]
        ctrl = self.ctrl_cost_weight * np.add.reduce(np.square(actions), axis=1)
        np.subtract(forward, ctrl, out=self.reward)
        speeds = {"x_velocity": velocity[:, 0], "y_velocity": velocity[:, 1]}
        return {**self.reset_infos(), **speeds, "reward_forward": forward, "reward_ctrl": -ctrl}

    @override
    def reset_infos(self) -> dict[str, NDArray[Any]]:
        xy = self.qpos[:, :2].copy()
        return {"x_position": xy[:, 0], "y_position": xy[:, 1], "distance_from_origin": length(xy)}
