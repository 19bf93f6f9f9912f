"""Ant: a four-legged robot paid for walking along x.

Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (2016), with the
contact cost of Gymnasium's v5, whose options and constants these are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.native.task import Float, NoisyTask, Rows, body_id, length
from robotrl.types import StateDict


@dataclass(kw_only=True, eq=False)
class Ant(NoisyTask):
    """Reward: speed of the main body along x, plus a bonus while healthy, less squared actions and contact forces.

    Healthy: the state is finite and the torso's height (m) lies in `healthy_z_range`, bounds included.
    """

    xml_file: str = "ant.xml"
    frame_skip: int = 5
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: {"distance": 4.0})
    forward_reward_weight: float = 1
    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    main_body: int | str = 1
    terminate_when_unhealthy: bool = True
    healthy_z_range: tuple[float, float] = (0.2, 1.0)
    contact_force_range: tuple[float, float] = (-1.0, 1.0)
    exclude_current_positions_from_observation: bool = True
    include_cfrc_ext_in_observation: bool = True

    walks: ClassVar[bool] = True
    normal_velocities: ClassVar[bool] = True
    unit: ClassVar[str] = (
        "positions m and quaternion and rad; velocities m/s and rad/s; contact torques and forces clipped"
    )

    @override
    def needs_contact_forces(self) -> bool:
        return self.include_cfrc_ext_in_observation or self.contact_cost_weight != 0

    @override
    def bind(self, batch: Batch) -> None:
        self.skip = 2 * self.exclude_current_positions_from_observation
        self.body = body_id(self.model, self.main_body)
        self.xpos: Float = batch.bind("xpos")
        self.xy = np.zeros((self.num_envs, 2))  # of the main body at the last look; the reward compares with it
        self.cfrc_ext: Float = batch.bind("cfrc_ext").reshape(self.num_envs, -1)
        self.forces = np.zeros_like(self.cfrc_ext)

    @override
    def obs_size(self) -> int:
        contacts = self.forces.shape[1] - 6 if self.include_cfrc_ext_in_observation else 0
        return self.coords.shape[1] - self.skip + contacts

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        xy = self.xpos[:, self.body, :2]
        velocity = (xy - self.xy) / self.dt
        self.xy[:] = xy
        low, high = self.contact_force_range
        np.minimum(np.maximum(self.cfrc_ext, low, out=self.forces), high, out=self.forces)
        healthy = self.healthy()
        forward = velocity[:, 0] * self.forward_reward_weight
        survive = healthy * self.healthy_reward
        ctrl = self.ctrl_cost_weight * np.add.reduce(np.square(actions), axis=1)
        contact = self.contact_cost_weight * np.add.reduce(np.square(self.forces), axis=1)
        np.subtract(forward + survive, ctrl + contact, out=self.reward)
        if self.terminate_when_unhealthy:
            np.logical_not(healthy, out=self.terminated)
        return {
            **self.reset_infos(),
            "x_velocity": velocity[:, 0],
            "y_velocity": velocity[:, 1],
            "reward_forward": forward,
            "reward_ctrl": -ctrl,
            "reward_contact": -contact,
            "reward_survive": survive,
        }

    def healthy(self) -> NDArray[np.bool_]:
        """Which rows are healthy, `[N]`."""
        z = self.qpos[:, 2]
        good: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(self.coords), axis=1)
        good &= z >= self.healthy_z_range[0]
        good &= z <= self.healthy_z_range[1]
        return good

    @override
    def after_reset(self, batch: Batch, rows: NDArray[np.int32]) -> None:
        batch.forward(rows, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self.xy[rows] = self.xpos[rows, self.body, :2]
        self.forces[rows] = 0.0

    @override
    def observe(self, rows: Rows) -> None:
        own = self.coords.shape[1] - self.skip
        self.obs[rows, :own] = self.coords[rows, self.skip :]
        if self.include_cfrc_ext_in_observation:
            self.obs[rows, own:] = self.forces[rows, 6:]  # without the world's

    @override
    def reset_infos(self) -> dict[str, NDArray[Any]]:
        xy = self.qpos[:, :2].copy()
        return {"x_position": xy[:, 0], "y_position": xy[:, 1], "distance_from_origin": length(xy)}

    @override
    def state_dict(self) -> StateDict:
        return {"xy": self.xy.copy()}

    @override
    def load_state_dict(self, state: StateDict) -> None:
        self.xy[:] = state["xy"]
