"""InvertedPendulum and InvertedDoublePendulum: a cart that balances one pole, or two on top of each other.

Source: Barto, Sutton, Anderson, "Neuronlike adaptive elements that can solve difficult learning control problems"
(1983); options and constants are those of Gymnasium's v5 environments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.native.task import Float, NoisyTask, Rows


@dataclass(kw_only=True, eq=False)
class InvertedPendulum(NoisyTask):
    """Reward 1 a step while the pole's angle stays within 0.2 rad; terminates beyond."""

    xml_file: str = "inverted_pendulum.xml"
    frame_skip: int = 2
    default_camera_config: dict[str, Any] | None = field(default_factory=lambda: {"trackbodyid": 0, "distance": 2.04})
    reset_noise_scale: float = 0.01

    unit: ClassVar[str] = "cart m, pole rad, m/s, rad/s"

    @override
    def obs_size(self) -> int:
        return 4

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        standing = np.abs(self.qpos[:, 1]) <= 0.2  # false for NaN
        standing &= np.logical_and.reduce(np.isfinite(self.coords), axis=1)
        np.logical_not(standing, out=self.terminated)
        self.reward[:] = standing
        return {"reward_survive": standing.astype(np.int64)}

    @override
    def observe(self, rows: Rows) -> None:
        self.obs[rows] = self.coords[rows]


@dataclass(kw_only=True, eq=False)
class InvertedDoublePendulum(NoisyTask):
    """Reward: a bonus while the tip stays above 1 m, less its squared distance to the upright and squared velocities.

    Tip position and constraint force are those of the last evaluation of the dynamics within the step.
    """

    xml_file: str = "inverted_double_pendulum.xml"
    frame_skip: int = 5
    healthy_reward: float = 10.0

    normal_velocities: ClassVar[bool] = True
    view: ClassVar[dict[str, Any]] = {"distance": 3.5, "lookat": (0.0, 0.0, 0.4), "elevation": -15.0}
    unit: ClassVar[str] = "cart m; sin, cos of two angles; m/s and rad/s within 10; constraint force N within 10"

    @override
    def bind(self, batch: Batch) -> None:
        self.site_xpos: Float = batch.bind("site_xpos")
        self.qfrc_constraint: Float = batch.bind("qfrc_constraint")

    @override
    def obs_size(self) -> int:
        return 9

    @override
    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        x, height = self.site_xpos[:, 0, 0], self.site_xpos[:, 0, 2]
        np.less_equal(height, 1, out=self.terminated)
        distance = 0.01 * np.square(x) + np.square(height - 2)
        velocity = 1e-3 * np.square(self.qvel[:, 1]) + 5e-3 * np.square(self.qvel[:, 2])
        alive = self.healthy_reward * ~self.terminated
        np.subtract(alive - distance, velocity, out=self.reward)
        return {"reward_survive": alive, "distance_penalty": -distance, "velocity_penalty": -velocity}

    @override
    def after_reset(self, batch: Batch, rows: NDArray[np.int32]) -> None:
        batch.forward(rows)

    @override
    def observe(self, rows: Rows) -> None:
        obs, angles = self.obs, self.qpos[rows, 1:]
        obs[rows, :1] = self.qpos[rows, :1]
        obs[rows, 1:3] = np.sin(angles)
        obs[rows, 3:5] = np.cos(angles)
        obs[rows, 5:8] = np.minimum(np.maximum(self.qvel[rows], -10.0), 10.0)
        obs[rows, 8:] = np.minimum(np.maximum(self.qfrc_constraint[rows, :1], -10.0), 10.0)
