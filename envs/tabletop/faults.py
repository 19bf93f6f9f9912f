"""Simulations that go wrong are errors: full memory, numbers that are not finite."""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from robotrl.envs.tabletop.reader import Reader
from robotrl.types import RobotRLError

# What MuJoCo counts and goes on after with wrong physics.
FATAL: dict[int, str] = {
    int(mujoco.mjtWarning.mjWARN_CONTACTFULL): "its memory for contacts is full",
    int(mujoco.mjtWarning.mjWARN_CNSTRFULL): "its memory for constraints is full",
    int(mujoco.mjtWarning.mjWARN_BADQPOS): "a position is not finite or huge",
    int(mujoco.mjtWarning.mjWARN_BADQVEL): "a velocity is not finite or huge",
    int(mujoco.mjtWarning.mjWARN_BADQACC): "an acceleration is not finite or huge",
    int(mujoco.mjtWarning.mjWARN_BADCTRL): "a control is not finite",
}


class Faults:
    """Steps a batch and looks at what MuJoCo counted."""

    def __init__(self, env_id: str, batch: Batch, reader: Reader) -> None:
        self._id, self._batch, self._reader = env_id, batch, reader
        self._numbers = list(FATAL)

    def step(self, steps: int) -> None:
        """Simulate.

        Raises:
            RobotRLError: MuJoCo gave up, for want of memory for instance.
        """
        try:
            self._batch.step(nstep=steps)
        except SimulationError as error:
            raise RobotRLError(
                f"MuJoCo cannot simulate {self._id}: {error} Where memory ran out, make the env with a larger option "
                "'memory' (bytes)."
            ) from error

    def check(self, seed: int, episodes: NDArray[np.int64], steps: NDArray[np.int64]) -> None:
        """Make sure that what the step just made is physics.

        Args:
            seed: of the episodes.
            episodes: which one each row plays, `[N]`.
            steps: how far each has got, `[N]`.

        Raises:
            RobotRLError: it is not; the row, its episode and the reason are named.
        """
        warned, nowhere = self._batch.warning[:, self._numbers, 1], self._reader.nowhere()
        if warned.any():
            found = np.argwhere(warned)
            row, reason = int(found[0][0]), FATAL[self._numbers[int(found[0][1])]]
        elif nowhere.any():
            row, reason = int(nowhere.argmax()), "the position of an object is not finite"
        else:
            return
        raise RobotRLError(
            f"The simulation of {self._id} went wrong in row {row} (episode {episodes[row]} of seed {seed}, step "
            f"{steps[row]}): {reason}. What follows would not be physics. Use milder randomisation or a smaller "
            "timestep; for full memory, make the env with a larger option 'memory' (bytes)."
        )
