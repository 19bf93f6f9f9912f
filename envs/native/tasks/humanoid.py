"""Humanoid and HumanoidStandup: a body of 13 segments and 17 actuators that walks, or gets up from the floor.

Source: Tassa, Erez, Todorov, "Synthesis and Stabilization of Complex Behaviors through Online Trajectory Optimization"
(2012); options and constants are those of Gymnasium's v5 environments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.native.task import Float, NoisyTask, Rows, length
from robotrl.types import StateDict

_UNIT = (
    "positions m, quaternion, rad; velocities m/s and rad/s; cinert kg, kg m, kg m^2; cvel rad/s and m/s; "
    "qfrc_actuator N m; cfrc_ext N m and N"
)


def _view_from(height: float) -> dict[str, Any]:
    return {"trackbodyid": 1, "distance": 4.0, "lookat": (0.0, 0.0, height), "elevation": -20.0}


@dataclass(kw_only=True, eq=False)
class _Body(NoisyTask):
    """What both observe: state, inertias and velocities of the bodies, actuator and contact forces."""

    frame_skip: int = 5
    ctrl_cost_weight: float = 0.1
    reset_noise_scale: float = 1e-2
    exclude_current_positions_from_observation: bool = True
    include_cinert_in_observation: bool = True
    include_cvel_in_observation: bool = True
    include_qfrc_actuator_in_observation: bool = True
    include_cfrc_ext_in_observation: bool = True

    walks: ClassVar[bool] = True
    unit: ClassVar[str] = _UNIT

    @override
    def bind(self, batch: Batch) -> None:
        self.ctrl: Float = batch.bind("ctrl")
        self.cfrc_ext: Float = batch.bind("cfrc_ext").reshape(self.num_envs, -1)
        self.ten_length: Float = batch.bind("ten_length")
        self.ten_velocity: Float = batch.bind("ten_velocity")
        # what the observation is made of: (field, first column); the world's body and the free joint are left out
        self.parts = [(self.coords, 2 * self.exclude_current_positions_from_observation)]
        if self.include_cinert_in_observation:
            self.parts.append((batch.bind("cinert").reshape(self.num_envs, -1), 10))
        if self.include_cvel_in_observation:
            self.parts.append((batch.bind("cvel").reshape(self.num_envs, -1), 6))
        if self.include_qfrc_actuator_in_observation:
            self.parts.append((batch.bind("qfrc_actuator"), 6))
        if self.include_cfrc_ext_in_observation:
            self.parts.append((self.cfrc_ext, 6))

    @override
    def obs_size(self) -> int:
        return sum(values.shape[1] - first for values, first in self.parts)

    @override
    def after_reset(self, batch: Batch, rows: NDArray[np.int32]) -> None:
        batch.forward(rows)
        if self.needs_contact_forces():
            batch.forces[rows] = 0.0  # no step has been made yet

    @override
    def observe(self, rows: Rows) -> None:
        column = 0
        for values, first in self.parts:
            end = column + values.shape[1] - first
            self.obs[rows, column:end] = values[rows, first:]
            column = end

    def quadratic_costs(self, contact_weight: float, contact_range: tuple[float, float]) -> tuple[Float, Float]:
        """Costs `[N]` of the squared controls and of the squared contact forces, the latter within its range."""
        ctrl = self.ctrl_cost_weight * np.add.reduce(np.square(self.ctrl), axis=1)
        contact = contact_weight * np.add.reduce(np.square(self.cfrc_ext), axis=1)
        return ctrl, np.minimum(np.maximum(contact, contact_range[0]), contact_range[1])

    def tendons(self) -> dict[str, NDArray[Any]]:
        """Lengths (m) and velocities (m/s) of the tendons, `[N, 2]` each."""
        return {"tendon_length": self.ten_length.copy(), "tendon_velocity": self.ten_velocity.copy()}


@dataclass(kw_only=True, eq=False)
class Humanoid(_Body):
    """Reward: speed of the centre of mass along x, plus a bonus while healthy, less squared controls and forces.

    Healthy: the torso's height (m) lies inside `healthy_z_range`.
    """

    xml_file: str = "humanoid.xml"
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: _view_from(2.0))
    forward_reward_weight: float = 1.25
    contact_cost_weight: float = 5e-7
    contact_cost_range: tuple[float, float] = (-np.inf, 10.0)
    healthy_reward: float = 5.0
    terminate_when_unhealthy: bool = True
    healthy_z_range: tuple[float, float] = (1.0, 2.0)

    @override
    def needs_contact_forces(self) -> bool:
        return self.include_cfrc_ext_in_observation or self.contact_cost_weight != 0

    @override
    def bind(self, batch: Batch) -> None:
        super().bind(batch)
        self.xipos: Float = batch.bind("xipos")
        self.xy = np.zeros((self.num_envs, 2))  # of the centre of mass at the last look

    def centre_of_mass(self) -> Float:
        """Horizontal position of the centre of mass (m), `[N, 2]`."""
        mass = self.body_mass
        moment = np.einsum("b,nbj->nj" if mass.ndim == 1 else "nb,nbj->nj", mass, self.xipos)
        return (moment / mass.sum(-1, keepdims=True))[:, :2]

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        xy = self.centre_of_mass()
        velocity = (xy - self.xy) / self.dt
        self.xy[:] = xy
        z = self.qpos[:, 2]
        healthy = z > self.healthy_z_range[0]
        healthy &= z < self.healthy_z_range[1]
        forward = self.forward_reward_weight * velocity[:, 0]
        survive = healthy * self.healthy_reward
        ctrl, contact = self.quadratic_costs(self.contact_cost_weight, self.contact_cost_range)
        np.subtract(forward + survive, ctrl + contact, out=self.reward)
        if self.terminate_when_unhealthy:
            np.logical_not(healthy, out=self.terminated)
        return {
            **self.reset_infos(),
            "x_velocity": velocity[:, 0],
            "y_velocity": velocity[:, 1],
            "reward_survive": survive,
            "reward_forward": forward,
            "reward_ctrl": -ctrl,
            "reward_contact": -contact,
        }

    @override
    def after_reset(self, batch: Batch, rows: NDArray[np.int32]) -> None:
        super().after_reset(batch, rows)
        self.xy[rows] = self.centre_of_mass()[rows]

    @override
    def reset_infos(self) -> dict[str, NDArray[Any]]:
        xy = self.qpos[:, :2].copy()
        own = {"x_position": xy[:, 0], "y_position": xy[:, 1], "distance_from_origin": length(xy)}
        return {**own, **self.tendons()}

    @override
    def state_dict(self) -> StateDict:
        return {"xy": self.xy.copy()}

    @override
    def load_state_dict(self, state: StateDict) -> None:
        self.xy[:] = state["xy"]


@dataclass(kw_only=True, eq=False)
class HumanoidStandup(_Body):
    """Reward: the torso's height (m) over the time step (s), less squared controls and contact forces, plus 1.

    Never terminates. `uph_cost_weight` is an option of Gymnasium's that its reward does not use either.
    """

    xml_file: str = "humanoidstandup.xml"
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: _view_from(0.8925))
    uph_cost_weight: float = 1
    impact_cost_weight: float = 0.5e-6
    impact_cost_range: tuple[float, float] = (-np.inf, 10.0)

    @override
    def needs_contact_forces(self) -> bool:
        return self.include_cfrc_ext_in_observation or self.impact_cost_weight != 0

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        up = self.qpos[:, 2] / self.model.opt.timestep
        ctrl, impact = self.quadratic_costs(self.impact_cost_weight, self.impact_cost_range)
        np.add(up - ctrl - impact, 1, out=self.reward)
        return {**self.reset_infos(), "reward_linup": up, "reward_quadctrl": -ctrl, "reward_impact": -impact}

    @override
    def reset_infos(self) -> dict[str, NDArray[Any]]:
        position = self.qpos[:, :3].copy()
        own = {"x_position": position[:, 0], "y_position": position[:, 1]}
        return {**own, "z_distance_from_origin": position[:, 2] - self.init_qpos[2], **self.tendons()}
