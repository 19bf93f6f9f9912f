"""The model of a task: table and arm, with the objects and the fixture that the task needs and nothing else."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

import robotrl.assets.tabletop as assets
from robotrl.envs.tabletop.kinematics import DOWN, Kinematics, Pose
from robotrl.types import RobotRLError

FOLDER = Path(assets.__file__).parent

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.13, 0.12),
    "green": (0.16, 0.58, 0.22),
    "blue": (0.13, 0.30, 0.78),
    "yellow": (0.95, 0.78, 0.10),
    "purple": (0.50, 0.20, 0.62),
    "orange": (0.95, 0.45, 0.08),
}
"""What blocks, mats and buttons can be coloured: name to red, green, blue in [0, 1]."""
WHITE = (0.96, 0.96, 0.95)

MAX_OBJECTS, MAX_MARKS = 3, 3
"""Loose objects, and mats or buttons, that one task can have."""

CONTROL_HZ = 20.0
REST_TOOL = np.array([0.42, 0.0, 0.26])
"""Where the tool waits at the start (m), pointing down."""
WORKSPACE = np.array([[0.25, -0.45, 0.012], [0.75, 0.45, 0.60]])
"""Corners of the box (m) that the tool is kept in; at its bottom the finger tips are 3 mm above the table."""

ARTICULATIONS: dict[str, tuple[str, ...]] = {
    "cabinet": ("slide",),
    "cupboard": ("hinge",),
    "console": ("press0", "press1", "press2"),
}
"""Joints of the fixtures that open, turn or give way."""


@dataclass(frozen=True, slots=True)
class Props:
    """What stands on the table."""

    blocks: int = 0
    peg: bool = False
    mats: int = 0
    fixture: str | None = None

    @property
    def objects(self) -> int:
        """Loose objects: blocks first, then the peg."""
        return self.blocks + int(self.peg)


@lru_cache(maxsize=32)
def _compiled(props: Props, timestep: float | None, memory: int | None) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(FOLDER / "table.xml"))
    parts = [("block", f"object{k}") for k in range(props.blocks)]
    parts += [("peg", f"object{props.blocks}")] if props.peg else []
    parts += [("mat", f"mat{k}") for k in range(props.mats)]
    parts += [(props.fixture, props.fixture)] if props.fixture else []
    for file, prefix in parts:
        part = mujoco.MjSpec.from_file(str(FOLDER / f"{file}.xml"))
        spec.attach(part, prefix=f"{prefix}/", frame=spec.worldbody.add_frame())
    if timestep is not None:
        spec.option.timestep = timestep
    if memory is not None:
        spec.memory = memory
    try:
        return spec.compile()
    except ValueError as error:
        raise RobotRLError(
            f"MuJoCo cannot build the scene: {error} A larger option 'memory' (bytes) helps where it ran out of it."
        ) from error


def build_model(props: Props, *, timestep: float | None = None, memory: int | None = None) -> mujoco.MjModel:
    """A model of its own for `props`.

    Args:
        props: what stands on the table.
        timestep: seconds; None: the suite's.
        memory: bytes for contacts and constraints; None: the suite's.
    """
    return copy.copy(_compiled(props, timestep, memory))


class Addresses:
    """Where a task's parts lie in the state of its model."""

    def __init__(self, model: mujoco.MjModel, props: Props) -> None:
        self.props = props
        self.arm_q = np.array([model.joint(f"joint{i}").qposadr[0] for i in range(1, 8)])
        self.arm_v = np.array([model.joint(f"joint{i}").dofadr[0] for i in range(1, 8)])
        fingers = [model.joint(name) for name in ("finger_left", "finger_right")]
        self.finger_q = np.array([j.qposadr[0] for j in fingers])
        self.finger_v = np.array([j.dofadr[0] for j in fingers])
        free = [model.joint(f"object{k}/free") for k in range(props.objects)]
        self.object_q = np.array([j.qposadr[0] for j in free], np.int64)
        self.object_v = np.array([j.dofadr[0] for j in free], np.int64)
        names = [f"{props.fixture}/{name}" for name in ARTICULATIONS.get(props.fixture or "", ())]
        self.part_q = np.array([model.joint(name).qposadr[0] for name in names], np.int64)
        self.part_v = np.array([model.joint(name).dofadr[0] for name in names], np.int64)
        planar = [f"bowl/{name}" for name in ("x", "y", "yaw")] if props.fixture == "bowl" else []
        self.bowl_q = np.array([model.joint(name).qposadr[0] for name in planar], np.int64)
        self.mat_mocap = [int(model.body_mocapid[model.body(f"mat{k}/mat").id]) for k in range(props.mats)]
        fixed = props.fixture is not None and props.fixture != "bowl"
        body = f"{props.fixture}/{props.fixture}"
        self.fixture_mocap = int(model.body_mocapid[model.body(body).id]) if fixed else -1
        self.object_geom = [model.geom(f"object{k}/{'block' if k < props.blocks else 'peg'}").id
                            for k in range(props.objects)]  # fmt: skip
        marks = [f"mat{k}/mat" for k in range(props.mats)]
        marks += [f"console/button{k}" for k in range(3)] if props.fixture == "console" else []
        self.mark_geom = [model.geom(name).id for name in marks]


def rest_posture(kinematics: Kinematics) -> NDArray[np.float64]:
    """Joint angles `[7]` (rad) that hold the tool at `REST_TOOL`, elbow up."""
    start = np.array([[0.0, -0.6, 0.0, -2.4, 0.0, 1.8, 0.785398]])
    found = kinematics.solve(Pose(REST_TOOL[None], DOWN[None]), start, restarts=0)
    return found.q[0]


__all__ = [
    "ARTICULATIONS", "COLOURS", "CONTROL_HZ", "MAX_MARKS", "MAX_OBJECTS", "REST_TOOL", "WHITE", "WORKSPACE",
    "Addresses", "Props", "build_model", "rest_posture",
]  # fmt: skip
