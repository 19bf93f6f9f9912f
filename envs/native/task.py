"""What a native task is: how an episode starts, what is observed, what is rewarded, when it ends, for all rows at once.

Quantities are in SI units, angles in radians. A task mirrors its Gymnasium original to the bit wherever NumPy adds in
the same order over a row of a matrix as over a vector, and reads each quantity at the same moment: after a step,
`qpos` and `qvel` are the new state, while derived fields (`xpos`, `cinert`, `cvel`, contact forces) still describe the
last evaluation of the dynamics within that step, as after MuJoCo's `mj_step`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, override

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from robotrl.envs.seeding import EpisodeStreams
from robotrl.types import RobotRLError, StateDict

Float = NDArray[np.float64]
Rows = slice | NDArray[np.integer[Any]]
ALL = slice(None)


@dataclass(kw_only=True, eq=False)
class Task:
    """Base of the native tasks; the dataclass fields are the options of Gymnasium's constructor.

    The env calls `attach` once, then per control step `before_step`, MuJoCo, `after_step`, and `observe`; for rows
    that start an episode `start_rows`, `after_reset` and `observe`.
    """

    xml_file: str = ""
    """A model in Gymnasium's assets, or a path that starts with `/`, `.` or `~`."""
    frame_skip: int = 1
    """Simulation steps per control step."""
    default_camera_config: dict[str, Any] | None = None
    """Attributes of the free camera that pictures are taken with; None: `view`."""

    max_episode_steps: ClassVar[int] = 1000
    unit: ClassVar[str] = ""
    view: ClassVar[dict[str, Any]] = {}
    walks: ClassVar[bool] = False
    """Whether the robot leaves the place it starts at, so that a camera has to follow."""

    def needs_contact_forces(self) -> bool:
        """Whether `cfrc_ext` is read, which MuJoCo computes only when asked."""
        return False

    def attach(self, model: mujoco.MjModel, batch: Batch) -> None:
        """Take views of the simulations and allocate what is returned.

        `self.coords [N, nq + nv]` (and `qpos`, `qvel`, its parts) are the live state, `self.obs [N, D]`,
        `self.reward [N]` and `self.terminated [N]` are written by `observe` and `after_step`.
        """
        self.model = model
        self.num_envs = batch.nsim
        self.qpos: Float = batch.bind("qpos")
        self.qvel: Float = batch.bind("qvel")
        # time, qpos and qvel come first in a state row, so the observation of most tasks is one slice of it
        self.coords: Float = batch.state[:, 1 : 1 + model.nq + model.nv]
        self.init_qpos: Float = model.qpos0.copy()
        self.dt: float = model.opt.timestep * self.frame_skip
        self.body_mass: Float = model.body_mass.copy()  # kg, [nbody]; [N, nbody] where masses are randomised
        self.reward: Float = np.zeros(self.num_envs)
        self.terminated: NDArray[np.bool_] = np.zeros(self.num_envs, np.bool_)
        self.bind(batch)
        self.obs: Float = np.zeros((self.num_envs, self.obs_size()))

    def bind(self, batch: Batch) -> None:
        """Bind the derived fields the task reads and allocate its buffers."""

    def obs_size(self) -> int:
        """Numbers in the observation of one env."""
        raise NotImplementedError

    def start_rows(self, streams: EpisodeStreams, rows: NDArray[np.int32], episodes: NDArray[np.int64]) -> None:
        """Write the start states of `episodes` into the state of `rows`, from Gymnasium's distribution."""
        raise NotImplementedError

    def before_step(self) -> None:
        """Remember what the reward compares the new state with."""

    def after_step(self, actions: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        """Write `reward` and `terminated` of the step just made; the terms by Gymnasium's names, each `[N, ...]`."""
        raise NotImplementedError

    def after_reset(self, batch: Batch, rows: NDArray[np.int32]) -> None:
        """Compute the derived fields that `observe` or the next `before_step` reads, for `rows` that were reset."""

    def observe(self, rows: Rows) -> None:
        """Write the observations of `rows` into `self.obs`."""
        raise NotImplementedError

    def reset_infos(self) -> dict[str, NDArray[Any]]:
        """What Gymnasium's reset reports, `[N, ...]` each."""
        return {}

    def state_dict(self) -> StateDict:
        """What the next step reads that is neither in the state rows nor recomputed."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Set what `state_dict` returned."""


def body_id(model: mujoco.MjModel, body: int | str) -> int:
    """The number of the body of that name or number.

    Raises:
        RobotRLError: the model has no such body.
    """
    try:
        return int(model.body(body).id)
    except (KeyError, IndexError) as error:
        names = [model.body(i).name for i in range(model.nbody)]
        raise RobotRLError(f"The model has no body {body!r}. Its bodies are: {', '.join(names)}.") from error


def length(vectors: Float) -> Float:
    """Euclidean lengths `[N]` of `vectors [N, k]`, added as `np.linalg.norm` adds a single one: by a dot product."""
    return np.sqrt(np.vecdot(vectors, vectors))


@dataclass(kw_only=True, eq=False)
class NoisyTask(Task):
    """A task whose episodes start from the model's pose with uniform noise, velocities perhaps with normal noise."""

    reset_noise_scale: float = 0.1
    """Uniform noise lies in `[-scale, scale)`; normal noise has this standard deviation."""

    normal_velocities: ClassVar[bool] = False

    @override
    def start_rows(self, streams: EpisodeStreams, rows: NDArray[np.int32], episodes: NDArray[np.int64]) -> None:
        nq = self.model.nq
        noise = np.empty((len(rows), self.coords.shape[1]))
        # one or two draws an episode in Python, the arithmetic for all rows: robots that fall often restart often
        for drawn, episode in zip(noise, episodes.tolist(), strict=True):
            rng = streams.at(episode)
            if self.normal_velocities:
                rng.random(out=drawn[:nq])
                rng.standard_normal(out=drawn[nq:])
            else:
                rng.random(out=drawn)
        uniform = noise[:, :nq] if self.normal_velocities else noise
        uniform *= 2.0
        uniform -= 1.0
        noise *= self.reset_noise_scale
        noise[:, :nq] += self.init_qpos
        self.coords[rows] = noise
