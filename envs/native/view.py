"""Pictures of native simulations, from the camera Gymnasium's task sets up or from one of the model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.rendering import OffscreenRenderer
from robotrl.types import RobotRLError


class Viewed(Protocol):
    """How something that is simulated wants to be looked at; a `Task` is one."""

    @property
    def default_camera_config(self) -> Mapping[str, Any] | None:
        """Attributes of the free camera that the user asked for; None: `view`."""

    @property
    def view(self) -> Mapping[str, Any]:
        """Its own attributes of the free camera."""

    @property
    def walks(self) -> bool:
        """Whether the camera has to follow."""


class View:
    """Takes pictures of the simulations of a batch; one renderer, made for the size that was asked for last."""

    def __init__(self, task: Viewed, batch: Batch) -> None:
        self._task, self._batch = task, batch
        self._model = batch.get_model(0)  # written to for each simulation: their physics, and sizes, may differ
        self._data = mujoco.MjData(self._model)
        mujoco.mj_kinematics(self._model, self._data)
        self._middle = np.median(self._data.geom_xpos, axis=0)  # of the default pose
        self._renderer: OffscreenRenderer | None = None

    def render(
        self, rows: Sequence[int], *, height: int, width: int, camera: str | int | None = None
    ) -> NDArray[np.uint8]:
        """Pictures `[len(rows), height, width, 3]`; `camera` None is the task's own view."""
        renderer = self._renderer
        if renderer is None or (renderer.height, renderer.width) != (height, width):
            self.close()
            renderer = self._renderer = OffscreenRenderer(self._model, height=height, width=width)
        pictures = np.empty((len(rows), height, width, 3), np.uint8)
        state, integration = self._batch.state, mujoco.mjtState.mjSTATE_INTEGRATION.value
        for i, row in enumerate(rows):
            self._batch.get_model(row, self._model)
            mujoco.mj_setState(self._model, self._data, state[row], integration)
            mujoco.mj_kinematics(self._model, self._data)
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_camlight(self._model, self._data)
            view = self._own_camera() if camera is None else camera
            pictures[i] = renderer.render(self._data, view, model=self._model)
        return pictures

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _own_camera(self) -> mujoco.MjvCamera:
        """The free camera as the task configures it, moved along with the robot where it walks."""
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.distance = self._model.stat.extent
        own = self._task.default_camera_config
        config = dict(self._task.view if own is None else own)
        followed = config.pop("trackbodyid", 1 if self._task.walks else 0)
        camera.lookat[:] = self._data.xpos[followed] if self._task.walks else self._middle
        for name, value in config.items():
            _set(camera, name, value)
        if self._task.walks:
            camera.lookat[:2] = self._data.xpos[followed, :2]
        return camera


def _set(camera: mujoco.MjvCamera, name: str, value: Any) -> None:
    try:
        if name == "lookat":
            camera.lookat[:] = value
        else:
            setattr(camera, name, value)
    except (AttributeError, TypeError, ValueError) as error:
        raise RobotRLError(
            f"default_camera_config has {name}={value!r}, which a MuJoCo camera does not take: {error}. "
            "Its keys are distance, azimuth, elevation, lookat and trackbodyid."
        ) from error
